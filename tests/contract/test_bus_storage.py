"""What other rooms keep beside the log (`bus.storage`): `Database` over the SQL engines, `Scripting` over
redis.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator

import pytest

from dualcast.bus.memory import MemoryBus
from dualcast.bus.redis.engine import RedisBus
from dualcast.bus.redis.options import RedisSettings
from dualcast.bus.sqlite import SqliteBus
from dualcast.bus.storage import Database, Extension, Scripting, SqlPart
from dualcast.model.errors import BusUnavailable, NotFound
from dualcast.model.inbox import InboxRider
from support.bus_engines import (
    TOY_EXTENSIONS,
    TOY_PARTS,
    Recorder,
    draft,
    memory,
    redis,
    sqlite,
    toy_items,
)
from support.redis_server import RedisServer

pytestmark = pytest.mark.anyio
SqlBus = MemoryBus | SqliteBus


@pytest.fixture(params=["memory", "sqlite"])
async def sql(request: pytest.FixtureRequest, recorder: Recorder) -> AsyncIterator[SqlBus]:
    async with {"memory": memory, "sqlite": sqlite}[request.param](parts=TOY_PARTS) as bus:
        await bus.start(recorder)
        assert isinstance(bus, MemoryBus | SqliteBus)
        yield bus


@pytest.fixture
async def scripting(recorder: Recorder) -> AsyncIterator[RedisBus]:
    async with redis(extensions=TOY_EXTENSIONS) as bus:
        await bus.start(recorder)
        assert isinstance(bus, RedisBus)
        yield bus


def put(db: sqlite3.Connection, tenant: str, ident: str) -> None:
    db.execute("INSERT INTO toy_item VALUES (?, 'a', ?)", (tenant, ident))


# Database


async def test_what_work_returns_comes_back_and_stays(sql: SqlBus, tenant: str) -> None:
    database: Database = sql.database

    def work(db: sqlite3.Connection) -> int:
        put(db, tenant, "1")
        put(db, tenant, "2")
        return 42

    assert await database.write(work) == 42
    assert await toy_items(sql, tenant, "a") == ["1", "2"]


async def test_what_work_raises_is_raised_and_undoes_only_itself(sql: SqlBus, tenant: str) -> None:
    def lost(error: Exception) -> None:
        def work(db: sqlite3.Connection) -> None:
            put(db, tenant, "lost")
            raise error

        works.append(sql.database.write(work))

    def fine(ident: str) -> None:
        works.append(sql.database.write(lambda db: put(db, tenant, ident)))

    works: list[object] = []
    fine("1")
    lost(NotFound("no such thing"))
    fine("2")
    lost(ZeroDivisionError())
    lost(StopIteration())
    fine("3")
    results = await asyncio.gather(
        *works,  # type: ignore[call-overload]
        sql.append(draft(tenant, "user:a", id="4", inbox=InboxRider(("a",)))),
        return_exceptions=True,
    )
    assert [type(result) for result in results[:6]] == [
        type(None),
        NotFound,
        type(None),
        ZeroDivisionError,
        RuntimeError,
        type(None),
    ]
    assert results[6].offset == 1
    assert await toy_items(sql, tenant, "a") == ["1", "2", "3", "4"]


async def test_a_wrong_statement_is_its_callers_own_trouble(
    sql: SqlBus, recorder: Recorder, tenant: str
) -> None:
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        await sql.database.write(lambda db: db.execute("INSERT INTO nowhere VALUES (1)"))
    with pytest.raises(sqlite3.IntegrityError):
        await sql.database.write(lambda db: db.execute("INSERT INTO toy_item VALUES (NULL, '', '')"))
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        await sql.database.read(lambda db: db.execute("SELECT * FROM nowhere"))
    assert (await sql.append(draft(tenant))).offset == 1
    assert recorder.named("status") == []


async def test_works_and_appends_of_a_turn_keep_their_order(sql: SqlBus, tenant: str) -> None:
    def write(ident: str) -> object:
        return sql.database.write(lambda db: put(db, tenant, ident))

    def append(ident: str) -> object:
        return sql.append(draft(tenant, "user:a", id=ident, inbox=InboxRider(("a",))))

    order = [str(n) for n in range(40)]
    await asyncio.gather(*((append if int(n) % 3 else write)(n) for n in order))  # type: ignore[call-overload]
    assert await toy_items(sql, tenant, "a") == order


async def test_a_read_is_a_snapshot_and_cannot_write(sql: SqlBus, tenant: str) -> None:
    with pytest.raises(BusUnavailable):
        await sql.database.read(lambda db: put(db, tenant, "1"))
    assert await toy_items(sql, tenant, "a") == []
    await sql.database.write(lambda db: put(db, tenant, "1"))
    assert await toy_items(sql, tenant, "a") == ["1"]
    with pytest.raises(NotFound):
        await sql.database.read(lambda db: raising(NotFound("none")))


def raising(error: Exception) -> None:
    raise error


async def test_a_closed_bus_has_no_database(sql: SqlBus, tenant: str) -> None:
    await sql.close()
    with pytest.raises(BusUnavailable):
        await sql.database.write(lambda db: put(db, tenant, "1"))
    with pytest.raises(BusUnavailable):
        await sql.database.read(lambda db: db.execute("SELECT 1").fetchone())


@pytest.mark.parametrize("engine", [memory, sqlite])
async def test_schemas_of_any_number_of_parts(engine: object, recorder: Recorder) -> None:
    trigger = SqlPart(
        "CREATE TABLE IF NOT EXISTS one(x TEXT DEFAULT 'a;b'); -- a; comment\n"
        "CREATE TABLE IF NOT EXISTS two(n INTEGER);\n"
        "CREATE TRIGGER IF NOT EXISTS copy AFTER INSERT ON two BEGIN\n"
        "  INSERT INTO one VALUES ('a;b'); INSERT INTO one SELECT x FROM one LIMIT 1;\nEND; -- the end"
    )
    async with engine(parts=(trigger, *TOY_PARTS)) as bus:  # type: ignore[operator]
        await bus.start(recorder)
        await bus.database.write(lambda db: db.execute("INSERT INTO two VALUES (1)").rowcount)
        rows = await bus.database.read(lambda db: db.execute("SELECT x FROM one").fetchall())
        assert rows == [("a;b",), ("a;b",)]


# Scripting


async def test_a_script_is_called_on_both_connections(scripting: RedisBus, tenant: str) -> None:
    port: Scripting = scripting
    for ident in (b"1", bytes(range(256))):
        assert await port.call("toy_add", tenant, b"user:a", ident) == [b"9007199254740992", ident]
    for read in (True, False):
        found = await port.call("toy_items", tenant, b"user:a", read=read)
        assert found == [b"1", bytes(range(256))]
    assert await port.call("toy_items", tenant + "x", b"user:a") == []


async def test_calls_of_a_turn_keep_their_order(scripting: RedisBus, tenant: str) -> None:
    order = [str(n) for n in range(40)]
    await asyncio.gather(*(scripting.call("toy_add", tenant, b"user:a", n.encode()) for n in order))
    assert await toy_items(scripting, tenant, "a") == order


async def test_a_script_that_fails_is_unavailable_and_logged(
    scripting: RedisBus, tenant: str, caplog: pytest.LogCaptureFixture
) -> None:
    await scripting.append(draft(tenant))
    with pytest.raises(BusUnavailable):
        await scripting.call("toy_broken", tenant)
    assert "toy_broken" in caplog.text
    assert (await scripting.append(draft(tenant))).offset == 2
    with pytest.raises(KeyError):
        await scripting.call("no_such_script", tenant)
    assert (await scripting.append(draft(tenant))).offset == 3


@pytest.mark.parametrize("name", ["append", "read", "toy_items"])
async def test_no_two_scripts_of_one_name(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        RedisBus(extensions=(*TOY_EXTENSIONS, Extension(scripts={name: "return 1"})))


async def test_a_script_redis_does_not_take_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with redis(extensions=(Extension(scripts={"garbled": "return return"}),)) as bus:
        await bus.start(Recorder())
        with pytest.raises(BusUnavailable):
            await bus.append(draft("t-garbled"))
    assert "garbled" in caplog.text


async def test_extensions_do_not_see_each_others_names(tenant: str, recorder: Recorder) -> None:
    one = Extension("local call = 1\nlocal top = 2\nRIDERS.inbox = function() return nil, call, top end")
    async with redis(extensions=(one, *TOY_EXTENSIONS)) as bus:
        await bus.start(recorder)
        assert (await bus.append(draft(tenant, "user:a", inbox=InboxRider(("a",)), id="1"))).offset == 1
        assert await toy_items(bus, tenant, "a") == ["1"]


async def test_scripts_are_there_again_after_a_restart_of_redis(tenant: str) -> None:
    with RedisServer(aof="always") as server:
        bus = RedisBus(RedisSettings(url=server.url, probe_every_s=0.5), extensions=TOY_EXTENSIONS)
        recorder = Recorder()
        try:
            await bus.start(recorder)
            await bus.append(draft(tenant, "user:a", inbox=InboxRider(("a",)), id="1"))
            assert await toy_items(bus, tenant, "a") == ["1"]
            server.restart()
            for ident in ("2", "3"):
                assert (await eventually(bus, tenant, ident))[1] == ident.encode()
            assert await toy_items(bus, tenant, "a") == ["1", "2", "3"]
            with_rider = draft(tenant, "user:a", inbox=InboxRider(("a",)), id="4")
            assert not (await bus.append(with_rider)).duplicate
            assert await toy_items(bus, tenant, "a") == ["1", "2", "3", "4"]
            server.command("SCRIPT", "FLUSH")
            assert (await bus.call("toy_add", tenant, b"user:a", b"5"))[1] == b"5"
            assert await toy_items(bus, tenant, "a") == ["1", "2", "3", "4", "5"]
        finally:
            await bus.close()


async def eventually(bus: RedisBus, tenant: str, ident: str) -> list[bytes]:
    """Adds an item, again while Redis is not back yet; a call is refused or done, never both here."""
    async with asyncio.timeout(10):
        while True:
            try:
                reply: list[bytes] = await bus.call("toy_add", tenant, b"user:a", ident.encode())
                return reply
            except BusUnavailable:
                await asyncio.sleep(0.02)


async def test_a_closed_bus_runs_no_script(scripting: RedisBus, tenant: str) -> None:
    await scripting.close()
    with pytest.raises(BusUnavailable):
        await scripting.call("toy_items", tenant, b"user:a")
