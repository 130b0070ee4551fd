"""Devices of people for the two-node drill: connections that count what they got and keep a badge by frames
alone, and the webhook that takes their pushes."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from dualcast.push.signature import verify
from support.accounting import Changes
from support.clients import Client, Ended, Got, WsClient, open_socket, open_stream
from support.server_process import ServerProcess, token

OFFICE = "presence:office"


@dataclass
class Badge:
    """The counters a client shows, kept as docs/protocol.md says (PROTO-42)."""

    unread: int = 0
    unseen: int = 0
    revision: tuple[int, int] | None = None
    """None: not asked yet."""

    def told(self, facts: dict[str, Any]) -> bool:
        """Takes the counters of a frame or an answer, unless they are older than what is known. False:
        something was missed, so it has to ask."""
        if "tenant_revision" not in facts:
            user, tenant = facts["revision"]
            if self.revision is None or user > self.revision[0] or tenant > self.revision[1]:
                self.unread, self.unseen = facts["unread"], facts["unseen"]
                self.revision = (user, tenant)
            return True
        if self.revision is None or facts["tenant_revision"] <= self.revision[1]:
            return True
        if facts["tenant_revision"] > self.revision[1] + 1:
            return False
        self.unread += 1
        self.unseen += 1
        self.revision = (self.revision[0], facts["tenant_revision"])
        return True


class Device:
    """One person's device at one node. It does not come back by itself: the drill says when."""

    def __init__(
        self,
        name: str,
        user: str,
        kind: str,
        transport: str,
        server: ServerProcess,
        changes: Changes,
        http: httpx.AsyncClient,
    ) -> None:
        self.name = name
        self.user = user
        self.kind = kind
        self.transport = transport
        self.server = server
        self.token = token(user, channels=["presence:*"])
        self.connection = ""
        self.ended = 0
        """Connections that the server ended."""
        self.titles: Counter[str] = Counter()
        """Copies of each notification."""
        self.badge = Badge()
        self.states: list[dict[str, Any]] = []
        self.presence: list[dict[str, Any]] = []
        self.errors: list[dict[str, Any]] = []
        self.asked = 0
        """How often it had to ask for its counters."""
        self._changes = changes
        self._http = http
        self._asking: asyncio.Task[None] | None = None
        self._cursor: str | None = None
        self._client: Client | None = None
        self._reading: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Connects, from where it was when it was there before."""
        opening = open_stream if self.transport == "sse" else open_socket
        self._client = await opening(
            self.server.port,
            self.token,
            channels=[OFFICE],
            cursor=self._cursor,
            device=self.kind,
            device_id=self.name,
        )
        self.connection = (await self._client.welcome()).body["connection"]
        self._reading = asyncio.create_task(self._read(self._client), name=self.name)
        await self._ask()

    async def send(self, kind: str, **fields: Any) -> None:
        """A command; its answer comes with the rest."""
        assert isinstance(self._client, WsClient)
        await self._client.send(kind, **fields)

    async def close(self) -> None:
        for task in (self._reading, self._asking):
            if task is not None:
                task.cancel()
        if self._client is not None:
            await self._client.close()

    async def _read(self, client: Client) -> None:
        while True:
            try:
                got = await client.next(timeout_s=3600)
            except TimeoutError:
                continue  # the test's own patience with silence, which is short on SSE
            except (Ended, OSError):
                break
            self._take(got)
            self._cursor = client.cursor
            self._changes.note()
        self.ended += 1
        self._changes.note()

    async def _ask(self) -> None:
        self.asked += 1
        url = f"{self.server.base_url}/v1/users/{self.user}/unread-count"
        answer = await self._http.get(url, headers={"Authorization": "Bearer " + self.token})
        assert answer.status_code == 200, answer.text
        self.badge.told(answer.json())
        self._changes.note()

    def _badge(self, facts: dict[str, Any]) -> None:
        asking = self._asking is not None and not self._asking.done()
        if not self.badge.told(facts) and not asking:
            self._asking = asyncio.create_task(self._ask(), name=self.name + " asks")

    def _take(self, got: Got) -> None:
        if got.kind == "state":
            self.states.append(got.body)
        elif got.kind == "error":
            self.errors.append(got.body)
        elif got.kind == "marked":
            self._badge(got.body["inbox"])
        if got.kind != "publication":
            return
        if "inbox" in got.body:
            self._badge(got.body["inbox"])
        event = got.body["event"]
        if event == "notification":
            self.titles[got.data["title"]] += 1
        elif event == "inbox":
            self._badge(got.data)
        elif event == "presence":
            self.presence.append(got.data)


class Receiver:
    """The operator's webhook: takes every push whose signature is right."""

    def __init__(self, secret: str, changes: Changes) -> None:
        self.pushes: Counter[tuple[str, str]] = Counter()
        """(user, title) → calls."""
        self.devices: dict[tuple[str, str], tuple[str, ...]] = {}
        self.forged = 0
        self._secret = secret.encode()
        self._changes = changes
        self._server: asyncio.Server | None = None
        self._calls: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/push"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._calls:
            writer.close()
        await asyncio.gather(*(task for task in self._calls.values() if task is not None))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._calls[writer] = asyncio.current_task()
        try:
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
                fields = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines)}
                body = await reader.readexactly(int(fields["content-length"]))
                self._take(fields, body)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _take(self, fields: dict[str, str], body: bytes) -> None:
        stamp, signature = fields.get("x-dualcast-timestamp", ""), fields.get("x-dualcast-signature", "")
        if not verify(self._secret, stamp, signature, body, now=time.time()):
            self.forged += 1
            return
        push = json.loads(body)
        key = (push["user"], push["title"])
        self.pushes[key] += 1
        self.devices[key] = tuple(push["devices"])
        self._changes.note()
