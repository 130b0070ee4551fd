"""One RESP2 connection as an `asyncio.Protocol` on `hiredis.Reader`: written at once, answered first in,
first out.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

import hiredis
from msgspec import Struct
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection, parse_url


class LinkLost(Exception):
    """The connection could not be made, ended, or answered nonsense."""


class Address(Struct, frozen=True):
    """Where Redis listens and how to log in."""

    host: str = ""
    port: int = 0
    path: str = ""
    """Of a unix socket."""
    username: str = ""
    password: str = ""
    db: int = 0
    tls: ssl.SSLContext | None = None


def parse_address(url: str) -> Address:
    """The address in `url`, with redis-py's query options for TLS. Raises ValueError."""
    found: dict[str, Any] = dict(parse_url(url))
    kind = found.pop("connection_class", None)
    username, password = found.get("username") or "", found.get("password") or ""
    db = int(found.get("db", 0) or 0)
    if kind is UnixDomainSocketConnection:
        return Address(path=found["path"], username=username, password=password, db=db)
    tls = None
    if kind is SSLConnection:
        tls = SSLConnection(**found).ssl_context.get()
    return Address(
        host=found.get("host", "localhost"),
        port=found.get("port", 6379),
        username=username,
        password=password,
        db=db,
        tls=tls,
    )


def pack(*command: str | bytes | int) -> bytes:
    """A command in RESP."""
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]
    return packed


def resolve(future: asyncio.Future[Any], reply: Any) -> None:
    """`reply` as the future's result, unless its owner has gone."""
    if not future.done():
        future.set_result(reply)


class Link(asyncio.Protocol):
    """A connection. `send` takes packed commands; replies come to the callbacks, errors as
    `hiredis.ReplyError` values.

    When the connection ends, every callback still waiting gets a LinkLost, then `lost` is done.
    """

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._feed = self._reader.feed
        self._gets = self._reader.gets
        self._waiting: deque[Callable[[Any], None]] = deque()
        self._transport: asyncio.Transport | None = None
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.received = 0
        """Reads so far; a number that grows shows a living line."""

    @property
    def up(self) -> bool:
        return self._transport is not None

    @property
    def waiting(self) -> int:
        """Replies due."""
        return len(self._waiting)

    def send(self, packed: bytes, *callbacks: Callable[[Any], None]) -> None:
        """Writes `packed`, which holds as many commands as there are callbacks. Raises LinkLost."""
        if self._transport is None:
            raise LinkLost
        self._waiting.extend(callbacks)
        self._transport.write(packed)

    async def ask(self, *command: str | bytes | int) -> Any:
        """One command and its reply. Raises LinkLost also for an error reply."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.send(pack(*command), partial(resolve, future))
        reply = await future
        if isinstance(reply, LinkLost):
            raise LinkLost
        if isinstance(reply, hiredis.ReplyError):
            raise LinkLost(str(reply))
        return reply

    async def ended(self) -> None:
        """Waits for the end of the connection; being cancelled leaves `lost` alone."""
        await asyncio.wait([self.lost])

    def abort(self) -> None:
        """Ends the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass

    def data_received(self, data: bytes) -> None:
        self.received += 1
        try:
            self._feed(data)
            while (reply := self._gets()) is not False:
                self._waiting.popleft()(reply)
        except (hiredis.HiredisError, IndexError):
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        waiting, self._waiting = self._waiting, deque()
        for callback in waiting:
            callback(LinkLost())
        if not self.lost.done():
            self.lost.set_result(None)


L = TypeVar("L", bound=Link)


async def open_link(address: Address, factory: Callable[[], L], name: str, timeout_s: float) -> L:
    """A connected, authenticated link in the right database, `name` in CLIENT LIST. Raises LinkLost."""
    loop = asyncio.get_running_loop()
    link = factory()
    try:
        async with asyncio.timeout(timeout_s):
            if address.path:
                await loop.create_unix_connection(lambda: link, address.path)
            else:
                await loop.create_connection(lambda: link, address.host, address.port, ssl=address.tls)
            if address.password:
                await link.ask("AUTH", *filter(None, (address.username, address.password)))
            await link.ask("CLIENT", "SETNAME", name)
            if address.db:
                await link.ask("SELECT", address.db)
            await link.ask("PING")
    except (OSError, TimeoutError, ValueError, LinkLost):
        link.abort()
        raise LinkLost from None
    except BaseException:
        link.abort()
        raise
    return link
