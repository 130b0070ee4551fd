"""What is particular to the sqlite engine: durability, the lock, a failing disk, bounded memory and disk."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dualcast.bus.port import Retention
from dualcast.bus.sqlite import SqliteBus
from dualcast.bus.sqlite_file import RESTORE_LEAP, connect
from dualcast.model.errors import BusUnavailable, DualcastError, IdempotencyConflict
from dualcast.model.publication import Gap, Receipt
from support.bus_engines import Recorder, draft, watch

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "bus.db"


@asynccontextmanager
async def opened(path: Path, recorder: Recorder | None = None, **options: Any) -> AsyncIterator[SqliteBus]:
    bus = SqliteBus(path, **options)
    try:
        await bus.start(recorder or Recorder())
        yield bus
    finally:
        await bus.close()


def count(path: Path, table: str) -> int:
    db = connect(path, read_only=True)
    try:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
    finally:
        db.close()


# durability


async def test_everything_is_there_after_a_restart(path: Path) -> None:
    async with opened(path) as bus:
        head = await bus.head("t")
        for n in range(5):
            await bus.append(draft("t", "all", "user:a", id=str(n), dedupe_key=f"k{n}", fingerprint="f"))
    async with opened(path) as bus:
        assert await bus.head("t") == (head.epoch, 5)
        page = await bus.read("t", ["user:a"], 2, 10)
        assert [(entry.offset, entry.publication.id, entry.prev) for entry in page.entries] == [
            (3, "2", 2),
            (4, "3", 3),
            (5, "4", 4),
        ]
        assert (await bus.append(draft("t", dedupe_key="k3", fingerprint="f"))).offset == 4
        with pytest.raises(IdempotencyConflict):
            await bus.append(draft("t", dedupe_key="k3", fingerprint="g"))
        assert (await bus.append(draft("t", "user:a"))).offset == 6
        assert (await bus.read("t", ["user:a"], 5, 10)).entries[0].prev == 5


CHILD = """
import asyncio, pathlib, sys
from dualcast.bus.port import Retention
from dualcast.bus.sqlite import SqliteBus
from support.bus_engines import Recorder, draft

async def main():
    bus = SqliteBus(pathlib.Path(sys.argv[1]), Retention(entries=100_000))
    await bus.start(Recorder())

    async def publisher(tenant, number):
        n = 0
        while True:
            n += 1
            ident = f"{sys.argv[2]}-{number}-{n}"
            receipt = await bus.append(draft(tenant, f"user:{n % 7}", "all", id=ident))
            sys.stdout.write(f"{tenant} {receipt.offset} {ident}\\n")
            sys.stdout.flush()

    await asyncio.gather(*(publisher(f"t{n % 2}", n) for n in range(20)))

