"""The sqlite state engine under bad luck: kill -9, a full disk, a fault of its own, a flood."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from dualcast.model.errors import BusUnavailable
from dualcast.state import sqlite
from dualcast.state.sqlite import SqliteState

pytestmark = pytest.mark.anyio
WRITER = """
import asyncio, sys
from pathlib import Path
from dualcast.state.sqlite import SqliteState

async def main():
    store = SqliteState(Path(sys.argv[1]))
    await store.start()
    async def write(lane):
        n = 0
        while True:
            version = await store.put("s", f"{lane}-{n}", b"x")
            sys.stdout.write(f"{lane}-{n} {version}\\n")
            sys.stdout.flush()
            n += 1
    await asyncio.gather(*(write(lane) for lane in range(8)))

asyncio.run(main())
"""


async def test_what_was_acknowledged_outlives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    lines = [await child.stdout.readline() for _ in range(200)]
    child.send_signal(signal.SIGKILL)
    lines += (await child.stdout.read()).splitlines(keepends=True)
    await child.wait()
    acknowledged = [line.split() for line in lines if line.endswith(b"\n")]
    assert len(acknowledged) >= 200
    store = SqliteState(path)
    await store.start()
    try:
        for key, version in acknowledged:
            value = await store.get("s", key.decode())
            assert value is not None and value.version == int(version)
    finally:
        await store.close()


async def test_a_full_disk_is_told_and_survived(tmp_path: Path) -> None:
    store = SqliteState(tmp_path / "state.db")
    await store.start()
    try:
        await store.put("s", "before", b"1")
        await store._run(lambda db: db.execute("PRAGMA max_page_count = 20").fetchone())
        results = await asyncio.gather(
            *(store.put("s", f"k{n}", b"x" * 60_000) for n in range(5)), return_exceptions=True
        )
        assert all(isinstance(result, BusUnavailable) for result in results)
        await store._run(lambda db: db.execute("PRAGMA max_page_count = 100000").fetchone())
        assert [value.key for value in await store.list("s")] == ["before"]
        await store.put("s", "after", b"1")
    finally:
        await store.close()


async def test_a_fault_answers_everybody_and_the_store_goes_on(tmp_path: Path) -> None:
    store = SqliteState(tmp_path / "state.db")
    await store.start()
    try:
        with pytest.raises(RuntimeError, match="fault"):
            await store._run(lambda db: 1 / 0)
        assert not (await store.changes(2**70)).complete
        await store.put("s", "a", b"1")
    finally:
        await store.close()


async def test_what_waits_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "MAX_WAITING", 4)
    store = SqliteState(tmp_path / "state.db")
    await store.start()
    try:
        results = await asyncio.gather(
            *(store.put("s", f"k{n}", b"") for n in range(2_000)), return_exceptions=True
        )
        refused = [result for result in results if isinstance(result, BusUnavailable)]
        stored = sum(isinstance(result, int) for result in results)
        assert refused and refused[0].retry_after_s == 1
        assert stored + len(refused) == 2_000
        assert len(await store.list("s", limit=2_000)) == stored
    finally:
        await store.close()
