"""Stage `shadow` on a running node: what is written to both sessions of an instance is compared."""

from __future__ import annotations

from typing import Any

import pytest

from dualcast.transport.encodings import NATIVE_SSE
from dualcast.transport.parity import Compared, ParityWatch
from dualcast_migration.stage import Stage
from support.clients import Client, open_socket, open_stream
from support.node import Node, running_node

pytestmark = pytest.mark.anyio


class Watched:
    """A watch of our own over a node's sessions; `look` is called by the tests."""

    def __init__(self, node: Node) -> None:
        self.found: list[Compared] = []
        tenants = node.composition.tenants

        def record_of(name: str) -> Any:
            tenant = tenants.current(name)
            return None if tenant is None else tenant.stage

        self.watch = ParityWatch(node.composition.node, record_of, self.found.append)

    @property
    def sums(self) -> tuple[int, int]:
        comparisons = [one.comparison for one in self.found]
        return sum(c.compared for c in comparisons), sum(c.mismatches for c in comparisons)


async def both(node: Node, sub: str, instance: str = "tab-1", **how: Any) -> tuple[Client, Client]:
    stream = await open_stream(node.port, node.token(sub), instance=instance)
    socket = await open_socket(node.port, node.token(sub), instance=instance, **how)
    for client in (stream, socket):
        await client.welcome()
    return stream, socket


async def drained(clients: tuple[Client, Client], count: int) -> None:
    for client in clients:
        for _ in range(count):
            await client.until("publication")


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("detach", [True, False])
async def test_what_both_transports_are_given_is_the_same(compression: str | None, detach: bool) -> None:
    deflate = compression is not None
    async with running_node(
        "memory", detach=detach, tenancy={"stage": "shadow"}, delivery={"compression": deflate}
    ) as node:
        watched = Watched(node)
        stream, socket = clients = await both(node, "ann", compression=compression)
        async with stream, socket:
            await watched.watch.look()
            for n in range(5):
                await node.publish("user:ann", {"n": n, "text": "ä" * 200})
            await node.publish("all", {"to": "everybody"})
            await node.publish("user:ann", {"only": "now"}, ephemeral=True)
            await drained(clients, 7)
            await watched.watch.look()
            assert watched.sums == (6, 0)
            assert {(c.tenant, c.user, c.instance) for c in watched.found} == {("default", "ann", "tab-1")}


async def test_what_one_transport_is_not_given_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = NATIVE_SSE.encode
    monkeypatch.setattr(
        NATIVE_SSE, "encode", lambda entry: b"" if entry.publication.type == "lost" else real(entry)
    )
    async with running_node("memory", tenancy={"stage": "shadow"}) as node:
        watched = Watched(node)
        stream, socket = await both(node, "ann")
        async with stream, socket:
            await watched.watch.look()
            lost = await node.publish("user:ann", {"n": 1}, kind="lost")
            await node.publish("user:ann", {"n": 2})
            await drained((stream, stream), 0)
            await stream.until("publication")
            await socket.publications(2)
            await watched.watch.look()
            assert watched.sums == (2, 1)
            (difference,) = watched.found[0].comparison.differences
            assert (difference.kind, difference.id) == ("missing-on-sse", lost["id"])


async def test_only_pairs_of_one_instance_in_the_shadow_stage_are_tapped() -> None:
    async with running_node("memory", tenancy={"stage": "shadow"}) as node:
        watched = Watched(node)
        pair = await both(node, "ann", "tab-1")
        other = await both(node, "bob", "tab-1")
        alone = await open_socket(node.port, node.token("ann"), instance="tab-2")
        unnamed = await open_stream(node.port, node.token("ann"))
        async with pair[0], pair[1], other[0], alone, unnamed:
            await alone.welcome()
            await unnamed.welcome()
            await watched.watch.look()
            assert watched.watch.gauges() == {"parity_pairs": 2}
            await other[1].close()
            await node.until(lambda: len(node.sessions) == 5, "one left")
            await watched.watch.look()
            assert watched.watch.gauges() == {"parity_pairs": 1}
            taps = [type(session.transport).__name__ == "Tap" for session in node.sessions]
            assert sum(taps) == 2
            tenant = node.composition.tenants.current("default")
            assert tenant is not None
            assert tenant.stage.stage is Stage.SHADOW


async def test_in_other_stages_nothing_is_tapped() -> None:
    async with running_node("memory", tenancy={"stage": "websocket"}) as node:
        watched = Watched(node)
        stream, socket = await both(node, "ann")
        async with stream, socket:
            await watched.watch.look()
            assert watched.watch.gauges() == {"parity_pairs": 0}
