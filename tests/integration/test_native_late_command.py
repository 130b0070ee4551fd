"""Regression: a node that read a close command late closed connections opened after it, with a stop code."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from dualcast.gateway.directory import Directory
from dualcast.model.codes import Close
from support.clients import open_socket
from support.node import Node, running_node

pytestmark = pytest.mark.anyio


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with running_node("memory") as running:
        yield running


async def test_a_connection_younger_than_the_command_is_spared(node: Node) -> None:
    async with await open_socket(node.port, node.token()) as socket:
        await socket.welcome()
        directory = Directory(node.composition.node)
        now_s = node.composition.node.now_s()
        assert directory.close("default", user="alice", code=Close.REVOKED, opened_before_s=now_s - 60) == 0
        assert (await socket.ask("ping")).kind == "pong"
        assert directory.close("default", user="alice", code=Close.REVOKED, opened_before_s=now_s + 1) == 1
