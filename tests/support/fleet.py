"""Clients of both transports that live through everything: they reconnect by themselves with their cursor, as
an `EventSource` and a good WebSocket client do (docs/protocol.md), and write down every copy and every
signal.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections import Counter
from collections.abc import Sequence
from typing import Any, Self
from urllib.parse import quote

import httptools
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from support.accounting import Arrival, Changes
from support.server_process import token

Target = tuple[str, int]
PUBLISHER_FIELDS = frozenset({"channel", "id", "event", "time", "data"})
FIRST_BACKOFF_S = 0.1
LAST_BACKOFF_S = 1.0
"""Shorter than a real client's (1 s to 30 s): a test waits for it."""


class Client:
    """One page or app process: its position, what it got, what it was told. Subclasses connect."""

    transport_name = ""

    def __init__(
        self, name: str, user: str, topics: Sequence[str], targets: Sequence[Target], changes: Changes
    ) -> None:
        self.name = name
        self.channels = frozenset({f"user:{user}", "all", *topics})
        self.targets = list(targets)
        self.token = token(user, channels=["topic:*"])
        self.query = "channels=" + ",".join(quote(topic) for topic in topics) if topics else ""
        self.changes = changes
        self.cursor: str | None = None
        self.connection = 0
        """Connections that were welcomed."""
        self.attempts = 0
        self.open = False
        self.over = ""
        """Why it will not come back; "": it will."""
        self.arrivals: list[Arrival] = []
        self.ids: set[str] = set()
        self.signals: list[tuple[str, dict[str, Any]]] = []
        self.ends: Counter[str] = Counter()
        """How connections ended."""
        self.told_retry_ms: list[int] = []
        """Delays that came with `drain` or `bye`."""
        self.receive_buffer = 0
        """SO_RCVBUF of new connections; 0: the system's. Smaller than a segment (64 KiB on loopback) makes
        TCP crawl."""
        self.reading = True

    def __repr__(self) -> str:
        return (
            f"{self.name} open={self.open} over={self.over!r} connection={self.connection} "
            f"attempts={self.attempts} cursor={self.cursor} ends={dict(self.ends)} "
            f"arrivals={len(self.arrivals)} last={self.signals[-1:]}"
        )

    async def run(self) -> None:
        """Connects and reconnects until cancelled or told to stop."""
        while not self.over:
            target = self.targets[self.attempts % len(self.targets)]
            self.attempts += 1
            delay_s = await self.once(target)
            self.open = False
            self.changes.note()
            if not self.over:
                await asyncio.sleep(delay_s)

    async def once(self, target: Target) -> float:
        """One connection from beginning to end; seconds to wait before the next."""
        raise NotImplementedError

    def stop_reading(self) -> None:
        """From now on takes nothing from the socket."""
        self.reading = False

    def read_again(self) -> None:
        self.reading = True

    def welcomed(self, cursor: str | None) -> None:
        self.connection += 1
        self.open = True
        self.moved(cursor)

    def moved(self, cursor: str | None) -> None:
        if cursor:
            self.cursor = cursor

    def publication(self, fields: dict[str, Any], cursor: str | None) -> None:
        data = fields["data"]
        number = data["n"] if "n" in data else data["data"]["n"]
        self.arrivals.append(Arrival(self.connection, fields["id"], number, fields["channel"], cursor))
        self.ids.add(fields["id"])
        self.moved(cursor)
        self.changes.note()

    def signal(self, name: str, fields: dict[str, Any]) -> None:
        self.signals.append((name, fields))
        if fields.get("retry_ms") is not None:
            self.told_retry_ms.append(fields["retry_ms"])
        self.changes.note()

    def named(self, name: str) -> list[dict[str, Any]]:
        """The signals of one name."""
        return [fields for given, fields in self.signals if given == name]

    def connected(self, transport: asyncio.BaseTransport) -> None:
        """Gives the socket of a new connection the receive buffer asked for."""
        if self.receive_buffer:
            connected = transport.get_extra_info("socket")
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)


class StreamClient(Client):
    """An `EventSource`: reconnects after `retry:` with `Last-Event-ID`, and never again after a status other
    than 200."""

    transport_name = "sse"
    retry_ms = 300
    """What an `EventSource` waits until it is told otherwise."""
    _stream: _Stream | None = None

    async def once(self, target: Target) -> float:
        loop = asyncio.get_running_loop()
        try:
            _, stream = await loop.create_connection(lambda: _Stream(self), *target)
        except OSError:
            self.ends["refused"] += 1
            return self.retry_ms / 1000
        self._stream = stream
        self.connected(stream.transport)
        if not self.reading:
            stream.transport.pause_reading()
        last = f"Last-Event-ID: {self.cursor}\r\n" if self.cursor else ""
        request = f"GET /v1/stream?{self.query} HTTP/1.1\r\nHost: {target[0]}:{target[1]}\r\n{last}"
        request += f"Accept: text/event-stream\r\nAuthorization: Bearer {self.token}\r\n\r\n"
        try:
            stream.transport.write(request.encode())
            self.ends[await stream.ended] += 1
        finally:
            stream.transport.abort()
            self._stream = None
        if stream.status not in (0, 200):
            self.over = f"status {stream.status}"
        return self.retry_ms / 1000

    def stop_reading(self) -> None:
        super().stop_reading()
        if self._stream is not None:
            self._stream.transport.pause_reading()

    def read_again(self) -> None:
        super().read_again()
        if self._stream is not None and not self._stream.transport.is_closing():
            self._stream.transport.resume_reading()

    def block(self, lines: list[str]) -> None:
        """One SSE block (WHATWG HTML, 9.2.6)."""
        event, data, ident = "message", [], None
        for line in lines:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                event = value
            elif name == "data":
                data.append(value)
            elif name == "id":
                ident = value
            elif name == "retry":
                self.retry_ms = int(value)
        if not data:
            self.moved(ident)
            return
        fields = json.loads("\n".join(data))
        if event == "welcome":
            self.welcomed(ident)
            self.signal(event, fields)
        elif fields.keys() - {"inbox"} == PUBLISHER_FIELDS:
            self.publication(fields, ident)
        else:
            self.moved(ident)
            self.signal(event, fields)


