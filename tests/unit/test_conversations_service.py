"""What the conversation service decides: repetition, failing broadcasts, pushes, grants."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dualcast.bus.announcing import Announcer
from dualcast.conversations.broadcasts import MAX_FORMER
from dualcast.conversations.model import NewMessage, UnknownConversation, time_text
from dualcast.conversations.service import REPEAT_MS, ConversationService
from dualcast.conversations.sql import SqlConversations
from dualcast.model.errors import BusUnavailable, IdempotencyConflict, TooManyTargets
from support.conversation_room import Room, data, opened, push

pytestmark = pytest.mark.anyio


@pytest.fixture
async def room(anyio_backend: object) -> AsyncIterator[Room]:
    async with opened() as one:
        yield one


async def test_a_message_is_one_publication_with_all_that_clients_need(room: Room) -> None:
    asked = NewMessage(
        content="你好",
        id="m1",
        sender_type="consultant",
        sender_name="Bo",
        reply_to="m0",
        is_important=True,
        extra={"mood": ["good"]},
    )
    stored = await room.service.send("t", "c", "bob", asked)
    (draft,) = room.news()
    assert draft.type == "conversation.message"
    assert set(draft.channels) == {"conversation:c", "user:alice", "user:carol"}
    assert draft.audience is not None and draft.audience.exclude_users == ("bob",)
    assert not draft.ephemeral
    assert data(draft) == {
        "id": "m1",
        "conversation_id": "c",
        "seq": 1,
        "content": "你好",
        "message_type": "text",
        "sender_id": "bob",
        "sender_type": "consultant",
        "sender_name": "Bo",
        "sender_avatar": None,
        "is_important": True,
        "reply_to": "m0",
        "extra": {"mood": ["good"]},
        "time": time_text(int(room.clock() * 1000)),
    }
    assert push(draft) == {
        "users": ("alice", "carol"),
        "devices": (),
        "title": "新消息",
        "text": "你好",
        "priority": "normal",
        "data": {"conversation_id": "c"},
        "for": (),
    }
    page = await room.service.messages("t", "c", "alice")
    assert page.messages == [stored] and page.next == 0


async def test_with_an_excluded_connection_the_senders_other_devices_are_due(room: Room) -> None:
    await room.service.send("t", "c", "bob", NewMessage(content={"text": "x" * 51}), exclude_connection="c-9")
    (draft,) = room.news()
    assert set(draft.channels) == {"conversation:c", "user:alice", "user:bob", "user:carol"}
    assert draft.audience is not None
    assert (draft.audience.exclude_users, draft.audience.exclude_connections) == ((), ("c-9",))
    assert push(draft)["users"] == ("alice", "carol")
    assert push(draft)["text"] == "x" * 50 + "..."


async def test_the_same_id_is_sent_once_and_answered_the_same(room: Room) -> None:
    asked = NewMessage(content="hi", id="m1")
    first = await room.service.send("t", "c", "bob", asked)
    room.clock.skip(1)
    assert await room.service.send("t", "c", "bob", asked) == first
    assert len(room.news()) == 1 and len(room.bus.duplicates) == 1
    room.clock.skip(REPEAT_MS / 1000)
    assert await room.service.send("t", "c", "bob", asked) == first
    assert not room.news() and len(room.bus.duplicates) == 1
    for sender, other in (("alice", asked), ("bob", NewMessage(content="ho", id="m1"))):
        with pytest.raises(IdempotencyConflict):
            await room.service.send("t", "c", sender, other)
    await room.service.set_participants("t", "d", ["bob", "eve"])
    room.news()
    assert (await room.service.send("t", "d", "bob", asked)).conversation_id == "d"
    assert len(room.news()) == 1


@pytest.mark.parametrize("off_s", [-3600, 3600])
async def test_how_old_a_message_is_goes_by_the_stores_clock(room: Room, off_s: float) -> None:
    """A node whose clock is off tells from a late repetition what was sent again at once."""
    store = SqlConversations(room.bus.database, None, room.clock)
    announcer = Announcer(room.bus, clock=room.clock)
    skewed = ConversationService(store, announcer, room.grants, clock=lambda: room.clock() + off_s)
    asked = NewMessage(content="hi", id="m1")
    room.bus.error = BusUnavailable("away")
    first = await skewed.send("t", "c", "bob", asked)
    room.bus.error = None
    assert await skewed.send("t", "c", "bob", asked) == first
    assert len(room.news()) == 1
    room.clock.skip(REPEAT_MS / 1000 + 1)
    assert await skewed.send("t", "c", "bob", asked) == first
    assert not room.news() and not room.bus.duplicates


@pytest.mark.parametrize("error", [BusUnavailable("away"), RuntimeError("a secret")])
async def test_a_failing_broadcast_is_logged_and_fails_nothing(
    room: Room, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    room.bus.error = error
    with caplog.at_level(logging.WARNING):
        stored = await room.service.send("t", "c", "bob", NewMessage(content="hi", id="m1"))
        await room.service.read("t", "c", "alice", ["m1"]) if isinstance(error, BusUnavailable) else None
    assert any(record.getMessage().startswith("消息广播失败: ") for record in caplog.records)
    assert not any("a secret" in record.getMessage() for record in caplog.records)
    room.bus.error = None
    assert (await room.service.messages("t", "c", "alice")).messages == [stored]
    # Sent again, it is broadcast after all.
    await room.service.send("t", "c", "bob", NewMessage(content="hi", id="m1"))
    assert [draft.type for draft in room.news()] == ["conversation.message"]


async def test_typing_and_read_are_for_the_others_now(room: Room) -> None:
    await room.service.send("t", "c", "bob", NewMessage(content="hi", id="m1"))
    room.news()
    await room.service.typing("t", "c", "alice", True)
    reading = await room.service.read("t", "c", "alice", ["m1", "m1", "m9"])
    assert (reading.position, reading.unread, reading.unknown) == (1, 0, ("m9",))
    typing, read = room.news()
    for draft in (typing, read):
        assert draft.ephemeral and draft.push is None
        assert set(draft.channels) == {"conversation:c", "user:bob", "user:carol"}
        assert draft.audience is not None and draft.audience.exclude_users == ("alice",)
    assert typing.type == "conversation.typing" and read.type == "conversation.read"
    assert data(typing) == {"conversation_id": "c", "user_id": "alice", "is_typing": True}
    assert data(read) == {"conversation_id": "c", "user_id": "alice", "message_ids": ["m1", "m9"]}


async def test_the_calls_of_backends_and_their_pushes(room: Room, caplog: pytest.LogCaptureFixture) -> None:
    reply = {"content": "y" * 60, "consultant_name": "Bo", "reply_type": "consultation"}
    with caplog.at_level(logging.INFO):
        await room.service.consultation_reply("t", "c", reply, "bob")
    assert "顾问回复广播完成: conversation_id=c, consultant_id=bob" in caplog.messages
    mobile = {"title": "预约提醒", "content": "soon", "action": "open_appointment"}
    await room.service.mobile_notification("t", "c", mobile)
    system = {"title": "系统维护通知", "message": "at ten", "type": "maintenance"}
    await room.service.system_notification("t", "c", system)
    await room.service.system_notification("t", "c", system, ["alice", "dora", "alice"])
    direct = {"title": "个人通知", "content": "yours", "type": "membership_upgrade"}
    await room.service.direct_message("t", "dora", direct)
    one, two, three, four, five = room.news()
    assert [draft.type.removeprefix("conversation.") for draft in (one, two, three, four, five)] == [
        "reply",
        "mobile",
        "system",
        "system",
        "direct",
    ]
    assert data(one) == {"conversation_id": "c", "consultant_id": "bob", "data": reply}
    assert one.audience is not None and one.audience.exclude_users == ("bob",)
    assert push(one) == {
        "users": ("alice", "carol"),
        "devices": ("mobile",),
        "title": "顾问回复",
        "text": "y" * 50 + "...",
        "priority": "high",
        "data": {"conversation_id": "c", "action": "open_conversation"},
        "for": ("mobile",),
    }
    assert data(two) == {"conversation_id": "c", "data": mobile}
    assert two.audience is not None and two.audience.devices == ("mobile",)
    assert push(two) == {
        "users": ("alice", "bob", "carol"),
        "devices": ("mobile",),
        "title": "预约提醒",
        "text": "soon",
        "priority": "high",
        "data": {"conversation_id": "c", "action": "open_appointment"},
        "for": ("mobile",),
    }
    assert set(three.channels) == {"conversation:c", "user:alice", "user:bob", "user:carol"}
    assert push(three) == {
        "users": ("alice", "bob", "carol"),
        "devices": (),
        "title": "系统维护通知",
        "text": "at ten",
        "priority": "normal",
        "data": {"conversation_id": "c"},
        "for": (),
    }
    assert set(four.channels) == {"user:alice", "user:dora"} and push(four)["users"] == ("alice", "dora")
    assert five.channels == ("user:dora",) and data(five) == {"data": direct}
    assert push(five) == {
        "users": ("dora",),
        "devices": (),
        "title": "个人通知",
        "text": "yours",
        "priority": "normal",
        "data": {},
        "for": (),
    }


async def test_an_empty_target_list_reaches_nobody(room: Room) -> None:
    assert await room.service.system_notification("t", "c", {"title": "x"}, []) is None
    assert not room.news()
    with pytest.raises(TooManyTargets):
        await room.service.system_notification("t", "c", {}, [f"u{n}" for n in range(501)])


async def test_a_message_kept_elsewhere_is_broadcast_and_not_listed(room: Room) -> None:
    said = NewMessage(content="hi", id="m1")
    await room.service.broadcast_message("t", "c", said, "bob")
    await room.service.broadcast_message("t", "c", said, "bob")
    await room.service.broadcast_message("t", "c", NewMessage(content="ho"), "bob", exclude_user="carol")
    first, second = room.news()
    assert set(first.channels) == {"conversation:c", "user:alice", "user:bob", "user:carol"}
    assert data(first)["seq"] == 0 and first.audience is None
    assert push(first)["users"] == ("alice", "carol")
    assert second.audience is not None and second.audience.exclude_users == ("carol",)
    assert push(second)["users"] == ("alice",)
    assert (await room.service.messages("t", "c")).messages == []


async def test_participants_are_the_grant_and_those_who_left_are_excluded(room: Room) -> None:
    async def granted() -> tuple[str, ...]:
        return (await room.grants.get("t", "conversation:c")).grant.members

    assert await granted() == ("alice", "bob", "carol")
    await room.service.remove_participants("t", "c", ["carol"])
    assert await granted() == ("alice", "bob")
    (told,) = room.news()
    assert told.type == "conversation.participants"
    assert data(told) == {"conversation_id": "c", "joined": [], "left": ["carol"], "count": 2, "revision": 2}
    assert "user:carol" in told.channels and told.audience is None
    await room.service.send("t", "c", "alice", NewMessage(content="without carol"))
    await room.service.typing("t", "c", "alice", True)
    for draft in room.news():
        assert "user:carol" not in draft.channels
        assert draft.audience is not None and draft.audience.exclude_users == ("alice", "carol")
    await room.service.add_participants("t", "c", ["carol"])
    assert await granted() == ("alice", "bob", "carol")
    room.news()
    await room.service.send("t", "c", "alice", NewMessage(content="with carol"))
    (draft,) = room.news()
    assert draft.audience is not None and draft.audience.exclude_users == ("alice",)


async def test_when_many_left_those_who_are_in_are_named(room: Room) -> None:
    await room.service.set_participants("t", "c", ["alice", *(f"u{n}" for n in range(MAX_FORMER + 1))])
    await room.service.set_participants("t", "c", ["alice", "bob"])
    room.news()
    await room.service.send("t", "c", "alice", NewMessage(content="x"))
    (draft,) = room.news()
    assert draft.audience is not None
    assert draft.audience.users == ("alice", "bob") and draft.audience.exclude_users == ("alice",)


async def test_a_backend_makes_a_conversation_with_its_first_message(room: Room) -> None:
    said = NewMessage(content="hello")
    with pytest.raises(UnknownConversation):
        await room.service.send("t", "new", "bot", said, backend=True)
    await room.service.send("t", "new", "bot", said, backend=True, participants=["dora", "eve"])
    assert (await room.service.participants("t", "new", "dora")).users == ("dora", "eve")
    # Later it is only a message.
    await room.service.send("t", "new", "bot", said, backend=True, participants=["mallory"])
    assert (await room.service.participants("t", "new")).users == ("dora", "eve")


async def test_two_changes_at_a_time_leave_the_grant_with_the_newest(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = room.grants.set
    nested = False

    async def late(*arguments: Any, **named: Any) -> int:
        nonlocal nested
        if not nested:
            nested = True
            await room.service.set_participants("t", "c", ["alice", "zoe"])
        return await real(*arguments, **named)

    monkeypatch.setattr(room.grants, "set", late)
    await room.service.set_participants("t", "c", ["alice", "mallory"])
    assert (await room.service.participants("t", "c")).users == ("alice", "zoe")
    assert (await room.grants.get("t", "conversation:c")).grant.members == ("alice", "zoe")


async def test_the_push_room_is_made_ready_before_and_poked_after() -> None:
    told: list[str] = []
    fails = False

    async def ready(tenant: str) -> None:
        told.append(f"ready {tenant} {len(room.bus.drafts)}")
        if fails:
            raise BusUnavailable("away")

    def poke(tenant: str) -> None:
        told.append(f"poke {tenant} {len(room.bus.drafts)}")

    async with opened(push_ready=ready, poke_push=poke) as room:
        before = len(room.bus.drafts)
        await room.service.typing("t", "c", "alice", True)
        assert told == [] and len(room.bus.drafts) == before + 1
        await room.service.send("t", "c", "alice", NewMessage(content="hi"))
        assert told == [f"ready t {before + 1}", f"poke t {before + 2}"]
        fails = True
        await room.service.direct_message("t", "zoe", {"title": "t"})
        assert told[2:] == [f"ready t {before + 2}", f"poke t {before + 3}"]
