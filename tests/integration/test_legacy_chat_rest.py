"""The REST endpoints of the contract `conversations` (section 6): who may do what, what is answered, what is
broadcast to whom.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest import mock

import pytest

from dualcast.dialects.conversations import Frames
from dualcast.gateway.services import ConnectionInfo
from dualcast.model.errors import BusUnavailable
from dualcast.model.publication import Audience, Entry
from support.rest_app import Rest, admin, auth, code, publisher, rest

pytestmark = pytest.mark.anyio
CHAT = "/api/v1/chat/conv_1"
U1, U2, EVE = auth("u1"), auth("u2"), auth("eve")


@asynccontextmanager
async def chat(*participants: str) -> AsyncIterator[Rest]:
    """The application with a conversation `conv_1`."""
    async with rest() as app:
        answer = await app.client.put(
            "/v1/conversations/conv_1/participants",
            headers=publisher(),
            json={"participants": list(participants or ("u1", "u2"))},
        )
        assert answer.status_code == 200, answer.text
        yield app


async def post(app: Rest, what: str, headers: dict[str, str], body: Any) -> Any:
    return await app.client.post(f"{CHAT}/{what}", headers=headers, json=body)


def problem(answer: Any, status: int, reason: str) -> None:
    """Asserts the form of section 1.3."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    phrase = {401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}[status]
    assert (found["type"], found["title"], found["status"]) == ("about:blank", phrase, status)
    assert found["detail"] and found["code"] == reason
    if status == 401:
        assert found["detail"] == "Unauthorized"
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def told(app: Rest, user: str = "u2") -> list[Entry]:
    """What the conversation's messages became on a user's channel."""
    found = await app.appended(f"user:{user}")
    return [entry for entry in found if entry.publication.type == "conversation.message"]


async def audience(app: Rest) -> Audience | None:
    return (await told(app))[-1].publication.audience


@pytest.mark.covers("S3.30", "S3.55")
async def test_a_message_is_kept_broadcast_and_answered() -> None:
    async with chat() as app:
        answer = await post(app, "send", U1, {"content": "你好", "message_type": "text", "id": "m1"})
        assert (answer.status_code, answer.json()) == (200, {"status": "sent", "message_id": "m1"})
        (entry,) = await told(app)
        frame = json.loads(bytes(Frames()(entry)))  # type: ignore[arg-type]
        assert list(frame["data"]) == [
            "id",
            "conversation_id",
            "content",
            "type",
            "message_type",
            "sender_id",
            "sender_type",
            "sender_name",
            "sender_avatar",
            "timestamp",
            "is_read",
            "is_important",
        ]
        assert frame["data"] | {"timestamp": ""} == {
            "id": "m1",
            "conversation_id": "conv_1",
            "content": "你好",
            "type": "text",
            "message_type": "text",
            "sender_id": "u1",
            "sender_type": None,
            "sender_name": None,
            "sender_avatar": None,
            "timestamp": "",
            "is_read": False,
            "is_important": False,
        }
        made = (await post(app, "send", U1, {"content": {"a": 1}})).json()["message_id"]
        page = (await app.client.get("/v1/conversations/conv_1/messages", headers=U2)).json()
        assert [one["id"] for one in page["messages"]] == [made, "m1"]


async def test_every_key_of_the_publisher_arrives() -> None:
    async with chat() as app:
        own = {
            "attachment": {"url": "/a.png"},
            "type": "image",
            "seq": 5,
            "time": "noon",
            "reply_to": "x",
            "extra": [1],
            "is_read": True,
            "timestamp": "2026-01-31T12:00:00",
        }
        known = {
            "sender_type": "consultant",
            "sender_name": "王医生",
            "sender_avatar": "/w.png",
            "is_important": True,
            "reply_to_message_id": "m0",
        }
        body = {"content": "c", "id": "m1", "conversation_id": "ignored", **known, **own}
        answer = await post(app, "send", U1, body)
        assert answer.status_code == 200, answer.text
        (entry,) = await told(app)
        data = json.loads(bytes(Frames()(entry)))["data"]  # type: ignore[arg-type]
        wanted = {**body, "conversation_id": "conv_1", "message_type": "image", "sender_id": "u1"}
        assert data == wanted | {"timestamp": "2026-01-31T12:00:00.000000Z"}