class _Stream(asyncio.Protocol):
    """The wire of a StreamClient: HTTP/1.1 response with chunks, split into blocks."""

    transport: asyncio.Transport

    def __init__(self, client: StreamClient) -> None:
        self.client = client
        self.status = 0
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._text = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's are not asyncio.Transport by type

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("cut")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if self.status != 200:
            return
        *blocks, self._text = (self._text + body).split(b"\n\n")
        for block in blocks:
            self.client.block(block.decode().split("\n"))

    def on_message_complete(self) -> None:
        self._end("ended")

    def _end(self, how: str) -> None:
        if not self.ended.done():
            self.ended.set_result(how)


class SocketClient(Client):
    """A WebSocket client that follows PROTO-30: the range of the close code says what to do."""

    transport_name = "ws"
    _gate: asyncio.Event | None = None

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.backoff_s = FIRST_BACKOFF_S
        self.codes: Counter[int] = Counter()

    async def once(self, target: Target) -> float:
        cursor = f"&cursor={quote(self.cursor)}" if self.cursor else ""
        try:
            connection = await connect(
                f"ws://{target[0]}:{target[1]}/v1/socket?{self.query}{cursor}",
                additional_headers={"Authorization": f"Bearer {self.token}"},
                ping_interval=None,
                compression=None,
                proxy=None,
                max_queue=4,
                close_timeout=5,
            )
        except (OSError, TimeoutError, InvalidHandshake, InvalidMessage, EOFError, ConnectionClosed):
            self.ends["refused"] += 1
            return self._backoff()
        self.connected(connection.transport)
        try:
            return await self._listen(connection)
        finally:
            connection.transport.abort()

    async def _listen(self, connection: ClientConnection) -> float:
        told_s: float | None = None
        try:
            while True:
                frame = json.loads(await connection.recv())
                if not self.reading:
                    await self._until_reading()
                kind = frame.pop("type")
                if kind == "publication":
                    self.publication(frame, frame.get("cursor"))
                    continue
                if kind == "welcome":
                    self.welcomed(frame.get("cursor"))
                    self.backoff_s = FIRST_BACKOFF_S
                self.moved(frame.get("cursor"))
                self.signal(kind, frame)
                if kind == "bye" and frame.get("retry_ms") is not None:
                    told_s = frame["retry_ms"] / 1000
        except ConnectionClosed:
            code = connection.close_code or 1006
        self.codes[code] += 1
        self.ends[str(code)] += 1
        if 4000 <= code < 4100:
            self.over = f"code {code}"
        if 4200 <= code < 4300:
            return 0.0
        return self._backoff() if told_s is None else told_s

    def _backoff(self) -> float:
        wait_s = random.uniform(self.backoff_s / 2, self.backoff_s)
        self.backoff_s = min(self.backoff_s * 2, LAST_BACKOFF_S)
        return wait_s

    async def _until_reading(self) -> None:
        self._gate = asyncio.Event()
        await self._gate.wait()

    def read_again(self) -> None:
        super().read_again()
        if self._gate is not None:
            self._gate.set()


class Fleet:
    """Clients spread over transports, users, topics and targets, and the tasks that run them."""

    def __init__(self, changes: Changes) -> None:
        self.changes = changes
        self.clients: list[Client] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def add(self, client: Client) -> Client:
        """Starts one client."""
        self.clients.append(client)
        self._tasks.append(asyncio.create_task(client.run(), name=client.name))
        return client

    def launch(
        self,
        count: int,
        targets: Sequence[Target],
        *,
        users: Sequence[str],
        topics: Sequence[str],
        kinds: Sequence[type[Client]] = (StreamClient, SocketClient),
    ) -> None:
        """Starts `count` clients: transports, users and topics in turn, and the first targets in turn."""
        for number in range(len(self.clients), len(self.clients) + count):
            kind = kinds[number % len(kinds)]
            pair = number // 2
            turned = [*targets[pair % len(targets) :], *targets[: pair % len(targets)]]
            mine = (
                [topics[pair % len(topics)], topics[(pair + 1) % len(topics)]][: len(topics)]
                if topics
                else []
            )
            name = f"{kind.transport_name}-{number}"
            self.add(kind(name, users[pair % len(users)], mine, turned, self.changes))

    async def until(self, condition: Any, what: str = "") -> None:
        """Waits until `condition()`; fails at once when a client's task failed."""

        def holds() -> bool:
            for task in self._tasks:
                if task.done() and not task.cancelled():
                    task.result()
            return bool(condition())

        await self.changes.until(holds, what)

    async def all_open(self) -> None:
        """Waits until every client has been welcomed on its present connection, with a position."""
        await self.until(
            lambda: all(client.open and client.cursor for client in self.clients), "clients did not connect"
        )

    async def all_have(self, ident: str) -> None:
        """Waits until every client has the publication. Delivery is in order: what a client has not got by
        then, on a connection that was resumed, is missing.
        """
        try:
            await self.until(lambda: all(ident in client.ids for client in self.clients))
        except TimeoutError:
            lacking = [client for client in self.clients if ident not in client.ids]
            raise TimeoutError(f"{len(lacking)} have not got {ident}, the first is {lacking[0]}") from None

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
