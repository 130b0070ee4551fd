"""Copies for older backends: which there are, that they are said once, and that they hold nobody up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from dualcast.bus.memory import MemoryBus
from dualcast.dialects.conversations import Frames
from dualcast.model.errors import BusUnavailable
from dualcast.model.publication import Audience, Draft
from dualcast.presence.port import ConnectionFacts, Join
from dualcast.tasks.model import Task
from dualcast_migration.copies import CopyingBus, CopySettings, Outbox
from dualcast_migration.legacy_redis import GROUP, Copy, OlderRedis, Publish, PutBack, Told
from dualcast_migration.mirror import Mirror
from dualcast_migration.ws_copies import FRAMES, Arrivals, Deliveries, Devices
from support.bus_engines import Recorder

pytestmark = pytest.mark.anyio
QUICK = CopySettings(max_waiting=5, max_bytes=4000, patience_s=0.2, retry_s=0.01)


class Scripts:
    """Takes the calls of `OlderRedis`; `away`: so many fail first."""

    def __init__(self, away: int = 0) -> None:
        self.away = away
        self.calls: list[tuple[str, list[Any], tuple[bytes, ...]]] = []
        self.called = asyncio.Event()

    async def call(self, script: str, tenant: str, *arguments: bytes, read: bool = False) -> Any:
        self.calls.append((script, msgspec.msgpack.decode(arguments[0]), arguments[1:]))
        self.called.set()
        if self.away:
            self.away -= 1
            raise BusUnavailable("away")
        return 1

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.calls) < count:
                self.called.clear()
                await self.called.wait()


class Echo:
    """One copy for each publication of type `note`."""

    types = frozenset({"note"})

    def wants(self) -> bool:
        return True

    async def copies(self, draft: Draft) -> Sequence[Copy]:
        return (Publish("c", draft.data, guarded=True),)


def draft(kind: str = "note", *channels: str, ident: str = "i", **fields: Any) -> Draft:
    fields = {"data": b"{}", "time_ms": 1_769_860_800_000, "tenant": "default", **fields}
    return Draft(channels=channels or ("user:alice",), id=ident, type=kind, **fields)


@asynccontextmanager
async def running(outbox: Outbox) -> AsyncIterator[None]:
    task = asyncio.create_task(outbox.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# ── the bus in front ──


async def test_only_what_is_new_in_the_log_of_the_tenant_is_told() -> None:
    told: list[str] = []
    bus = CopyingBus(MemoryBus(), "default", lambda one: told.append(one.id))
    await bus.start(Recorder())
    await bus.append(draft(ident="a"))
    assert (await bus.append(draft(ident="a"))).duplicate
    await bus.append(draft(ident="b", tenant="other"))
    results = await bus.append_many([draft(ident="a"), draft(ident="c"), draft(ident="d")])
    assert [result.duplicate for result in results] == [True, False, False]  # type: ignore[union-attr]
    assert told == ["a", "c", "d"]
    await bus.close()


async def test_a_failed_append_has_no_copies() -> None:
    told: list[Draft] = []
    bus = CopyingBus(MemoryBus(), "default", told.append)
    await bus.start(Recorder())
    await bus.close()
    with pytest.raises(BusUnavailable):
        await bus.append(draft())
    assert told == []


# ── the outbox ──


@pytest.mark.covers("R45")
async def test_a_call_that_comes_again_has_the_same_token() -> None:
    scripts = Scripts(away=2)
    outbox = Outbox(OlderRedis(scripts, "default"), QUICK, sources=[Echo()])
    async with running(outbox):
        outbox.appended(draft(data=b'{"n":1}'))
        await scripts.until(3)
        outbox.appended(draft(data=b'{"n":2}'))
        await scripts.until(4)
    tokens = [head[0] for _, head, _ in scripts.calls]
    assert tokens[0] == tokens[1] == tokens[2] != tokens[3]
    assert [payloads for _, _, payloads in scripts.calls][2:] == [(b'{"n":1}',), (b'{"n":2}',)]
    assert outbox.dropped == 0


async def test_what_nobody_takes_is_dropped_and_counted_and_the_rest_goes_on() -> None:
    scripts = Scripts(away=1000)
    outbox = Outbox(OlderRedis(scripts, "default"), QUICK, sources=[Echo()])
    async with running(outbox):
        outbox.appended(draft(ident="lost"))
        async with asyncio.timeout(5):
            while not outbox.dropped:
                await asyncio.sleep(0.01)
        scripts.away = 0
        before = len(scripts.calls)
        outbox.appended(draft(data=b'{"n":2}'))
        await scripts.until(before + 1)
        assert scripts.calls[-1][2] == (b'{"n":2}',)


async def test_what_waits_is_bounded_and_the_oldest_go_first() -> None:
    scripts = Scripts()
    outbox = Outbox(OlderRedis(scripts, "default"), QUICK, sources=[Echo()])
    for number in range(8):
        outbox.appended(draft(data=b'{"n":%d}' % number))
    assert (outbox.waiting, outbox.dropped) == (5, 3)
    outbox.appended(draft(data=b"x" * 3000))
    assert outbox.waiting < 5
    async with running(outbox):
        while outbox.waiting:
            await asyncio.sleep(0)
        await scripts.until(1)
    assert b'{"n":0}' not in [payload for _, _, payloads in scripts.calls for payload in payloads]


async def test_what_waits_is_said_before_the_server_stops_and_nothing_twice() -> None:
    scripts = Scripts(away=10**9)
    outbox = Outbox(OlderRedis(scripts, "default"), QUICK, sources=[Echo()])
    async with running(outbox):
        outbox.appended(draft(data=b"0"))
        await scripts.until(1)  # in the middle of the first
        for number in range(1, 5):
            outbox.appended(draft(data=b"%d" % number))
    scripts.away = 0
    await outbox.close()
    said = [(head[0], payloads) for _, head, payloads in scripts.calls]
    first = [token for token, payloads in said if payloads == (b"0",)]
    assert len(first) >= 2 and len(set(first)) == 1  # the same token: Redis knows what it has said
    assert said[-1][1] == (b"1", b"2", b"3", b"4") and said[-1][0] != first[0]
    assert said[-2][1] == (b"0",)
    assert (outbox.waiting, outbox.dropped) == (0, 0)


async def test_a_stop_does_not_wait_for_a_redis_that_stays_away() -> None:
    scripts = Scripts(away=10**9)
    settings = CopySettings(retry_s=0.005, close_s=0.05)
    outbox = Outbox(OlderRedis(scripts, "default"), settings, sources=[Echo()])
    for _ in range(3):
        outbox.appended(draft())
    await outbox.close()
    assert outbox.dropped == 3


async def test_publications_are_copied_many_at_a_time_and_an_odd_one_takes_no_other_with_it() -> None:
    class Odd(Echo):
        async def copies(self, draft: Draft) -> Sequence[Copy]:
            if draft.data == b"17":
                raise ValueError(draft.data)
            return await super().copies(draft)

    scripts = Scripts()
    outbox = Outbox(OlderRedis(scripts, "default"), sources=[Odd()])
    for number in range(1000):
        outbox.appended(draft(data=b"%d" % number))
    await outbox.close()
    said = [payload for _, _, payloads in scripts.calls for payload in payloads]
    assert said == [b"%d" % number for number in range(1000) if number != 17]
    assert len(scripts.calls) <= 40  # a call for each would be slower than publishing is
    assert (outbox.said, outbox.dropped) == (999, 1)


async def test_an_odd_publication_does_not_end_the_copies() -> None:
    class Odd(Echo):
        async def copies(self, draft: Draft) -> Sequence[Copy]:
            if draft.data == b"odd":
                raise ValueError("odd")
            return await super().copies(draft)

    scripts = Scripts()
    outbox = Outbox(OlderRedis(scripts, "default"), QUICK, sources=[Odd()])
    async with running(outbox):
        outbox.appended(draft(data=b"odd"))
        outbox.appended(draft(data=b"{}"))
        await scripts.until(1)
    assert (outbox.dropped, scripts.calls[0][2]) == (1, (b"{}",))


# ── the mirror ──


NOTE = json.dumps(
    {"id": "n", "type": "t", "title": "T", "content": None, "link": None, "level": "info", "source": None,
     "priority": "normal", "status": "unread", "created_at": "x", "expires_at": None, "data": {}}
).encode()  # fmt: skip


async def sockets(tenant: str, user: str | None, after: str, limit: int) -> list[ConnectionFacts]:
    kinds = {"bob": ("sse",), "carol": ("sse", "ws"), "dan": ("older",)}.get(user or "", ())
    return [ConnectionFacts(f"{user}-{kind}", user or "", "n", transport=kind) for kind in kinds]


async def mirrored(mode: Any, note: Draft) -> list[str]:
    found = await Mirror(lambda: mode, "default", sockets).copies(note)
    assert all(isinstance(copy, Publish) and copy.guarded for copy in found)
    return [copy.channel for copy in found if isinstance(copy, Publish)]


async def test_fallback_is_for_those_without_a_live_socket() -> None:
    note = draft("notification", "user:alice", "user:bob", "user:carol", "user:dan", data=NOTE)
    names = ["notifications:alice", "notifications:bob", "notifications:dan"]
    assert await mirrored("fallback", note) == names
    assert await mirrored("always", note) == [*names[:2], "notifications:carol", names[2]]


async def test_a_mirror_that_is_switched_off_copies_nothing_and_costs_nothing() -> None:
    mode = "off"
    mirror = Mirror(lambda: mode, "default", sockets)  # type: ignore[arg-type,return-value]
    scripts = Scripts()
    outbox = Outbox(OlderRedis(scripts, "default"), QUICK, sources=[mirror])
    note = draft("notification", "user:alice", data=NOTE)
    outbox.appended(note)
    assert outbox.waiting == 0
    mode = "always"
    outbox.appended(note)
    assert outbox.waiting == 1
    mode = "off"
    assert await mirror.copies(note) == ()


async def test_the_mirror_keeps_to_the_audience() -> None:
    def note(audience: Audience) -> Draft:
        return draft("notification", "user:alice", "user:bob", data=NOTE, audience=audience)

    assert await mirrored("always", note(Audience(exclude_users=("bob",)))) == ["notifications:alice"]
    assert await mirrored("always", note(Audience(users=("bob",)))) == ["notifications:bob"]
    assert await mirrored("always", note(Audience(users=()))) == []
    for narrow in (Audience(devices=("mobile",)), Audience(roles=("r",)), Audience(connections=("c",))):
        assert await mirrored("always", note(narrow)) == []
    assert await mirrored("always", draft("notification", "all", data=NOTE)) == []


async def test_the_mirror_of_a_task_goes_by_its_owner() -> None:
    def task(owner: str, **fields: Any) -> Draft:
        data = msgspec.json.encode(Task(id="T1", owner=owner, **fields))
        return draft("task", "task:T1", data=data)

    assert await mirrored("fallback", task("carol", state="processing")) == []
    assert await mirrored("fallback", task("bob", state="processing")) == ["task_progress:T1"]
    assert await mirrored("always", task("carol", state="completed")) == ["task_progress:T1"]
    assert await mirrored("always", task("carol")) == []  # registered, and nothing to tell yet


# ── conversations ──


async def delivered(note: Draft) -> list[dict[str, Any]]:
    found = await Deliveries(Frames(), "dualcast-n").copies(note)
    return [json.loads(copy.payload) for copy in found if isinstance(copy, Publish)]


async def test_a_delivery_is_a_copy_per_participant_who_is_due_one() -> None:
    data = b'{"conversation_id":"c","user_id":"bob","is_typing":true}'
    note = draft(
        "conversation.typing",
        "conversation:c",
        "user:alice",
        "user:bob",
        data=data,
        audience=Audience(exclude_users=("bob",), exclude_connections=("x",)),
        ephemeral=True,
    )
    (copy,) = await delivered(note)
    assert (copy["target_user_id"], copy["instance_id"]) == ("alice", "dualcast-n")
    assert copy["payload"]["event_type"] == "typing_update"
    assert "target_device_type" not in copy
    assert await delivered(draft("conversation.typing", "conversation:c", data=data)) == []


async def test_every_frame_of_the_contract_is_copied_but_not_what_came_from_older_backends() -> None:
    assert "conversation.frame" not in FRAMES
    assert "conversation.participants" not in FRAMES


async def test_who_came_and_went_is_told_of_the_contracts_group_only() -> None:
    data = b'{"joined":["a"],"left":["b"],"count":1,"revision":3}'
    found = await Arrivals("dualcast-n").copies(draft("presence", GROUP, data=data))
    assert [(copy.user, copy.online) for copy in found if isinstance(copy, Told)] == [
        ("a", True),
        ("b", False),
    ]
    assert await Arrivals("dualcast-n").copies(draft("presence", "presence:lobby", data=data)) == ()


def test_devices_are_told_once_each_way_and_found_by_either_name() -> None:
    copies: list[Copy] = []
    devices = Devices("dualcast-n", copies.extend, lambda: 0)
    facts = ConnectionFacts("n-1", "alice", "n", device="mobile", device_id="p", instance="phone")
    devices.told((Join(facts, (GROUP,)), Join(ConnectionFacts("n-2", "bob", "n"), ())), ())
    devices.told((Join(facts, (GROUP, "presence:lobby")),), ("n-9",))  # again, in one group more
    assert devices.find("phone") == devices.find("n-1") == ("alice", "n-1")
    assert devices.find("n-2") is None
    devices.told((), ("n-1",))
    devices.told((), ("n-1", "n-2"))
    assert devices.find("phone") is None
    said = [json.loads(copy.payload) for copy in copies if isinstance(copy, Publish)]
    assert [one["event_type"] for one in said] == ["device_connected", "device_disconnected"]
    assert all((one["connection_id"], one["device_id"]) == ("phone", "p") for one in said)


def test_nobody_takes_over_a_connection_by_choosing_its_id() -> None:
    devices = Devices("dualcast-n", lambda copies: None, lambda: 0)
    victim = ConnectionFacts("n-1", "alice", "n", instance="phone")
    thief = ConnectionFacts("n-2", "mallory", "n", instance="n-1")
    devices.told((Join(victim, (GROUP,)), Join(thief, (GROUP,))), ())
    assert devices.find("n-1") == ("alice", "n-1")
    devices.told((Join(ConnectionFacts("n-3", "mallory", "n", instance="phone"), (GROUP,)),), ())
    assert devices.find("phone") == ("alice", "n-1")
    devices.told((Join(ConnectionFacts("n-4", "alice", "n", instance="phone"), (GROUP,)),), ("n-1",))
    assert devices.find("phone") == ("alice", "n-4")  # her own next connection


async def test_the_items_of_a_call_are_in_order() -> None:
    scripts = Scripts()
    copies = [
        Told("a b", True, b"1"),
        PutBack("c", 2),
        Publish("n:x", b"2", guarded=True),
        Publish("n:x", b"3"),
    ]
    await OlderRedis(scripts, "default").say(copies, "token")
    ((_, (token, _, group, items), payloads),) = scripts.calls
    assert (token, group, payloads) == ("token", GROUP, (b"1", b"2", b"3"))
    assert items[:2] == [["w", "a b", "user:a%20b", 1], ["s", "c", "user:c", 2]]
    assert [bool(item[2]) for item in items[2:]] == [True, False]