async def test_null_is_as_good_as_left_out() -> None:
    async with chat() as app:
        keys = ("id", "sender_type", "sender_name", "is_important", "message_type", "sender_id")
        body = {"content": "c", **dict.fromkeys((*keys, "exclude_connection_id", "participants"))}
        assert (await post(app, "send", U1, body)).status_code == 200


@pytest.mark.parametrize("what", ["send", "typing", "read"])
async def test_participants_only_and_known_conversations_only(what: str) -> None:
    bodies = {"send": {"content": "c"}, "typing": {"is_typing": True}, "read": {"message_ids": ["m1"]}}
    async with chat() as app:
        problem(await post(app, what, EVE, bodies[what]), 403, "not-a-participant")
        unknown = f"/api/v1/chat/nobody/{what}"
        problem(await app.client.post(unknown, headers=U1, json=bodies[what]), 404, "unknown-conversation")
        problem(await app.client.post(f"{CHAT}/{what}", json=bodies[what]), 401, "unauthorized")
        other = auth("u1", tenant="other")
        problem(await post(app, what, other, bodies[what]), 404, "unknown-conversation")
        assert (await post(app, what, U1, bodies[what])).status_code == 200


async def test_r37_typing_and_read_do_what_they_say() -> None:
    async with chat() as app:
        await post(app, "send", U1, {"content": "c", "id": "m1"})
        assert (await post(app, "typing", U2, {"is_typing": True, "more": 1})).json() == {"status": "ok"}
        answer = await post(app, "read", U2, {"message_ids": ["m1"]})
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        mine = (await app.client.get("/v1/conversations", headers=U2)).json()["conversations"]
        assert [one["unread"] for one in mine] == [0]


async def test_a_backend_or_admin_makes_the_conversation_with_its_first_message() -> None:
    async with rest() as app:
        body = {"content": "hi", "sender_id": "u1", "participants": ["u1", "u2"]}
        # A user who names participants makes nothing.
        problem(
            await post(app, "send", U1, {"content": "c", "participants": ["u1"]}), 404, "unknown-conversation"
        )
        for headers in (publisher(), admin()):
            assert (await post(app, "send", headers, body)).status_code == 200
        assert [json.loads(one.publication.data)["sender_id"] for one in await told(app)] == ["u1", "u1"]
        people = await app.client.get("/v1/conversations/conv_1/participants", headers=U2)
        assert people.json()["participants"] == ["u1", "u2"]
        other = "/api/v1/chat/conv_2/send"
        problem(
            await app.client.post(other, headers=admin(), json={"content": "c"}), 404, "unknown-conversation"
        )


async def test_another_sender_is_for_administrators() -> None:
    async with chat() as app:
        body = {"content": "c", "sender_id": "u2"}
        assert code(await post(app, "send", U1, body)) == "forbidden"
        assert (await post(app, "send", U1, {**body, "sender_id": "u1"})).status_code == 200
        assert (await post(app, "send", admin(), body)).status_code == 200
        # An integer is text, as in `sub`; true is no id.
        assert code(await post(app, "send", U1, {"content": "c", "sender_id": 2})) == "forbidden"
        answer = await post(app, "send", admin(), {"content": "c", "sender_id": 7})
        assert (
            answer.status_code == 200
            and json.loads((await told(app))[-1].publication.data)["sender_id"] == "7"
        )
        assert (await post(app, "send", admin(), {"content": "c", "sender_id": True})).status_code == 422
        # A message of an administrator who does not take part.
        assert (await post(app, "send", admin(), {"content": "c"})).status_code == 200
        assert len(await app.appended("conversation:conv_1")) >= 3


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"content": 5},
        {"content": None},
        {"content": "c", "message_type": 1},
        {"content": "c", "id": "with space"},
        {"content": "c", "is_important": "yes"},
        {"content": "x" * 20_000},
        {"content": "c", "big": "x" * 5000},
        [],
        "text",
    ],
)
async def test_a_bad_message_is_refused_and_not_kept(body: Any) -> None:
    async with chat() as app:
        before = await app.offset()
        answer = await post(app, "send", U1, body)
        assert answer.status_code in (413, 422), answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert await app.offset() == before
        assert (await app.client.get("/v1/conversations/conv_1/messages", headers=U1)).json()[
            "messages"
        ] == []


