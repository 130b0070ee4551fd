"""Commands about one's own person: whom they are carried out for, what is refused, what is answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from dualcast.conversations.model import NewMessage, NotAParticipant, StoredMessage
from dualcast.conversations.port import Reading
from dualcast.dialects.native_person import ListInbox
from dualcast.dialects.native_types import ClientCommand
from dualcast.inbox.port import InboxItem, Marked
from dualcast.inbox.service import InboxPage
from dualcast.model.errors import BadCursor, BusUnavailable, RateLimited
from dualcast.model.inbox import Badge
from dualcast.model.principal import Principal
from dualcast.session.native_commands import NativeCommands
from dualcast.session.person_commands import PersonCommands
from support.engine_room import Room, room
from support.model_bus import TENANT
from support.recording import ENCODING, RecordingSession, RecordingTransport, TestDialect

pytestmark = pytest.mark.anyio
BADGE = Badge(3, 2, 12, 4)
WIRE = {"unread": 3, "unseen": 2, "revision": [12, 4]}


class Talker(RecordingSession):
    __slots__ = ("commands", "pending")

    def __init__(self, *args: Any, **how: Any) -> None:
        super().__init__(*args, **how)
        self.commands = 0
        self.pending: list[Any] | None = None


class Rooms:
    """Inbox, conversations and presence: they note how they are called. `fails` is raised by every one."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.fails: Exception | None = None

    async def _note(self, *call: Any) -> None:
        await asyncio.sleep(0)
        if self.fails is not None:
            raise self.fails
        self.calls.append(call)

    async def list(self, tenant: str, user: str, **how: Any) -> Any:
        await self._note("list", tenant, user, how)
        item = InboxItem("n1", 7, "alert", "unseen", False, b'{"id":"n1","title":"Hello"}')
        return InboxPage((item,), "" if how["before"] else "k7", BADGE)

    async def counts(self, tenant: str, user: str) -> Badge:
        await self._note("counts", tenant, user)
        return BADGE

    async def counts_by_kind(self, tenant: str, user: str) -> tuple[Badge, dict[str, int]]:
        await self._note("by_kind", tenant, user)
        return BADGE, {"alert": 3}

    async def mark(
        self, tenant: str, user: str, state: str, ids: Sequence[str] | None, by_connection: str = ""
    ) -> Any:
        await self._note("mark", tenant, user, state, ids, by_connection)
        return Marked(("n1",), ("n9",) if ids else (), 1, BADGE)

    async def delete(self, tenant: str, user: str, ids: Sequence[str] | None, by_connection: str = "") -> Any:
        await self._note("delete", tenant, user, ids, by_connection)
        return Marked(("n1",), (), 1, BADGE)

    async def send(
        self,
        tenant: str,
        conversation: str,
        sender: str,
        message: NewMessage,
        *,
        exclude_connection: str = "",
    ) -> StoredMessage:
        await self._note("send", tenant, conversation, sender, message, exclude_connection)
        return cast(Any, SimpleNamespace(id=message.id or "m1", seq=4, time="2026-01-31T12:00:00.000Z"))

    async def typing(self, tenant: str, conversation: str, user: str, is_typing: bool) -> None:
        await self._note("typing", tenant, conversation, user, is_typing)

    async def read(self, tenant: str, conversation: str, user: str, message_ids: Sequence[str]) -> Reading:
        await self._note("read", tenant, conversation, user, tuple(message_ids))
        return Reading(4, 2, ("m9",), cast(Any, None))

    async def online(self, tenant: str, user: str) -> bool:
        await self._note("online", tenant, user)
        return user == "u"

    async def state(self, tenant: str, channel: str) -> bytes | None:
        await self._note("state", tenant, channel)
        return b'{"count":1,"revision":9}' if channel == "presence:a" else None


class Scene:
    def __init__(self, r: Room, *roles: str, without: Sequence[str] = ()) -> None:
        self.rooms = Rooms()
        names = [name for name in ("inbox", "conversations", "presence") if name not in without]
        person = PersonCommands(self.may, **dict.fromkeys(names, self.rooms))  # type: ignore[arg-type]
        self.commands = NativeCommands(self.may, cast(Any, None), person=person)
        self.room = r
        for name in ("user:u", "all"):
            r.hub.channel(TENANT, name)
        r.bus.confirm()
        principal = Principal(TENANT, "u", roles=frozenset(roles))
        self.session = Talker(r.node, principal, ENCODING, TestDialect(), ("user:u", "all"))
        self.transport = RecordingTransport()
        self.transport.session = self.session
        self.session.attached(self.transport, set(), paused=False, initial=b"")

    async def may(self, principal: Principal, channel: str) -> bool:
        return channel != "presence:secret"

    def say(self, **command: Any) -> None:
        self.commands.text(cast(Any, self.session), json.dumps(command))

    async def ask(self, **command: Any) -> dict[str, Any]:
        """The reply; the `ref` is checked and taken out."""
        self.say(ref="x", **command)
        await self.room.until(lambda: self.session.pending is None)
        reply: dict[str, Any] = json.loads(self.transport.lines[-1])
        assert reply.pop("ref", "x") == "x"
        return reply


