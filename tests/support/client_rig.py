"""A backend that speaks through the Python client, from asyncio or from threads, and the clients that hear
it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

from support.client_package import conversations, notifications, package, progress, rooms, topics
from support.clients import Client, open_client
from support.legacy_node import Socket, Stream, socket, stream
from support.node import Node

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\Z")
END = {"type": "end"}


class Threaded:
    """A helper for threads whose calls are awaited."""

    def __init__(self, made: Any) -> None:
        self._made = made

    def __getattr__(self, name: str) -> Callable[..., Any]:
        found = getattr(self._made, name)

        async def call(*args: Any, **named: Any) -> Any:
            return await asyncio.to_thread(found, *args, **named)

        return call


class Backend:
    """A client of one kind, and its helpers."""

    def __init__(self, kind: str, url: str, token: str, **options: Any) -> None:
        self.threads = kind == "threads"
        self.client = (package.Client if self.threads else package.AsyncClient)(url, token, **options)
        self.rooms = self._made(rooms, "NotificationBroadcaster")
        self.topics = self._made(topics, "WebSocketManager")
        self.progress = self._made(progress, "ConnectionManager")
        self.notifications = self._made(notifications, "NotificationPublisher")
        self.native = Threaded(self.client) if self.threads else self.client

    def _made(self, module: Any, name: str) -> Any:
        if self.threads:
            return Threaded(getattr(module, "Sync" + name)(self.client))
        return getattr(module, name)(self.client)

    async def chat(self, **options: Any) -> Any:
        if self.threads:
            make = conversations.create_sync_broadcasting_service
            return Threaded(await asyncio.to_thread(make, client=self.client, **options))
        return await conversations.create_broadcasting_service(client=self.client, **options)

    async def close(self) -> None:
        await (asyncio.to_thread(self.client.close) if self.threads else self.client.aclose())


class Line:
    """Opens clients that are closed with the test."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    async def socket(self, node: Node, path: str, sub: str | None, first: int = 1, **more: Any) -> Socket:
        found = await self._stack.enter_async_context(await socket(node, path, sub, **more))
        await found.texts(first)
        return found

    async def stream(self, node: Node, path: str, sub: str) -> Stream:
        found = await self._stack.enter_async_context(await stream(node, path, sub))
        await found.block()
        return found

    async def native(self, node: Node, sub: str, *channels: str, transport: str = "ws") -> Client:
        found = await open_client(transport, node.port, node.token(sub), channels=channels)
        await self._stack.enter_async_context(found)
        await found.welcome()
        return found


async def heard(client: Socket, until: str = "end") -> list[dict[str, Any]]:
    """Everything up to a frame of type (or event) `until`, without that and without presence; times are
    checked and left out."""
    found = []
    while True:
        frame = json.loads(await client.text())
        if until in (frame.get("type"), frame.get("event")):
            return found
        assert TIME.match(frame.pop("timestamp")), frame
        if frame.get("event") != "presence_update":
            found.append(frame)


async def published(client: Client, until: str = "end") -> list[tuple[str, str, Any]]:
    """Channel, type and data of what a native session gets, up to one of type `until`."""
    found = []
    while True:
        got = await client.next()
        if got.kind != "publication":
            continue
        if got.body["event"] == until:
            return found
        found.append((got.body["channel"], got.body["event"], got.body["data"]))


async def say_end(chat: Any, conversation: str = "c") -> None:
    """Tells all participants that nothing more comes."""
    await chat.broadcast_system_notification(conversation, END)


async def numbers_of(stream: package.Stream, until: int, *, seconds: float) -> list[int]:
    """The numbers `n` of what a subscription brought, up to `until`. Raises TimeoutError after `seconds`."""
    found: list[int] = []
    async with asyncio.timeout(seconds):
        async for publication in stream:
            found.append(publication.data["n"])
            if found[-1] == until:
                break
    return found
