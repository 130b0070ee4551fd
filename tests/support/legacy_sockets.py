"""A client of an older contract's socket, as raw as a test wants it: exact texts in, exact texts out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from support.node import Node
from support.raw_http import Wire, open_websocket

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class LegacySocket:
    """An open socket. Control pings are answered."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    async def text(self) -> str:
        """The next text message; fails when the socket is closed instead."""
        while True:
            frame = await self.wire.frame()
            if frame.opcode == TEXT:
                return frame.payload.decode()
            if frame.opcode == PING:
                self.wire.send(PONG, frame.payload)
                continue
            raise AssertionError(f"no text but opcode {frame.opcode}: {frame.payload!r}")

    async def json(self) -> dict[str, Any]:
        """The next text message as an object."""
        found: dict[str, Any] = json.loads(await self.text())
        return found

    def say(self, message: object) -> None:
        """Sends a text, or any other value as JSON."""
        text = message if isinstance(message, str) else json.dumps(message, ensure_ascii=False)
        self.wire.send(TEXT, text.encode())

    async def ask(self, message: object) -> dict[str, Any]:
        """Sends a message and gives the next one that comes."""
        self.say(message)
        return await self.json()

    async def quiet(self) -> None:
        """Fails when anything came before the answer to a ping: all that was published before has been
        delivered, or will not be."""
        answer = await self.ask({"type": "ping"})
        assert answer["type"] == "pong", answer

    async def closed(self) -> tuple[int, str]:
        """Code and reason of the close frame that comes next."""
        while True:
            frame = await self.wire.frame()
            if frame.opcode == PING:
                self.wire.send(PONG, frame.payload)
                continue
            assert frame.opcode == CLOSE, frame
            return frame.close_code, frame.payload[2:].decode()


@asynccontextmanager
async def legacy_socket(
    node: Node, path: str, token: str = "", **headers: str | None
) -> AsyncIterator[LegacySocket]:
    """Connects to `path`, with `token` in the query unless it is ""; fails unless the handshake succeeds."""
    sign = "&" if "?" in path else "?"
    target = f"{path}{sign}token={token}" if token else path
    async with await open_websocket(node.port, target, **headers) as wire:
        assert wire.response is not None and wire.response.status == 101, wire.response
        yield LegacySocket(wire)
