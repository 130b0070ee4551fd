"""Conversations over REST: who may do what, what is answered, what stays inside a tenant."""

from __future__ import annotations

import re
from typing import Any

import pytest

from support.rest_app import Rest, admin, auth, code, problem, publisher, rest

pytestmark = pytest.mark.anyio

C = "/v1/conversations/c"
ALICE, BOB, EVE = auth("alice"), auth("bob"), auth("eve")


async def make(app: Rest, *users: str, tenant: str = "default") -> None:
    answer = await app.client.put(
        C + "/participants", headers=publisher(tenant), json={"participants": list(users)}
    )
    assert answer.status_code == 200, answer.text


async def say(app: Rest, headers: dict[str, str], content: Any = "hi", **more: Any) -> dict[str, Any]:
    answer = await app.client.post(C + "/messages", headers=headers, json={"content": content, **more})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_participants_are_set_by_backends_and_seen_by_participants() -> None:
    async with rest() as app:
        path = C + "/participants"
        problem(await app.client.get(path, headers=publisher()), 404, "unknown-conversation")
        body = {"participants": ["bob", "alice"]}
        assert code(await app.client.put(path, headers=ALICE, json=body)) == "publisher-only"
        assert (await app.client.put(path, json=body)).status_code == 401
        answer = await app.client.put(path, headers=publisher(), json=body)
        assert answer.json() == {"conversation_id": "c", "participants": ["alice", "bob"], "revision": 1}
        for headers in (ALICE, BOB, publisher(), admin()):
            assert (await app.client.get(path, headers=headers)).json() == answer.json()
        problem(await app.client.get(path, headers=EVE), 403, "not-a-participant")
        change = {"add": ["carol"], "remove": ["bob"]}
        assert code(await app.client.post(path, headers=ALICE, json=change)) == "publisher-only"
        answer = await app.client.post(path, headers=publisher(), json=change)
        assert answer.status_code == 200 and answer.json()["participants"] == ["alice", "carol"]
        problem(await app.client.get(path, headers=BOB), 403, "not-a-participant")
        other = "/v1/conversations/unknown/participants"
        problem(await app.client.post(other, headers=publisher(), json=change), 404, "unknown-conversation")


async def test_the_participants_may_subscribe_and_nobody_else() -> None:
    async with rest() as app:
        await make(app, "alice", "bob")
        path = "/v1/channels/conversation:c/history"
        assert (await app.client.get(path, headers=ALICE)).status_code == 200
        assert (await app.client.get(path, headers=EVE)).status_code == 403
        await make(app, "bob")
        assert (await app.client.get(path, headers=ALICE)).status_code == 403


async def test_messages_are_sent_and_listed() -> None:
    async with rest() as app:
        await make(app, "alice", "bob")
        sent = await say(
            app, ALICE, {"text": "你好", "n": 1}, id="m1", sender_name="A", extra={"k": [1]}, reply_to="m0"
        )
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", sent.pop("time"))
        assert sent == {
            "id": "m1",
            "conversation_id": "c",
            "seq": 1,
            "content": {"text": "你好", "n": 1},
            "message_type": "text",
            "sender_id": "alice",
            "sender_type": None,
            "sender_name": "A",
            "sender_avatar": None,
            "is_important": False,
            "reply_to": "m0",
            "extra": {"k": [1]},
        }
        made = await say(app, BOB)
        assert re.fullmatch(r"[0-9a-f-]{36}", made["id"]) and made["seq"] == 2
        await say(app, BOB)
        first = await app.client.get(C + "/messages", headers=ALICE, params={"limit": 2})
        assert [one["seq"] for one in first.json()["messages"]] == [3, 2] and first.json()["next"] == 2
        rest_of = await app.client.get(C + "/messages", headers=BOB, params={"limit": 2, "before": 2})
        assert [one["id"] for one in rest_of.json()["messages"]] == ["m1"] and rest_of.json()["next"] == 0
        assert len((await app.client.get(C + "/messages", headers=publisher())).json()["messages"]) == 3


async def test_one_id_is_one_message() -> None:
    async with rest() as app:
        await make(app, "alice", "bob")
        first = await say(app, ALICE, id="m1")
        before = await app.offset()
        assert await say(app, ALICE, id="m1") == first
        assert await app.offset() == before
        body = {"content": "other", "id": "m1"}
        problem(await app.client.post(C + "/messages", headers=ALICE, json=body), 422, "idempotency-conflict")


