"""Taking in, node by node: when the bus is away, when too much comes, when a message is odd."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn, cast

import pytest

from dualcast.bus.memory import MemoryBus
from dualcast.model.errors import BusUnavailable, DualcastError
from dualcast.model.publication import Draft, Quota, Receipt
from dualcast.tasks.errors import TaskConflict, UnknownTask
from dualcast.tasks.rules import Report
from dualcast_migration.ingest import Ingest, IngestSettings
from dualcast_migration.legacy_redis import OlderRedis, Sight, Sighting
from dualcast_migration.older_presence import OlderPresence
from dualcast_migration.older_shapes import Presence
from support.bus_engines import Recorder

pytestmark = pytest.mark.anyio


class Ear:
    """A Hearing that a test speaks to."""

    up = True
    resubscribes = failures = stale = 0

    async def run(self, heard: Callable[[bytes, bytes], None], opened: Callable[[int], None]) -> NoReturn:
        self.heard = heard
        opened(1)
        await asyncio.Event().wait()
        raise AssertionError

    def say(self, channel: str, body: Any) -> None:
        self.heard(channel.encode(), body if isinstance(body, bytes) else json.dumps(body).encode())


class Sights:
    """Every message is the first of its kind. `away`: so many calls fail first."""

    def __init__(self) -> None:
        self.away = 0
        self.calls: list[list[int]] = []

    async def sight(self, subscription: str, since: int, seen: Sequence[Sighting]) -> list[Sight]:
        self.calls.append([one.number for one in seen])
        if self.away:
            self.away -= 1
            raise BusUnavailable("away")
        return [Sight(f"1-{one.number}", 1000 + one.number, True) for one in seen]


class Log(MemoryBus):
    """`away`: so many appends fail first; `odd`: an id that raises."""

    away = 0
    odd = ""

    def __init__(self) -> None:
        super().__init__()
        self.drafts: list[Draft] = []

    async def append_many(
        self, drafts: Sequence[Draft], quota: Quota | None = None
    ) -> list[Receipt | DualcastError]:
        if any(draft.id == self.odd for draft in drafts):
            raise ValueError("odd")
        if self.away:
            self.away -= 1
            return [BusUnavailable("away") for _ in drafts]
        results = await super().append_many(drafts, quota)
        self.drafts += [draft for draft, one in zip(drafts, results, strict=True) if isinstance(one, Receipt)]
        return results


class Desk:
    """Tasks; T1 is registered, T2 has finished."""

    def __init__(self) -> None:
        self.reports: list[tuple[str, Report]] = []

    async def report(self, tenant: str, ident: str, report: Report) -> None:
        if ident == "T2":
            raise TaskConflict("finished", code="task-finished")
        if ident != "T1":
            raise UnknownTask
        self.reports.append((ident, report))

    async def run(self) -> NoReturn:
        raise AssertionError


class People:
    def __init__(self) -> None:
        self.taken: list[Presence] = []

    async def take(self, said: Presence, now_ms: int) -> None:
        self.taken.append(said)


class Room:
    def __init__(self, **settings: Any) -> None:
        self.ear, self.sights, self.log, self.desk, self.people = Ear(), Sights(), Log(), Desk(), People()
        self.owners: dict[str, str | None] = {"task:Q1": "alice", "task:Q2": ""}
        self.ingest = Ingest(
            self.ear,
            cast(OlderRedis, self.sights),
            self.log,
            self.desk,
            cast(OlderPresence, self.people),
            self.owner,
            lambda connection: ("alice", "n-1") if connection == "phone" else None,
            tenant="default",
            settings=IngestSettings(retry_s=0.01, **settings),
        )

    async def owner(self, tenant: str, channel: str) -> str | None:
        return self.owners.get(channel)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.005)


@asynccontextmanager
async def room(**settings: Any) -> AsyncIterator[Room]:
    found = Room(**settings)
    await found.log.start(Recorder())
    task = asyncio.create_task(found.ingest.run())
    await asyncio.sleep(0)
    await found.until(lambda: hasattr(found.ear, "heard"))
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await found.log.close()


async def test_a_bus_that_is_away_is_waited_for_and_the_order_kept() -> None:
    async with room() as at:
        at.sights.away, at.log.away = 2, 2
        for number in range(5):
            at.ear.say("notifications:alice", {"id": f"n{number}"})
        await at.until(lambda: at.ingest.taken == 5)
        assert [draft.id for draft in at.log.drafts] == [f"n{number}" for number in range(5)]
        # The same numbers, so that Redis knows them again.
        assert at.sights.calls[0] == at.sights.calls[1] == at.sights.calls[-1]
        assert at.ingest.dropped == 0


async def test_a_bus_that_stays_away_costs_what_waited_too_long_only() -> None:
    async with room(patience_s=0.05) as at:
        at.sights.away = 1_000_000
        at.ear.say("notifications:alice", {"id": "lost"})
        await at.until(lambda: at.ingest.dropped == 1)
        at.sights.away = 0
        at.ear.say("notifications:alice", {"id": "next"})
        await at.until(lambda: at.ingest.taken == 1)
        assert [draft.id for draft in at.log.drafts] == ["next"]


async def test_an_odd_message_takes_no_other_with_it() -> None:
    async with room() as at:
        at.log.odd = "n2"
        for number in range(5):
            at.ear.say("notifications:alice", {"id": f"n{number}"})
        await at.until(lambda: at.ingest.taken == 4)
        assert [draft.id for draft in at.log.drafts] == ["n0", "n1", "n3", "n4"]
        assert at.ingest.dropped == 1


async def test_what_waits_is_bounded_in_number_and_bytes(caplog: pytest.LogCaptureFixture) -> None:
    async with room(max_waiting=3) as at:
        for number in range(5):
            at.ear.say("notifications:alice", {"id": f"n{number}"})
        assert (at.ingest.waiting, at.ingest.dropped) == (3, 2)
        assert [one.levelname for one in caplog.records] == ["WARNING"]  # told, and not once per message
    async with room(max_bytes=100) as at:
        for number in range(3):
            at.ear.say("notifications:alice", {"id": f"n{number}", "content": "x" * 60})
        assert (at.ingest.waiting, at.ingest.dropped) == (1, 2)
        await at.until(lambda: at.ingest.taken == 1)
        at.ear.say("notifications:alice", {"id": "later", "content": "x" * 60})
        await at.until(lambda: at.ingest.taken == 2)


async def test_no_call_holds_a_message_twice() -> None:
    async with room() as at:
        for text in ("a", "b", "a", "a"):
            at.ear.say("notifications:alice", {"title": text})
        await at.until(lambda: at.ingest.taken == 4)
        assert at.sights.calls == [[1, 2], [3], [4]]


async def test_a_notification_is_kept_in_the_inbox_and_has_its_own_id() -> None:
    async with room() as at:
        at.ear.say("notifications:alice", {"id": "n1", "type": "alert", "title": "t"})
        at.ear.say("notifications:alice", {"title": "no id"})
        await at.until(lambda: at.ingest.taken == 2)
        first, second = at.log.drafts
        assert (first.id, first.channels, first.type) == ("n1", ("user:alice",), "notification")
        assert first.inbox is not None
        assert (first.inbox.users, first.inbox.kind) == (("alice",), "alert")
        assert second.id == json.loads(second.data)["id"]
        assert second.id.startswith("older-")


async def test_progress_goes_to_the_task_to_the_older_queue_or_nowhere() -> None:
    async with room() as at:
        for task in ("T1", "T2", "Q1", "Q2", "X"):
            at.ear.say(f"task_progress:{task}", {"message": task, "step": 1, "total_steps": 2})
        await at.until(lambda: at.ingest.taken + at.ingest.unknown + at.ingest.refused == 5)
        ((ident, report),) = at.desk.reports
        assert (ident, report.step, report.sequence) == ("T1", 1, 1001)
        (draft,) = at.log.drafts
        assert (draft.channels, draft.conflation_key, draft.terminal) == (("task:Q1",), "task:Q1", False)
        assert (at.ingest.unknown, at.ingest.refused) == (2, 1)


async def test_whom_a_frame_goes_to() -> None:
    async with room() as at:
        payload = {"event": "new_message", "data": {}}
        for target in (
            {"target_connection_id": "phone"},
            {"target_connection_id": "elsewhere"},
            {"target_connection_id": "phone", "target_user_id": "mallory"},
            {"target_user_id": "bob", "target_device_type": "tablet"},
        ):
            at.ear.say("ws:broadcast", {**target, "payload": payload, "instance_id": "old"})
        await at.until(lambda: at.ingest.taken == 2)
        phone, tablet = at.log.drafts
        assert phone.channels == ("user:alice",)
        assert phone.audience is not None
        assert phone.audience.connections == ("n-1",)
        assert tablet.channels == ("user:bob",)
        assert tablet.audience is not None
        assert tablet.audience.devices == ("tablet",)
        assert not phone.ephemeral
        assert at.ingest.unknown == 2


async def test_presence_of_others_is_taken_and_of_dualcast_is_not() -> None:
    async with room() as at:
        body = {"event_type": "user_online", "user_id": "alice"}
        at.ear.say("ws:presence", {**body, "instance_id": "dualcast-x"})
        at.ear.say("ws:presence", {**body, "instance_id": "old"})
        await at.until(lambda: at.ingest.taken == 1)
        assert at.people.taken == [Presence("alice", "old", True)]
        assert at.ingest.own == 1


async def test_what_was_heard_is_taken_in_before_the_server_stops() -> None:
    at = Room(close_s=5.0)
    await at.log.start(Recorder())
    task = asyncio.create_task(at.ingest.run())
    await at.until(lambda: hasattr(at.ear, "heard"))
    at.log.away = 10**9
    at.ear.say("notifications:alice", {"id": "n0"})
    await at.until(lambda: at.log.away < 10**9)  # in the middle of the first
    for number in range(1, 600):
        at.ear.say("notifications:alice", {"id": f"n{number}"})
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    at.log.away = 0
    await at.ingest.close()
    assert [draft.id for draft in at.log.drafts] == [f"n{number}" for number in range(600)]
    assert (at.ingest.waiting, at.ingest.dropped) == (0, 0)
    await at.log.close()


async def test_a_stop_does_not_wait_for_a_bus_that_stays_away() -> None:
    at = Room(close_s=0.05)
    at.log.away = 10**9
    await at.log.start(Recorder())
    task = asyncio.create_task(at.ingest.run())
    await at.until(lambda: hasattr(at.ear, "heard"))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    for number in range(3):
        at.ear.say("notifications:alice", {"id": f"n{number}"})
    await at.ingest.close()
    assert at.ingest.dropped == 3
    await at.log.close()


async def test_a_flood_of_nonsense_is_counted_and_not_logged_each(caplog: pytest.LogCaptureFixture) -> None:
    async with room() as at:
        for _ in range(200):
            at.ear.say("notifications:alice", b"{secret")
        at.ear.say("notifications:alice", b"x" * 70_000)
        await at.until(lambda: at.ingest.unreadable == 201)
        assert len(caplog.records) < 5
        assert "secret" not in caplog.text
