"""Sockets of the contract `conversations`, by name, and the calls backends and users make around them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from support.node import WAIT_S, Node, place, running_node
from support.text_socket import TextSocket, open_text

PATH = "/api/v1/ws"
CHAT = "/api/v1/chat/conv_1"
NATIVE = "/v1/conversations/conv_1"


@asynccontextmanager
async def two_nodes() -> AsyncIterator[tuple[Node, Node]]:
    async with place("redis") as where, running_node(where) as one, running_node(where) as two:
        await make(one)
        yield one, two


async def make(node: Node, *users: str) -> None:
    people = list(users or ("u1", "u2", "u3"))
    await backend(node, "PUT", NATIVE + "/participants", {"participants": people})


async def backend(node: Node, method: str, path: str, body: Any) -> Any:
    headers = node.auth("backend", "publisher")
    answer = await node.http.request(method, path, json=body, headers=headers)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


class Crowd:
    """Sockets by name: `u1/phone` is of user u1."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.sockets: dict[str, TextSocket] = {}
        self.nodes: dict[str, Node] = {}
        self.hello: dict[str, dict[str, Any]] = {}

    async def join(self, node: Node, name: str, **query: str) -> TextSocket:
        """Opens a socket and waits until it has heard of its own user's presence, if that is news."""
        user = name.partition("/")[0]
        socket = await self._stack.enter_async_context(
            await open_text(node.port, PATH, node.token(user), **query)
        )
        self.hello[name] = (await socket.frame())["data"]
        self.sockets[name], self.nodes[name] = socket, node
        return socket

    async def got(self, *names: str) -> dict[str, list[dict[str, Any]]]:
        """What everybody was told until now but presence: a direct message to each ends it."""
        asked = names or tuple(self.sockets)
        for user in {name.partition("/")[0] for name in asked}:
            node = next(self.nodes[name] for name in asked if name.partition("/")[0] == user)
            await backend(node, "POST", "/v1/direct-messages", {"user": user, "data": {"title": "fence"}})
        found = {}
        for name in asked:
            texts = await self.sockets[name].before(lambda frame: frame["data"].get("title") == "fence")
            frames = [json.loads(text) for text in texts]
            found[name] = [frame for frame in frames if frame["event"] != "presence_update"]
        return {name: frames for name, frames in found.items() if frames}


async def chat(node: Node, what: str, user: str, **body: Any) -> Any:
    answer = await node.http.post(f"{CHAT}/{what}", json=body, headers=node.auth(user))
    assert answer.status_code == 200, answer.text
    return answer.json()


def names(got: dict[str, list[dict[str, Any]]]) -> dict[str, list[str]]:
    return {who: [frame["event"] for frame in frames] for who, frames in got.items()}


async def registered(node: Node, user: str, count: int) -> None:
    """Waits until a node knows of so many connections of a user."""
    async with asyncio.timeout(WAIT_S):
        while len(await devices(node, user)) != count:
            await asyncio.sleep(0.02)


async def devices(node: Node, user: str) -> list[dict[str, Any]]:
    answer = await node.http.get(f"/v1/connections?user={user}", headers=node.auth("root", "admin"))
    found: list[dict[str, Any]] = answer.json()["connections"]
    return found