async def test_who_may_send_for_whom() -> None:
    async with rest() as app:
        messages = C + "/messages"
        body = {"content": "hi"}
        problem(await app.client.post(messages, headers=ALICE, json=body), 404, "unknown-conversation")
        problem(
            await app.client.post(messages, headers=ALICE, json={**body, "participants": ["alice"]}),
            403,
            "publisher-only",
        )
        sent = await say(app, publisher(), sender_id="bot", participants=["alice", "bob"])
        assert sent["sender_id"] == "bot"
        problem(await app.client.post(messages, headers=EVE, json=body), 403, "not-a-participant")
        for sender in ("bob", "eve"):
            for headers in (ALICE, EVE):
                if headers is EVE and sender == "eve":
                    continue
                answer = await app.client.post(messages, headers=headers, json={**body, "sender_id": sender})
                problem(answer, 403, "forbidden")
        assert (await say(app, ALICE, sender_id="alice"))["sender_id"] == "alice"
        assert (await say(app, publisher(), sender_id="bob"))["sender_id"] == "bob"
        assert (await say(app, admin()))["sender_id"] == "root"


async def test_only_an_own_connection_can_be_excluded() -> None:
    async with rest() as app:
        await make(app, "alice", "bob")
        await app.connect("of-alice", "alice")
        await app.connect("of-bob", "bob")
        await app.connect("elsewhere", "bob", tenant="other")
        await say(app, ALICE, exclude_connection="of-alice")
        await say(app, ALICE, exclude_connection="elsewhere")
        await say(app, publisher(), sender_id="alice", exclude_connection="of-alice")
        body = {"content": "hi", "exclude_connection": "of-bob"}
        problem(await app.client.post(C + "/messages", headers=ALICE, json=body), 403, "forbidden")


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        ({}, 422, "invalid-body"),
        ({"content": 5}, 422, "invalid-body"),
        ({"content": ["x"]}, 422, "invalid-body"),
        ({"content": "x", "unknown": 1}, 422, "invalid-body"),
        ({"content": "x" * 16_384}, 413, "data-too-large"),
        ({"content": "x", "extra": {"k": "x" * 5000}}, 413, "data-too-large"),
        ({"content": "x", "extra": {"id": 1}}, 422, "invalid-body"),
        ({"content": "x", "id": "a b"}, 422, "invalid-body"),
        ({"content": "x", "sender_id": ""}, 422, "invalid-body"),
        ({"content": "x", "sender_name": "\u0000"}, 422, "invalid-body"),
        ({"content": "x", "exclude_connection": "\u0000"}, 422, "bad-channel"),
    ],
)
async def test_bad_messages(body: dict[str, Any], status: int, expected: str) -> None:
    async with rest() as app:
        await make(app, "alice", "bob")
        problem(await app.client.post(C + "/messages", headers=ALICE, json=body), status, expected)
        assert (await app.client.get(C + "/messages", headers=ALICE)).json()["messages"] == []


async def test_typing_read_and_the_own_list() -> None:
    async with rest() as app:
        await make(app, "alice", "bob")
        for number in range(3):
            await say(app, ALICE, id=f"m{number}")
        problem(
            await app.client.post(C + "/typing", headers=EVE, json={"is_typing": True}),
            403,
            "not-a-participant",
        )
        answer = await app.client.post(C + "/typing", headers=BOB, json={"is_typing": True})
        assert answer.status_code == 204
        problem(
            await app.client.post(C + "/read", headers=EVE, json={"message_ids": ["m1"]}),
            403,
            "not-a-participant",
        )
        problem(
            await app.client.post(C + "/read", headers=BOB, json={"message_ids": []}), 422, "invalid-body"
        )
        answer = await app.client.post(C + "/read", headers=BOB, json={"message_ids": ["m1", "m9"]})
        assert answer.json() == {"read_seq": 2, "unread": 1, "unknown": ["m9"]}
        await app.client.put(
            "/v1/conversations/d/participants", headers=publisher(), json={"participants": ["bob"]}
        )
        seen: list[dict[str, Any]] = []
        after = ""
        while True:
            page = await app.client.get("/v1/conversations", headers=BOB, params={"limit": 1, "after": after})
            seen += page.json()["conversations"]
            after = page.json()["next"]
            if not after:
                break
        assert [(one["id"], one["last_seq"], one["unread"]) for one in seen] == [("c", 3, 1), ("d", 0, 0)]
        assert seen[0]["last_time"].endswith("Z") and seen[0]["participants"] == 2
        assert (await app.client.get("/v1/conversations", headers=EVE)).json() == {
            "conversations": [],
            "next": "",
        }


