"""A sentinel that says what the test wants: real ones cannot be brought to disagree at will."""

from __future__ import annotations

import asyncio
import ssl
from types import TracebackType
from typing import Self

import hiredis


class FakeSentinel:
    """Answers what `dualcast.bus.redis.sentinels` asks. `port` 0: it knows no such service. `tls`: it
    speaks TLS and says names of hosts, for the sake of their certificates.
    """

    def __init__(self, port: int = 0, epoch: int = 0, *, tls: ssl.SSLContext | None = None) -> None:
        self.host = "127.0.0.1" if tls is None else "localhost"
        self.port = port
        self._tls = tls
        self.epoch = epoch
        self.asked = 0
        self.open = 0
        self.slow_s = 0.0
        """What it takes to answer."""
        self.connected = 0
        """Connections so far."""
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Line(self), "127.0.0.1", 0, ssl=self._tls
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()

    @property
    def place(self) -> str:
        """For `redis.sentinels`."""
        assert self._server is not None
        return f"{self.host}:{self._server.sockets[0].getsockname()[1]}"

    def name(self, port: int, epoch: int) -> None:
        """From now on this is the master."""
        self.port, self.epoch = port, epoch

    def answer(self, words: list[bytes]) -> bytes:
        if words[0] == b"PING":
            return b"+PONG\r\n"
        if words[0] != b"SENTINEL":
            return b"+OK\r\n"
        if words[1] == b"GET-MASTER-ADDR-BY-NAME":
            self.asked += 1
            return _array(self.host, str(self.port)) if self.port else b"*-1\r\n"
        if not self.port:
            return b"-ERR No such master with that name\r\n"
        return _array("config-epoch", str(self.epoch), "num-other-sentinels", "2")


class _Line(asyncio.Protocol):
    def __init__(self, owner: FakeSentinel) -> None:
        self._owner = owner
        self._reader = hiredis.Reader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._owner.open += 1
        self._owner.connected += 1
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.open -= 1

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (words := self._reader.gets()) is not False:
            answer = self._owner.answer([word.upper() for word in words])
            asyncio.get_running_loop().call_later(self._owner.slow_s, self._say, answer)

    def _say(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


def _array(*words: str) -> bytes:
    return f"*{len(words)}\r\n".encode() + b"".join(f"${len(word)}\r\n{word}\r\n".encode() for word in words)