# ── exclusion ──


async def test_without_a_connection_the_sender_is_excluded_with_all_devices() -> None:
    async with chat() as app:
        await post(app, "send", U1, {"content": "c"})
        found = await audience(app)
        assert found is not None
        assert (found.exclude_users, found.exclude_connections) == (("u1",), ())


async def test_the_contracts_connection_id_is_excluded_on_this_node_and_on_others() -> None:
    """Two nodes, one user: `here` is of this node's directory, `there` only in presence."""
    async with chat() as app:
        app.directory.rows["default"] = [row("n1-5", "u1", "here"), row("n1-6", "u2", "theirs")]
        await app.connect("n2-9", "u1", dialect="conversations", instance="there")
        for named, ident in (("here", "n1-5"), ("there", "n2-9"), ("n1-5", "n1-5")):
            await post(app, "send", U1, {"content": "c", "exclude_connection_id": named})
            found = await audience(app)
            assert found is not None
            assert (found.exclude_users, found.exclude_connections) == ((), (ident,)), named


async def test_a_connection_nobody_has_excludes_nobody() -> None:
    async with chat() as app:
        await post(app, "send", U1, {"content": "c", "exclude_connection_id": "gone"})
        found = await audience(app)
        assert found is not None
        assert (found.exclude_users, found.exclude_connections) == ((), ("gone",))


async def test_nobody_keeps_a_message_from_somebody_else() -> None:
    async with chat() as app:
        app.directory.rows["default"] = [row("n1-6", "u2", "theirs")]
        # By dualcast's id, which is unique: refused. By a name that u2 has chosen: it is not u1's.
        answer = await post(app, "send", U1, {"content": "c", "exclude_connection_id": "n1-6"})
        assert code(answer) == "forbidden"
        await post(app, "send", U1, {"content": "c", "exclude_connection_id": "theirs"})
        found = await audience(app)
        assert found is not None and "n1-6" not in found.exclude_connections
        assert (
            await post(app, "send", admin(), {"content": "c", "exclude_connection_id": "n1-6"})
        ).status_code == 200


def row(ident: str, user: str, name: str) -> ConnectionInfo:
    return ConnectionInfo(
        id=ident,
        user=user,
        transport="ws",
        dialect="conversations",
        channels=(),
        connected_at="2026-01-31T12:00:00Z",
        instance=name,
    )


@pytest.mark.covers("S3.101")
async def test_a_failing_broadcast_is_logged_and_fails_no_request(caplog: pytest.LogCaptureFixture) -> None:
    async with chat() as app:
        broken = mock.AsyncMock(side_effect=BusUnavailable("away"))
        with mock.patch.object(app.services.bus, "append", broken), caplog.at_level(logging.WARNING):
            answer = await post(app, "send", U1, {"content": "c", "id": "m1"})
        assert (answer.status_code, answer.json()["message_id"]) == (200, "m1")
        assert any(one.getMessage().startswith("消息广播失败: ") for one in caplog.records)
        page = (await app.client.get("/v1/conversations/conv_1/messages", headers=U2)).json()
        assert [one["id"] for one in page["messages"]] == ["m1"]


async def test_the_configuration_of_clients_is_open_to_everybody() -> None:
    async with rest() as app:
        answer = await app.client.get("/api/ws/config")
        assert answer.status_code == 200
        assert answer.json() == {
            "heartbeatInterval": 45000,
            "connectionTimeout": 20000,
            "reconnectInterval": 2000,
            "maxReconnectDelay": 30000,
            "maxReconnectAttempts": 15,
        }