async def test_broadcasts_are_for_backends() -> None:
    async with rest() as app:
        await make(app, "alice", "bob")
        path = C + "/broadcasts"
        body: dict[str, Any] = {"kind": "system", "data": {"title": "t", "message": "m"}, "id": "b1"}
        assert code(await app.client.post(path, headers=ALICE, json=body)) == "publisher-only"
        first = await app.client.post(path, headers=publisher(), json=body)
        assert first.status_code == 201 and first.json()["cursor"]
        assert (await app.client.post(path, headers=publisher(), json=body)).json() == first.json()
        nobody = await app.client.post(path, headers=publisher(), json={**body, "id": "b2", "targets": []})
        assert nobody.json() == {"id": "", "cursor": ""}
        reply = {"kind": "reply", "data": {"content": "c"}}
        problem(await app.client.post(path, headers=publisher(), json=reply), 422, "invalid-body")
        for more in ({**reply, "consultant_id": "bob"}, {"kind": "mobile", "data": {"title": "t"}}):
            assert (await app.client.post(path, headers=publisher(), json=more)).status_code == 201
        problem(
            await app.client.post("/v1/conversations/x/broadcasts", headers=publisher(), json=body),
            404,
            "unknown-conversation",
        )
        direct = {"user": "zoe", "data": {"title": "t"}}
        assert code(await app.client.post("/v1/direct-messages", headers=ALICE, json=direct)) == (
            "publisher-only"
        )
        answer = await app.client.post("/v1/direct-messages", headers=publisher(), json=direct)
        assert answer.status_code == 201
        (entry,) = await app.appended("user:zoe")
        assert entry.publication.id == answer.json()["id"]
        types = [entry.publication.type for entry in await app.appended("conversation:c")]
        assert types == [
            "conversation.participants",
            "conversation.system",
            "conversation.reply",
            "conversation.mobile",
        ]


async def test_tenants_have_conversations_of_their_own() -> None:
    async with rest() as app:
        await make(app, "alice", "bob")
        await say(app, ALICE, id="m1")
        there = auth("alice", tenant="other")
        bodies: list[tuple[str, str, Any]] = [
            ("GET", "/participants", None),
            ("POST", "/participants", {"add": ["eve"]}),
            ("GET", "/messages", None),
            ("POST", "/messages", {"content": "x"}),
            ("POST", "/typing", {"is_typing": True}),
            ("POST", "/read", {"message_ids": ["m1"]}),
            ("POST", "/broadcasts", {"kind": "system", "data": {}}),
        ]
        for headers in (there, publisher("other"), admin("other")):
            for method, path, body in bodies:
                answer = await app.client.request(method, C + path, headers=headers, json=body)
                if answer.status_code == 403 and headers is there:
                    assert code(answer) == "publisher-only"
                    continue
                problem(answer, 404, "unknown-conversation")
        assert (await app.client.get("/v1/conversations", headers=there)).json()["conversations"] == []
        await make(app, "alice", tenant="other")
        assert (await app.client.get(C + "/messages", headers=there)).json()["messages"] == []
        answer = await app.client.get(C + "/participants", headers=ALICE)
        assert answer.json()["participants"] == ["alice", "bob"]


async def test_odd_conversation_ids() -> None:
    async with rest() as app:
        for segment, ident in (("%E4%BD%A0%20%7C", "你 |"), ("auth0%7C1", "auth0|1")):
            answer = await app.client.put(
                f"/v1/conversations/{segment}/participants",
                headers=publisher(),
                json={"participants": ["alice"]},
            )
            assert answer.json()["conversation_id"] == ident
        answer = await app.client.put(
            "/v1/conversations/%00/participants", headers=publisher(), json={"participants": ["alice"]}
        )
        problem(answer, 422, "bad-channel")
        found = await app.client.get("/v1/conversations", headers=ALICE)
        assert {one["id"] for one in found.json()["conversations"]} == {"你 |", "auth0|1"}