async def test_the_inbox_is_listed_for_the_user_of_the_token() -> None:
    async with room() as r:
        scene = Scene(r)
        reply = await scene.ask(type="inbox", limit=10, states=["unseen"], kinds=["alert"])
        item = {"id": "n1", "title": "Hello", "state": "unseen", "scope": "user"}
        assert reply == {"type": "inbox_page", "notifications": [item], "next": "k7", "inbox": WIRE}
        how = {"before": "", "limit": 10, "states": ("unseen",), "kinds": ("alert",)}
        assert scene.rooms.calls == [("list", TENANT, "u", how)]
        assert await scene.ask(type="inbox", before="k7") == {
            "type": "inbox_page",
            "notifications": [item],
            "inbox": WIRE,
        }


async def test_counters_are_those_of_the_user_of_the_token() -> None:
    async with room() as r:
        scene = Scene(r)
        assert await scene.ask(type="counters") == {"type": "inbox_counters", "inbox": WIRE}
        reply = await scene.ask(type="counters", by_kind=True)
        assert reply == {"type": "inbox_counters", "inbox": WIRE, "kinds": {"alert": 3}}
        # Both of one reading: two would contradict each other when something came in between.
        assert scene.rooms.calls == [("counts", TENANT, "u"), ("by_kind", TENANT, "u")]


@pytest.mark.parametrize(
    ("command", "state"), [("read", "read"), ("seen", "seen"), ("unread", "unread"), ("archive", "archived")]
)
async def test_a_marking_names_the_connection_it_came_by(command: str, state: str) -> None:
    async with room() as r:
        scene = Scene(r)
        reply = await scene.ask(type=command, ids=["n1", "n9", "n1"])
        assert reply == {
            "type": "marked",
            "action": state,
            "ids": ["n1"],
            "count": 1,
            "unknown": ["n9"],
            "inbox": WIRE,
        }
        reply = await scene.ask(type=command, all=True)
        assert reply == {"type": "marked", "action": state, "ids": None, "count": 1, "inbox": WIRE}
        own = scene.session.id
        assert scene.rooms.calls == [
            ("mark", TENANT, "u", state, ("n1", "n9"), own),
            ("mark", TENANT, "u", state, None, own),
        ]


async def test_deleting_goes_the_same_way() -> None:
    async with room() as r:
        scene = Scene(r)
        reply = await scene.ask(type="delete", ids=["n1"])
        assert reply == {"type": "marked", "action": "deleted", "ids": ["n1"], "count": 1, "inbox": WIRE}
        assert scene.rooms.calls == [("delete", TENANT, "u", ("n1",), scene.session.id)]


@pytest.mark.parametrize("command", ["read", "seen", "unread", "archive", "delete"])
@pytest.mark.parametrize("fields", [{}, {"ids": ["n1"], "all": True}, {"all": False}])
async def test_a_marking_of_neither_some_nor_all_marks_nothing(command: str, fields: dict[str, Any]) -> None:
    async with room() as r:
        scene = Scene(r)
        assert (await scene.ask(type=command, **fields))["code"] == "bad-command"
        assert scene.rooms.calls == []


async def test_a_message_is_sent_in_the_users_name_and_not_echoed_to_this_connection() -> None:
    async with room() as r:
        scene = Scene(r)
        reply = await scene.ask(
            type="message", conversation="c1", content={"url": "a"}, id="m7", reply_to="m0"
        )
        assert reply == {"type": "sent", "id": "m7", "seq": 4, "time": "2026-01-31T12:00:00.000Z"}
        message = NewMessage(content={"url": "a"}, id="m7", reply_to="m0")
        assert scene.rooms.calls == [("send", TENANT, "c1", "u", message, scene.session.id)]


async def test_typing_and_reading_are_done() -> None:
    async with room() as r:
        scene = Scene(r)
        assert await scene.ask(type="typing", conversation="c1") == {"type": "done"}
        assert await scene.ask(type="typing", conversation="c1", typing=False) == {"type": "done"}
        reply = await scene.ask(type="message_read", conversation="c1", ids=["m1", "m9"])
        assert reply == {"type": "done", "unread": 2, "unknown": ["m9"]}
        assert scene.rooms.calls == [
            ("typing", TENANT, "c1", "u", True),
            ("typing", TENANT, "c1", "u", False),
            ("read", TENANT, "c1", "u", ("m1", "m9")),
        ]