asyncio.run(main())
"""


async def test_kill_9_loses_nothing_acknowledged(path: Path) -> None:
    acknowledged: dict[tuple[str, int], str] = {}
    epochs = set()
    for round_no in range(3):
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            CHILD,
            str(path),
            str(round_no),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert child.stdout is not None
        lines = [(await asyncio.wait_for(child.stdout.readline(), 20)).decode().rstrip() for _ in range(400)]
        child.send_signal(signal.SIGKILL)
        rest = await child.stdout.read()
        await child.wait()
        lines += rest.decode().split("\n")[:-1]
        async with opened(path, retention=Retention(entries=100_000)) as bus:
            for tenant in ("t0", "t1"):
                ids: dict[int, str] = {}
                after = 0
                while True:
                    page = await bus.read(tenant, ["all"], after, 500)
                    assert page.gaps == ()
                    for entry in page.entries:
                        assert entry.offset not in ids
                        ids[entry.offset] = entry.publication.id
                    after = page.next
                    if after == page.top:
                        break
                assert sorted(ids) == list(range(1, page.top + 1))
                assert len(set(ids.values())) == len(ids)
                for line in lines:
                    name, offset, ident = line.split(" ")
                    if name == tenant:
                        assert acknowledged.setdefault((name, int(offset)), ident) == ident
                for (name, number), ident in acknowledged.items():
                    assert name != tenant or ids[number] == ident
            epochs.add((await bus.head("t0")).epoch)
    assert len(epochs) == 1
    assert len(acknowledged) >= 3 * 400


async def test_a_file_put_back_from_a_copy_gets_a_new_epoch_far_above(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    async with opened(path) as bus:
        old = (await bus.append(draft("t", "user:a"))).epoch
    shutil.copy(path, copy)
    async with opened(path) as bus:
        lost = await bus.append(draft("t", "user:a"))
        assert lost.epoch == old
    shutil.copy(copy, path)
    async with opened(path) as bus:
        receipt = await bus.append(draft("t", "user:a"))
        assert receipt.epoch != old
        assert receipt.offset > RESTORE_LEAP > lost.offset
        assert await bus.known_epoch("t", old)
        assert await bus.known_epoch("t", receipt.epoch)
        page = await bus.read("t", ["user:a"], 0, 10)
        assert [entry.offset for entry in page.entries] == [1, receipt.offset]
    async with opened(path) as bus:
        assert (await bus.head("t")).epoch == receipt.epoch


# the file


async def test_one_server_per_file(path: Path) -> None:
    async with opened(path) as bus:
        with pytest.raises(BusUnavailable, match="in use by another server") as caught:
            async with opened(path):
                pass
        assert caught.value.code == "bus-locked"
        await bus.append(draft("t"))
        assert {os.stat(file).st_mode & 0o777 for file in os.scandir(path.parent)} == {0o600}
    async with opened(path) as bus:
        assert (await bus.head("t")).offset == 1


GARBAGE = b"not a database" * 1000


@pytest.mark.parametrize("kind", ["garbage", "other", "newer", "folder"])
async def test_a_file_that_is_no_bus_file_is_refused_and_left_alone(path: Path, kind: str) -> None:
    path.parent.mkdir()
    if kind == "garbage":
        path.write_bytes(GARBAGE)  # noqa: ASYNC240
    elif kind == "folder":
        path.mkdir()  # noqa: ASYNC240
    else:
        db = sqlite3.connect(path)
        db.execute("CREATE TABLE other(x)" if kind == "other" else "PRAGMA user_version=99")
        db.commit()
        db.close()
    before = threading.active_count()
    with pytest.raises(BusUnavailable) as caught:
        async with opened(path):
            pass
    assert caught.value.code == "bus-file"
    assert threading.active_count() == before
    if kind == "garbage":
        assert path.read_bytes() == GARBAGE  # noqa: ASYNC240


# the writer


async def test_all_appends_of_a_turn_are_one_transaction(path: Path) -> None:
    async with opened(path) as bus:
        await bus.append(draft("t"))
        before = bus.stats()["commits"]
        await asyncio.gather(*(bus.append(draft("t", f"user:{n}")) for n in range(500)))
        assert bus.stats()["commits"] == before + 1


async def test_ephemeral_publications_cost_no_disk_write(path: Path) -> None:
    async with opened(path) as bus:
        await bus.append(draft("t"))
        wal = path.with_name(path.name + "-wal")
        before = os.stat(wal).st_size
        for _ in range(10):
            await bus.append(draft("t", ephemeral=True))
        assert os.stat(wal).st_size == before


async def test_close_finishes_what_was_begun_and_leaves_no_thread(path: Path) -> None:
    before = set(threading.enumerate())
    bus = SqliteBus(path)
    await bus.start(Recorder())
    await bus.read("t", ["all"], 0, 1)
    tasks = [asyncio.ensure_future(bus.append(draft("t"))) for _ in range(50)]
    await asyncio.sleep(0)
    await bus.close()
    assert [(await task).offset for task in tasks] == list(range(1, 51))
    assert set(threading.enumerate()) == before
    async with opened(path) as bus:
        assert (await bus.head("t")).offset == 50


async def test_a_cancelled_append_does_not_disturb_the_others(path: Path) -> None:
    async with opened(path) as bus:
        tasks = [asyncio.ensure_future(bus.append(draft("t", id=str(n)))) for n in range(10)]
        await asyncio.sleep(0)
        tasks[3].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[3], asyncio.CancelledError)
        assert sum(isinstance(result, Receipt) for result in results) == 9
        assert bus.stats()["pending"] == 0


async def test_a_draft_that_cannot_be_stored_fails_alone(path: Path) -> None:
    async with opened(path) as bus:
        results = await asyncio.gather(
            *(bus.append(draft("t", id="bad \ud800" if n == 3 else str(n))) for n in range(6)),
            return_exceptions=True,
        )
        assert isinstance(results[3], DualcastError)
        assert not isinstance(results[3], BusUnavailable)
        assert [r.offset for r in results if isinstance(r, Receipt)] == [1, 2, 3, 4, 5]
        assert (await bus.append(draft("t"))).offset == 6
        assert (await bus.probe()).ok


async def test_what_waits_for_the_disk_is_bounded(path: Path) -> None:
    async with opened(path, max_pending=10) as bus:
        results = await asyncio.gather(*(bus.append(draft("t")) for _ in range(30)), return_exceptions=True)
        assert [type(result) for result in results] == [Receipt] * 10 + [BusUnavailable] * 20
        assert bus.stats()["refused_full"] == 20
        assert (await bus.append(draft("t"))).offset == 11
    async with opened(path, max_pending_bytes=10_000) as bus:
        results = await bus.append_many([draft("t", data=b"1" * 20_000)])
        assert isinstance(results[0], BusUnavailable)
        assert (await bus.append(draft("t"))).offset == 12
        assert bus.stats()["pending_bytes"] == 0


async def test_a_full_disk_is_told_and_recovered_from(path: Path) -> None:
    recorder = Recorder()
    async with opened(path, recorder) as bus:
        await watch(bus, recorder, "t", "all")
        await bus.append(draft("t", id="before"))
        pages = bus._db.execute("PRAGMA page_count").fetchone()[0]
        bus._db.execute(f"PRAGMA max_page_count={pages}")
        data = b'"' + b"x" * 60_000 + b'"'
        with pytest.raises(BusUnavailable):
            await bus.append(draft("t", id="lost", data=data))
        await recorder.until(lambda: recorder.named("status") == [()] and len(recorder.calls) > 2)
        assert [call[1] for call in recorder.calls if call[0] == "status"] == [False]
        assert [entry.publication.id for entry in (await bus.read("t", ["all"], 0, 10)).entries] == ["before"]
        with pytest.raises(BusUnavailable):
            await bus.append(draft("t", data=data))
        bus._db.execute("PRAGMA max_page_count=1000000")
        receipt = await bus.append(draft("t", id="lost", data=data))
        assert (receipt.offset, receipt.duplicate) == (2, False)
        await recorder.until(lambda: len(recorder.of("t")) == 2)
        assert [call[1] for call in recorder.calls if call[0] == "status"] == [False, True]
        assert [entry.offset for entry in recorder.of("t")] == [1, 2]
        assert (await bus.probe()).ok


async def test_the_bus_comes_back_by_itself(path: Path) -> None:
    recorder = Recorder()
    async with opened(path, recorder) as bus:
        await bus.append(draft("t"))
        bus._db.execute("PRAGMA query_only=1")
        assert not (await bus.probe()).ok
        bus._db.execute("PRAGMA query_only=0")
        await recorder.until(
            lambda: [call[1] for call in recorder.calls if call[0] == "status"] == [False, True]
        )
        assert (await bus.append(draft("t"))).offset == 2


# bounded disk


async def test_history_is_trimmed_on_disk(path: Path) -> None:
    async with opened(path, retention=Retention(entries=5)) as bus:
        for _ in range(20):
            await bus.append_many([draft("t", "user:a"), draft("t", "user:a", "user:b")])
        assert count(path, "links") == 10
        assert 5 <= count(path, "bodies") <= 8
        page = await bus.read("t", ["user:b"], 0, 10)
        assert [entry.offset for entry in page.entries] == [32, 34, 36, 38, 40]
        assert page.gaps == (Gap("user:b", 0, 32),)


async def test_silent_channels_and_old_ids_are_forgotten(path: Path) -> None:
    clock = Clock()
    retention = Retention(entries=100, seconds=100, idempotency_s=60)
    async with opened(path, retention=retention, clock=clock) as bus:
        for n in range(50):
            await bus.append(draft("t", f"user:{n}", "all", id=str(n)))
        assert (await bus.append(draft("t", id="7"))).duplicate
        clock.now += 61
        assert not (await bus.append(draft("t", id="7"))).duplicate
        clock.now += 59
        assert (await bus.read("t", ["user:3"], 3, 10)).gaps == (Gap("user:3", 3, 0),)
        await asyncio.to_thread(_tidy_until, path, "SELECT count(*) FROM links WHERE channel_no > 2", 0)
        assert count(path, "remembered") == 1
        assert count(path, "channels") == 51
        clock.now += 200
        await asyncio.to_thread(_tidy_until, path, "SELECT count(*) FROM channels", 0)
        assert count(path, "bodies") == 0
        assert (await bus.read("t", ["user:3"], 50, 10)).gaps == (Gap("user:3", 50, 0),)
        assert (await bus.read("t", ["user:3"], 51, 10)).gaps == ()
        assert (await bus.append(draft("t", "user:3"))).offset == 52
        assert (await bus.read("t", ["user:3"], 51, 10)).gaps == ()
        assert (await bus.read("t", ["user:3"], 50, 10)).gaps == (Gap("user:3", 50, 52),)


def _tidy_until(path: Path, query: str, wanted: int) -> None:
    """Waits for the writer's own tidying, which runs every second."""
    db = connect(path, read_only=True)
    wait = threading.Event()
    for _ in range(200):
        if db.execute(query).fetchone()[0] == wanted:
            break
        wait.wait(0.05)
    else:
        raise AssertionError(query)
    db.close()


async def test_aged_entries_of_a_busy_channel_are_trimmed(path: Path) -> None:
    clock = Clock()
    async with opened(path, retention=Retention(entries=1000, seconds=10), clock=clock) as bus:
        for _ in range(60):
            await bus.append(draft("t"))
            clock.now += 1
        page = await bus.read("t", ["all"], 0, 100)
        assert [entry.offset for entry in page.entries] == list(range(51, 61))
        assert page.gaps == (Gap("all", 0, 51),)
        assert count(path, "links") <= 13


async def test_channels_are_bounded(path: Path) -> None:
    async with opened(path, max_heads=10) as bus:
        for n in range(40):
            await bus.append(draft("t", f"user:{n}"))
        await asyncio.to_thread(_tidy_until, path, "SELECT count(*) <= 10 FROM channels", 1)
        assert (await bus.read("t", ["user:39"], 40, 10)).gaps == ()
        assert (await bus.read("t", ["user:1"], 1, 10)).gaps == (Gap("user:1", 1, 0),)
