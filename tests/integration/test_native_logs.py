"""No token gets into a log line, at DEBUG, with uvicorn's own lines and either set of protocol classes."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import pytest

from dualcast.transport import server as transport_server
from support.clients import open_socket, open_stream
from support.node import Node, running_node

pytestmark = pytest.mark.anyio

OF_THE_CLIENT = ("httpx", "httpcore", "websockets.client")
"""Loggers of the test's own clients, which know the tokens."""


class Lines(logging.Handler):
    """Every record of the server as text, tracebacks included."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith(OF_THE_CLIENT):
            self.lines.append(self.format(record))


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Everything logged from now on, with uvicorn's access log on and every logger at DEBUG."""
    config = transport_server.EdgeConfig

    def talkative(*args: object, **kwargs: object) -> object:
        return config(*args, **{**kwargs, "access_log": True, "log_level": "debug"})  # type: ignore[arg-type]

    monkeypatch.setattr(transport_server, "EdgeConfig", talkative)
    handler, root = Lines(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    names = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi", "dualcast", "asyncio")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.DEBUG)
    yield handler.lines
    root.removeHandler(handler)
    root.setLevel(level)
    for name, old in levels.items():
        logging.getLogger(name).setLevel(old)


async def use_every_way_in(node: Node, secrets: list[str]) -> None:
    def secret(sub: str, **claims: object) -> str:
        text = node.token(sub, **claims)  # type: ignore[arg-type]
        secrets.append(text)
        return text

    header, query, bearer, cookie, expired = (secret(f"log-{n}") for n in range(5))
    expired = secret("log-expired", life_s=-5)
    tickets = [await node.ticket(kind) for kind in ("sse", "websocket")]
    secrets += tickets
    own = {"Origin": f"http://127.0.0.1:{node.port}"}
    streams = [
        await open_stream(node.port, header),
        await open_stream(node.port, token=query),
        await open_stream(node.port, ticket=tickets[0]),
        await open_stream(node.port, headers={"Cookie": f"dualcast_token={cookie}", "Origin": "http://test"}),
        await open_stream(node.port, token=expired),
        await open_stream(node.port, token=query + "x"),
    ]
    sockets = [
        await open_socket(node.port, header),
        await open_socket(node.port, token=query),
        await open_socket(node.port, ticket=tickets[1]),
        await open_socket(node.port, headers={"Cookie": f"dualcast_token={cookie}", **own}),
        await open_socket(node.port, subprotocols=["dualcast", "bearer." + bearer]),
        await open_socket(node.port, token=expired),
        await open_socket(node.port, token=query + "x"),
    ]
    for socket in sockets[:5]:
        await socket.welcome()
        fresh = secret(socket.history[0].body["user"])
        await socket.ask("authenticate", token=fresh)
        await socket.ask("authenticate", token=fresh + "x")
        await socket.socket.send(f'{{"type":"authenticate","token":"{fresh}"')
    for path in ("/v1/nowhere", "/v1/channels/all/history", "/v1/stream/x"):
        await node.http.get(path, params={"token": query}, headers={"Authorization": f"Bearer {header}"})
    for client in (*streams, *sockets):
        await client.close()


@pytest.mark.parametrize("detach", [True, False], ids=["detached", "plain-asgi"])
async def test_no_token_is_ever_logged(lines: list[str], detach: bool) -> None:
    secrets: list[str] = []
    async with running_node("memory", detach=detach) as node:
        await use_every_way_in(node, secrets)
        logging.getLogger("dualcast").debug("the test's own line")
    text = "\n".join(lines)
    assert "the test's own line" in text, "the capture works"
    assert re.search(r"uvicorn", text), "uvicorn's lines are among them"
    for secret in secrets:
        parts = {
            secret,
            secret.rpartition(".")[2],
            secret[:40] if "." not in secret else secret.split(".")[1],
        }
        for part in parts:
            found = [line for line in lines if part in line]
            assert not found, found[0][:300]


async def test_a_fault_while_handling_a_request_logs_no_token(
    lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_node("memory") as node:
        secret = node.token("faulty")

        def broken(*_args: object) -> None:
            raise RuntimeError("broken on purpose")

        monkeypatch.setattr(node.composition.hub, "channel", broken)
        async with await open_stream(node.port, token=secret) as stream:
            assert stream.status == 500
            assert stream.wire.response is not None
            assert b"broken on purpose" not in stream.wire.response.body
        monkeypatch.undo()
    assert not [line for line in lines if secret.rpartition(".")[2] in line]
