"""The golden vectors of the contracts `rooms`, `topics` and `conversations` over a real socket, on every
engine: publications, first frames, answers and statistics, byte for byte. Only the server's own clock is left
out, and ids it makes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import pytest

from dualcast.model.publication import Draft
from support.legacy_sockets import LegacySocket, legacy_socket
from support.legacy_text_vectors import timeless, vectors
from support.node import ENGINES, Node, running_node

pytestmark = pytest.mark.anyio

PATHS = {"rooms": "/api/v1/ws/", "topics": "/api/ws", "conversations": "/api/v1/ws"}
GREETINGS = {"rooms": 2, "topics": 1}
KEYS = {"rooms": "room", "topics": "topic"}


def given(dialect: str, key: str) -> list[dict[str, Any]]:
    return [parameter.values[0] for parameter in vectors(dialect, key)]


@pytest.fixture(params=ENGINES)
async def node(request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    async with running_node(request.param, legacy={"topics_public": ["system_status"]}) as running:
        yield running


@asynccontextmanager
async def connected(
    node: Node, dialect: str, user: str, query: Mapping[str, str] | None = None, **claims: Any
) -> AsyncIterator[LegacySocket]:
    """A socket that has read nothing yet; user "": without a token."""
    path = PATHS[dialect] + (user if dialect == "rooms" else "")
    asked = "?" + urlencode(query) if query else ""
    token = node.token(user, **claims) if user else ""
    async with legacy_socket(node, path + asked, token) as socket:
        yield socket


@asynccontextmanager
async def opened(node: Node, dialect: str, user: str, **claims: Any) -> AsyncIterator[LegacySocket]:
    """A socket that has read its first frames."""
    async with connected(node, dialect, user, **claims) as socket:
        for _ in range(GREETINGS[dialect]):
            await socket.text()
        yield socket


async def join(socket: LegacySocket, dialect: str, channel: str) -> None:
    """Subscribes to a room or topic."""
    answer = await socket.ask({"type": "subscribe", KEYS[dialect]: channel.partition(":")[2]})
    assert answer["type"] in ("room_subscribed", "subscribed"), answer


@pytest.mark.parametrize("dialect", ["rooms", "topics"])
async def test_every_publication_is_these_bytes(node: Node, dialect: str) -> None:
    found = given(dialect, "publication")
    async with opened(node, dialect, "u1") as socket:
        for channel in {vector["publication"]["channel"] for vector in found}:
            if channel.startswith(KEYS[dialect] + ":"):
                await join(socket, dialect, channel)
        for number, vector in enumerate(found):
            said = vector["publication"]
            await node.composition.bus.append(
                Draft(
                    tenant="default",
                    channels=(said["channel"],),
                    id=f"v{number}",
                    type=said["event"],
                    data=said["data_json"].encode(),
                    time_ms=said["time_ms"],
                )
            )
            for expected in vector["ws"]:
                assert await socket.text() == expected, vector["name"]
        await node.settled()
        await socket.quiet()


@pytest.mark.parametrize("dialect", ["rooms", "topics"])
async def test_every_answer_is_these_bytes(node: Node, dialect: str) -> None:
    async with AsyncExitStack() as stack:
        sockets: dict[str, LegacySocket] = {}
        for vector in given(dialect, "client"):
            if vector["action"] == "tell":
                continue  # the statistics below
            user = vector["facts"]["user"]
            if user not in sockets:
                sockets[user] = await stack.enter_async_context(opened(node, dialect, user))
            sockets[user].say(vector["client"])
            (expected,) = vector["ws"]
            assert timeless(await sockets[user].text()) == timeless(expected), vector["name"]


@pytest.mark.parametrize("dialect", ["rooms", "topics"])
@pytest.mark.parametrize("who", ["stats of a user", "stats of an admin"])
async def test_statistics_are_these_bytes(node: Node, dialect: str, who: str) -> None:
    """As many users, connections and members as the vector says."""
    (vector,) = [one for one in given(dialect, "stats") if one["name"] == who]
    stats, facts = vector["stats"], vector["facts"]
    roles = ["admin"] if facts.get("admin") else []
    async with AsyncExitStack() as stack:
        asking = await stack.enter_async_context(opened(node, dialect, facts["user"], roles=roles))
        others: list[LegacySocket] = []
        for user, count in stats["users"].items():
            for _ in range(count - (user == facts["user"])):
                others.append(await stack.enter_async_context(opened(node, dialect, user)))
        for _ in range(stats["total_connections"] - sum(stats["users"].values())):
            await stack.enter_async_context(opened(node, dialect, ""))
        for channel, count in stats["groups"].items():
            own = channel in stats["own_groups"]
            for socket in [*([asking] if own else []), *others[: count - own]]:
                await join(socket, dialect, channel)
        asking.say({"type": "get_stats"})
        (expected,) = vector["ws"]
        assert timeless(await asking.text()) == timeless(expected)


async def test_the_first_frames_of_rooms_are_these_bytes(node: Node) -> None:
    """With an inbox as the vector says: so many unread by kind, the others read."""
    root, user = node.auth("root", "admin"), node.auth("u1")
    for vector in given("rooms", "opening"):
        opening = vector["opening"]
        unread = [kind for kind, count in opening["unread_by_kind"].items() for _ in range(count)]
        for number, kind in enumerate(unread + ["sync"] * (opening["total"] - opening["unread"])):
            body = {"id": f"n{number}", "title": "T", "category": kind}
            answer = await node.http.post("/api/v1/ws/notify/u1", json=body, headers=root)
            assert answer.status_code == 200, answer.text
            if number >= len(unread):
                answer = await node.http.post(f"/api/notifications/n{number}/read", headers=user)
                assert answer.status_code == 200, answer.text
        async with connected(node, "rooms", "u1") as socket:
            for expected in vector["ws"]:
                came = await socket.text()
                assert _clockless(came) == _clockless(expected), vector["name"]


async def test_the_first_frame_of_topics_is_these_bytes(node: Node) -> None:
    for vector in given("topics", "opening"):
        facts = vector["facts"]
        query = {"client_id": facts["client_id"]}
        async with connected(node, "topics", facts["user"], query) as socket:
            (expected,) = vector["ws"]
            assert timeless(await socket.text()) == timeless(expected), vector["name"]


async def test_the_first_frame_of_conversations_is_these_bytes(node: Node) -> None:
    greetings = [
        one for one in given("conversations", "facts") if "client" not in one and "publication" not in one
    ]
    assert greetings
    for vector in greetings:
        facts = vector["facts"]
        claims = {"role": facts["role"]} if facts["role"] else {}
        async with connected(node, "conversations", facts["user"], facts["query"], **claims) as socket:
            (expected,) = vector["ws"]
            assert _clockless(await socket.text()) == _clockless(expected), vector["name"]
        await node.until(lambda: not node.sessions, "its end: the next one may have the same connectionId")


def _clockless(text: str) -> str:
    """Without the server's times, in ids it makes as well."""
    return re.sub(r'"timestamp":"[^"]+Z"|_\d{13}"', "", text)