async def test_presence_of_a_channel_is_for_those_who_may_subscribe_to_it() -> None:
    async with room() as r:
        scene = Scene(r)
        reply = await scene.ask(type="presence", channel="presence:a")
        assert reply == {
            "type": "presence_state",
            "channel": "presence:a",
            "data": {"count": 1, "revision": 9},
        }
        reply = await scene.ask(type="presence", channel="presence:none")
        assert reply == {"type": "presence_state", "channel": "presence:none"}
        for channel, code in [
            ("presence:secret", "forbidden-channel"),
            ("topic:a", "bad-command"),
            ("rubbish", "bad-channel"),
        ]:
            assert (await scene.ask(type="presence", channel=channel))["code"] == code
        assert scene.rooms.calls == [("state", TENANT, "presence:a"), ("state", TENANT, "presence:none")]


async def test_presence_of_users_is_for_backends_and_of_oneself_for_everybody() -> None:
    async with room() as r:
        scene = Scene(r)
        assert (await scene.ask(type="presence", users=["u", "u"]))["users"] == {"u": True}
        assert (await scene.ask(type="presence", users=["u", "v"]))["code"] == "publisher-only"
        for fields in ({}, {"channel": "presence:a", "users": ["u"]}):
            assert (await scene.ask(type="presence", **fields))["code"] == "bad-command"
        assert scene.rooms.calls == [("online", TENANT, "u")]
        backend = Scene(r, "publisher")
        assert (await backend.ask(type="presence", users=["v", "u"]))["users"] == {"v": False, "u": True}


@pytest.mark.parametrize(
    "error",
    [BusUnavailable("away"), BadCursor("not a cursor"), NotAParticipant(), RateLimited("slow down")],
    ids=lambda error: error.code,
)
async def test_what_a_room_refuses_is_an_error_frame_and_the_connection_stays(error: Any) -> None:
    async with room() as r:
        scene = Scene(r)
        scene.rooms.fails = error
        for command in (
            {"type": "inbox"},
            {"type": "counters"},
            {"type": "read", "all": True},
            {"type": "message", "conversation": "c1", "content": "x"},
            {"type": "presence", "channel": "presence:a"},
        ):
            reply = await scene.ask(**command)
            assert reply == {"type": "error", "code": error.code, "reason": error.reason}
        scene.rooms.fails = None
        assert (await scene.ask(type="counters"))["type"] == "inbox_counters"
        assert not scene.session.closed


async def test_a_fault_of_a_room_is_answered_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    async with room() as r:
        scene = Scene(r)
        scene.rooms.fails = KeyError("secret of the store")
        reply = await scene.ask(type="counters")
        assert (reply["type"], reply["code"]) == ("error", "internal")
        assert "secret" not in json.dumps(reply)
        assert "a client's command failed" in caplog.text
        scene.rooms.fails = None
        assert (await scene.ask(type="counters"))["type"] == "inbox_counters"


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        ("inbox", {"type": "inbox"}),
        ("inbox", {"type": "read", "all": True}),
        ("conversations", {"type": "typing", "conversation": "c"}),
        ("presence", {"type": "presence", "users": ["u"]}),
    ],
)
async def test_a_server_without_the_room_says_so(missing: str, command: dict[str, Any]) -> None:
    async with room() as r:
        assert (await Scene(r, without=[missing]).ask(**command))["code"] == "not-available"
        scene = Scene(r)
        scene.commands = NativeCommands(scene.may, cast(Any, None))
        assert (await scene.ask(**command))["code"] == "not-available"


async def test_commands_wait_for_one_another_in_their_order() -> None:
    async with room() as r:
        scene = Scene(r)
        scene.say(type="seen", ref="1", all=True)
        scene.say(type="ping", ref="2")
        scene.say(type="read", ref="3", ids=["n1"])
        scene.say(type="rubbish", ref="4")
        scene.say(type="counters", ref="5")
        await r.until(lambda: scene.session.pending is None)
        replies = [json.loads(line) for line in scene.transport.lines if line.startswith("{")]
        assert [one.get("ref") for one in replies if one["type"] != "error"] == ["1", "2", "3", "5"]
        assert [call[0] for call in scene.rooms.calls] == ["mark", "mark", "counts"]


async def test_a_client_that_left_gets_no_answer_and_its_waiting_commands_are_dropped() -> None:
    async with room() as r:
        scene = Scene(r)
        scene.say(type="seen", all=True)
        scene.say(type="read", all=True)
        scene.session.connection_lost(None)
        await r.until(lambda: scene.session.pending is None)
        assert not [line for line in scene.transport.lines if line.startswith("{")]
        assert len(scene.rooms.calls) == 1


async def test_more_commands_than_may_wait_end_the_connection() -> None:
    async with room() as r:
        scene = Scene(r)
        for _ in range(r.node.settings.max_pending_commands + 2):
            scene.say(type="counters")
        assert scene.transport.lines[-1] == "bye 4102"


def test_every_notification_type_there_can_be_can_be_asked_for() -> None:
    longest = "t" * 128
    asked = msgspec.json.decode(json.dumps({"type": "inbox", "kinds": [longest]}), type=ClientCommand)
    assert isinstance(asked, ListInbox) and asked.kinds == (longest,)
