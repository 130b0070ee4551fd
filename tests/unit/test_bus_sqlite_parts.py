"""Other rooms' tables in the bus file: restarts, failing disks, bounds."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dualcast.bus.sqlite import SqliteBus
from dualcast.bus.storage import SqlPart
from dualcast.model.errors import BusUnavailable, DualcastError, Forbidden
from dualcast.model.inbox import Badge, InboxRider
from dualcast.model.publication import Draft, Receipt
from support.bus_engines import TOY_PARTS, Recorder, draft, toy_items

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bus.db"


@asynccontextmanager
async def opened(path: Path, recorder: Recorder | None = None, **options: Any) -> AsyncIterator[SqliteBus]:
    options.setdefault("parts", TOY_PARTS)
    bus = SqliteBus(path, **options)
    try:
        await bus.start(recorder or Recorder())
        yield bus
    finally:
        await bus.close()


def kept(*users: str, kind: str = "", **fields: Any) -> Draft:
    return draft("t", *(f"user:{user}" for user in users), inbox=InboxRider(users, kind=kind), **fields)


def put(ident: str, size: int = 0) -> Any:
    return lambda db: db.execute("INSERT INTO toy_item VALUES ('t', 'a', ?)", (ident + "x" * size,)).rowcount


# restarts


async def test_items_and_badges_are_there_after_a_restart(path: Path) -> None:
    async with opened(path) as bus:
        await bus.append(kept("a", id="1"))
        await bus.append(kept("a", "b", id="2"))
        await bus.database.write(put("3"))
    async with opened(path) as bus:
        assert await toy_items(bus, "t", "a") == ["1", "2", "3"]
        page = await bus.read("t", ["user:a", "user:b"], 0, 10)
        assert [(entry.channel, entry.publication.badge) for entry in page.entries] == [
            ("user:a", Badge(1, 1, 1, 0)),
            ("user:a", Badge(2, 2, 2, 0)),
            ("user:b", Badge(1, 1, 2, 0)),
        ]
        assert (await bus.append(kept("a", id="2"))).duplicate
        assert await toy_items(bus, "t", "a") == ["1", "2", "3"]


async def test_a_file_from_before_the_parts_opens_and_keeps_its_log(path: Path) -> None:
    async with opened(path, parts=()) as bus:
        head = await bus.head("t")
        await bus.append(draft("t", "user:a", "user:b", id="old"))
    async with opened(path) as bus:
        assert (await bus.append(kept("a", "b", id="new"))).epoch == head.epoch
        page = await bus.read("t", ["user:a", "user:b"], 0, 10)
        assert [entry.publication.id for entry in page.entries] == ["old", "old", "new", "new"]
    async with opened(path, parts=()) as bus:
        # And back: a server that knows nothing of the tables leaves them alone.
        assert (await bus.append(draft("t"))).offset == 3
    async with opened(path) as bus:
        assert await toy_items(bus, "t", "a") == ["new"]


async def test_a_schema_that_is_wrong_stops_the_start(path: Path) -> None:
    for schema in ("CREATE TABLE one(", "CREATE TABEL two(x)"):
        with pytest.raises(BusUnavailable) as caught:
            async with opened(path, parts=(SqlPart(schema),)):
                pass
        assert caught.value.code == "bus-file"
    async with opened(path) as bus:
        assert (await bus.append(draft("t"))).offset == 1


# transactions


async def test_a_refusal_is_given_back_as_it_is(path: Path) -> None:
    async with opened(path) as bus:
        results = await bus.append_many([kept("a", id="1"), kept("a", kind="refused"), kept("a", id="3")])
        assert [type(result) for result in results] == [Receipt, Forbidden, Receipt]
        assert await toy_items(bus, "t", "a") == ["1", "3"]


async def test_work_and_appends_of_a_turn_are_one_transaction(path: Path) -> None:
    async with opened(path) as bus:
        await bus.append(draft("t"))
        before = bus.stats()["commits"]
        await asyncio.gather(
            *(bus.append(kept(f"u{n}")) for n in range(50)),
            *(bus.database.write(put(str(n))) for n in range(50)),
        )
        assert bus.stats()["commits"] == before + 1


async def test_work_runs_in_the_writer_and_reads_elsewhere(path: Path) -> None:
    async with opened(path) as bus:
        writer = {await bus.database.write(lambda db: threading.current_thread().name) for _ in range(4)}
        reader = {await bus.database.read(lambda db: threading.current_thread().name) for _ in range(4)}
        assert writer == {"dualcast-bus-writer"}
        assert all(name.startswith("dualcast-bus-reader") for name in reader)


async def test_a_read_sees_one_state_while_others_write(path: Path) -> None:
    async with opened(path) as bus:
        await bus.database.write(put("1"))
        begun, written = threading.Event(), threading.Event()

        def work(db: sqlite3.Connection) -> tuple[int, int]:
            count = "SELECT count(*) FROM toy_item"
            first = db.execute(count).fetchone()[0]
            begun.set()
            assert written.wait(10)
            return first, db.execute(count).fetchone()[0]

        reading = asyncio.ensure_future(bus.database.read(work))
        await asyncio.to_thread(begun.wait, 10)
        await bus.database.write(put("2"))
        written.set()
        assert await reading == (1, 1)
        assert await toy_items(bus, "t", "a") == ["1", "2"]


async def test_a_draft_that_cannot_be_stored_takes_its_riders_with_it(path: Path) -> None:
    async with opened(path) as bus:
        bad = draft("t", "user:a", type="bad \ud800", inbox=InboxRider(("a",)), id="bad")
        results = await asyncio.gather(
            bus.append(kept("a", id="1")),
            bus.append(bad),
            bus.database.write(put("2")),
            bus.append(kept("a", id="3")),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [Receipt, DualcastError, int, Receipt]
        assert await toy_items(bus, "t", "a") == ["1", "2", "3"]


async def test_work_that_commits_by_itself_is_refused_and_the_bus_goes_on(path: Path) -> None:
    async with opened(path) as bus:
        with pytest.raises(BusUnavailable):
            await bus.database.write(lambda db: db.execute("COMMIT").rowcount)
        assert (await bus.append(kept("a", id="1"))).offset == 1
        assert await toy_items(bus, "t", "a") == ["1"]


# trouble with the disk


async def test_a_full_disk_is_unavailable_for_work_and_riders(path: Path) -> None:
    recorder = Recorder()
    async with opened(path, recorder) as bus:
        await bus.append(kept("a", id="1"))
        assert bus._db is not None
        pages = bus._db.execute("PRAGMA page_count").fetchone()[0]
        bus._db.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(BusUnavailable):
            await bus.database.write(put("lost", 60_000))
        with pytest.raises(BusUnavailable):
            await bus.append(kept("a", id="lost" + "x" * 60_000))
        await recorder.until(lambda: any(call[0] == "status" for call in recorder.calls))
        assert await toy_items(bus, "t", "a") == ["1"]
        bus._db.execute("PRAGMA max_page_count=1000000")
        assert await bus.database.write(put("2")) == 1
        assert (await bus.append(kept("a", id="3"))).offset == 2
        assert await toy_items(bus, "t", "a") == ["1", "2", "3"]
        assert [call[1] for call in recorder.calls if call[0] == "status"] == [False, True]


async def test_what_waits_is_bounded(path: Path) -> None:
    async with opened(path, max_pending=10) as bus:
        results = await asyncio.gather(
            *(bus.database.write(put(str(n))) for n in range(15)), return_exceptions=True
        )
        assert [type(result) for result in results] == [int] * 10 + [BusUnavailable] * 5
        assert bus.stats()["refused_full"] == 5
        assert bus.stats()["pending"] == bus.stats()["pending_bytes"] == 0
        asked = [bus.database.read(lambda db: 1) for _ in range(15)]
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(result) for result in results] == [int] * 10 + [BusUnavailable] * 5
        assert await bus.database.read(lambda db: 2) == 2


async def test_close_finishes_work_that_was_begun(path: Path) -> None:
    bus = SqliteBus(path, parts=TOY_PARTS)
    await bus.start(Recorder())
    begun = asyncio.ensure_future(bus.database.write(put("1")))
    left = asyncio.ensure_future(bus.database.write(put("2")))
    await asyncio.sleep(0)
    left.cancel()
    await bus.close()
    assert await begun == 1
    async with opened(path) as bus:
        # Who is cancelled does not know; the work was on its way.
        assert await toy_items(bus, "t", "a") == ["1", "2"]


CHILD = """
import asyncio, pathlib, sys
from dualcast.bus.sqlite import SqliteBus
from dualcast.model.inbox import InboxRider
from support.bus_engines import TOY_PARTS, Recorder, draft

async def main():
    bus = SqliteBus(pathlib.Path(sys.argv[1]), parts=TOY_PARTS)
    await bus.start(Recorder())

    async def publisher(number):
        n = 0
        while True:
            n += 1
            await bus.append(draft("t", "user:a", id=f"{number}-{n}", inbox=InboxRider(("a",))))
            sys.stdout.write(f"{number}-{n}\\n")
            sys.stdout.flush()

    await asyncio.gather(*(publisher(n) for n in range(20)))

asyncio.run(main())
"""


async def test_kill_9_leaves_no_entry_without_its_item_and_no_item_without_its_entry(path: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CHILD,
        str(path),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.stdout is not None
    acknowledged = [(await child.stdout.readline()).decode().strip() for _ in range(100)]
    child.kill()
    rest = (await child.communicate())[0].decode().split("\n")
    acknowledged += rest[:-1]  # the last line may be cut
    async with opened(path) as bus:
        page = await bus.read("t", ["user:a"], 0, 100_000)
        entries = [entry.publication.id for entry in page.entries]
        items = await toy_items(bus, "t", "a")
        assert items[-len(entries) :] == entries
        assert set(acknowledged) <= set(items)
        assert len(items) == (await bus.head("t")).offset
