"""The node's side of evidence: what counts, what one user can do, what is dropped, how the store is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from dualcast.model.codes import Close
from dualcast.model.errors import BusUnavailable, DualcastError, Forbidden, RateLimited
from dualcast.telemetry.counters import Counters
from dualcast_migration.census import MAX_ROWS, Row, Visitor
from dualcast_migration.evidence.port import Batch, EvidenceSettings
from dualcast_migration.evidence.recorder import Recorder
from dualcast_migration.figures import lag
from dualcast_migration.sketch import mark

pytestmark = pytest.mark.anyio


@dataclass
class Store:
    """Takes batches, or fails."""

    taken: list[tuple[str, Batch]] = field(default_factory=list)
    away: bool = False
    lose_replies: bool = False

    async def record(self, tenant: str, batch: Batch) -> None:
        if not self.away:
            self.taken.append((tenant, batch))
        if self.away or self.lose_replies:
            raise BusUnavailable("away")

    def sums(self, tenant: str = "t") -> dict[str, int]:
        """Of different batches."""
        found: dict[str, int] = {}
        for batch in {batch.ident: batch for name, batch in self.taken if name == tenant}.values():
            for name, count in batch.figures.items():
                found[name] = found.get(name, 0) + count
        return found


class Rig:
    def __init__(self, **settings: Any) -> None:
        self.store, self.counters, self.now = Store(), Counters(), 1_000.0
        self.draining = False
        self.recorder = Recorder(
            self.store,  # type: ignore[arg-type]
            self.counters,
            EvidenceSettings(**settings),
            node="n1",
            draining=lambda: self.draining,
            monotonic=lambda: self.now,
        )

    def open(self, user: str = "alice", transport: str = "ws", dialect: str = "native", **fields: Any) -> Any:
        session = SimpleNamespace(
            principal=SimpleNamespace(tenant=fields.pop("tenant", "t"), sub=user),
            encoding=SimpleNamespace(transport=transport),
            dialect=SimpleNamespace(name=dialect),
            instance=fields.pop("instance", ""),
            visitor=fields.pop("visitor", None),
            ended=0,
            said_close=False,
        )
        assert not fields
        self.recorder.opened(session)
        return session

    def close(self, session: Any, ended: int = 0, age_s: float = 60.0, *, said: bool | None = None) -> None:
        session.ended, session.said_close = ended, bool(ended) if said is None else said
        self.recorder.closed(session, age_s)

    async def flush(self, seconds: float = 1.0) -> None:
        self.now += seconds
        await self.recorder.flush()

    def rows(self) -> dict[Row, int]:
        found: dict[Row, int] = {}
        for _, batch in self.store.taken:
            for change in batch.rows:
                found[change.row] = found.get(change.row, 0) + change.connects
        return found

    def live(self) -> dict[Row, int]:
        """The last report."""
        reports = [batch.live for _, batch in self.store.taken if batch.live is not None]
        return dict(reports[-1]) if reports else {}


async def test_opens_and_ends_are_counted() -> None:
    rig = Rig()
    for n in range(3):
        rig.open(f"u{n}", visitor=Visitor(resumed=n == 0))
    rig.open("x", "sse")
    for n, (ended, said) in enumerate([(1000, True), (0, False), (Close.STALE, True), (0, True)]):
        rig.close(rig.open(f"c{n}"), ended, said=said)
    rig.close(rig.open("gone"), age_s=1.0)
    rig.close(rig.open("s", "sse"))
    await rig.flush()
    assert rig.store.sums() == {
        "ws_opened": 8,
        "ws_reconnects": 1,
        "sse_opened": 2,
        "sse_closed": 1,
        "ws_closed": 5,
        "ws_abnormal": 3,
        "ws_short": 1,
    }
    (_, batch) = rig.store.taken[0]
    assert len(batch.marks) == 8


@pytest.mark.parametrize(
    ("code", "abnormal"),
    [
        (1000, False),
        (1001, False),
        (1005, False),
        (3000, False),
        (Close.DRAIN, False),
        (Close.REPLACED, False),
        (Close.STAGE, False),
        (Close.TOKEN_EXPIRED, False),
        (1002, True),
        (1007, True),
        (1011, True),
        (Close.LAGGING, True),
        (Close.INTERNAL, True),
    ],
)
async def test_codes_say_how_it_ended(code: int, abnormal: bool) -> None:
    rig = Rig()
    rig.close(rig.open(), code)
    await rig.flush()
    assert rig.store.sums().get("ws_abnormal", 0) == abnormal


async def test_sockets_lost_with_a_draining_node_say_nothing() -> None:
    rig = Rig()
    session = rig.open()
    rig.draining = True
    rig.close(session, age_s=1.0)
    await rig.flush()
    assert rig.store.sums() == {"ws_opened": 1, "ws_closed": 1}


async def test_only_dialects_with_a_twin_count_but_all_are_in_the_census() -> None:
    rig = Rig()
    rig.close(rig.open(dialect="rooms"))
    rig.open(dialect="notifications")
    await rig.flush()
    assert rig.store.sums() == {"ws_opened": 1}
    assert rig.rows() == {Row("ws", "rooms"): 1, Row("ws", "notifications"): 1}


async def test_refusals_count_where_the_server_is_to_blame() -> None:
    rig = Rig()
    errors: list[DualcastError] = [
        RateLimited("too many"),
        Forbidden("no"),
        BusUnavailable("away"),
    ]
    for error in errors:
        rig.recorder.refused("t", "alice", "ws", error)
        rig.recorder.refused("t", "alice", "sse", error)
    await rig.flush()
    assert rig.store.sums() == {"ws_refused": 1}


async def test_falling_back_counts_unless_it_was_chosen() -> None:
    rig = Rig()
    for reason in ("timeout", "whatever a client says", "stage", "chosen", ""):
        rig.recorder.fell_back("t", "alice", reason)
    await rig.flush()
    assert rig.store.sums() == {"ws_fell_back": 2}


async def test_one_client_in_a_loop_moves_nobody() -> None:
    rig = Rig(max_troubles_per_user=3)
    for _ in range(1_000):
        rig.recorder.fell_back("t", "mallory", "timeout")
    rig.recorder.fell_back("t", "alice", "timeout")
    await rig.flush()
    assert rig.store.sums() == {"ws_fell_back": 4}
    assert rig.recorder.gauges()["evidence_not_counted"] == 997
    await rig.flush(60)
    rig.recorder.fell_back("t", "mallory", "timeout")
    await rig.flush()
    assert rig.store.sums() == {"ws_fell_back": 5}


async def test_a_user_who_fails_may_still_be_well() -> None:
    rig = Rig(max_troubles_per_user=1, max_opens_per_user=4)
    for _ in range(6):
        rig.close(rig.open(visitor=Visitor(resumed=True)))
    await rig.flush()
    sums = rig.store.sums()
    assert (sums["ws_opened"], sums["ws_reconnects"], sums["ws_closed"], sums["ws_abnormal"]) == (4, 4, 1, 1)


async def test_users_in_trouble_are_told_apart_from_those_who_are_well() -> None:
    rig = Rig()
    rig.recorder.fell_back("t", "no-socket", "timeout")
    rig.close(rig.open("torn"), 0, said=False)
    rig.close(rig.open("well"), 1000)
    rig.open("back-once", visitor=Visitor(resumed=True))
    for _ in range(3):
        rig.open("back-again", visitor=Visitor(resumed=True))
    await rig.flush()
    (_, batch) = rig.store.taken[0]
    assert set(batch.troubled) == {mark("t", user) for user in ("no-socket", "torn", "back-again")}
    assert rig.recorder.gauges()["evidence_not_counted"] == 0


async def test_connections_of_one_kind_share_their_row() -> None:
    rig = Rig()
    sessions = [rig.open(f"u{n}", visitor=Visitor(app="1.0")) for n in range(3)]
    assert len({id(session.visitor) for session in sessions}) == 1


async def test_only_native_clients_name_an_instance() -> None:
    rig = Rig()
    rig.open(dialect="notifications", instance="client-7")
    await rig.flush()
    assert rig.rows() == {Row("ws", "notifications"): 1}


async def test_live_connections_are_reported_now_and_then_and_at_the_end() -> None:
    rig = Rig(live_s=10)
    chrome = Visitor("Chrome 130", "1.0", "https://a.example")
    row = Row("ws", "native", "Chrome 130", "1.0", "https://a.example", True)
    one = rig.open(visitor=chrome, instance="i1")
    two = rig.open(visitor=chrome, instance="i2")
    await rig.flush()
    assert rig.live() == {row: 2}
    rig.close(one, 1000)
    await rig.flush(1)
    assert rig.live() == {row: 2}
    await rig.flush(10)
    assert rig.live() == {row: 1}
    rig.close(two, 1000)
    rig.open()
    await rig.recorder.close()
    assert rig.live() == {}


async def test_a_tenant_without_anybody_left_is_forgotten() -> None:
    rig = Rig(live_s=10)
    rig.close(rig.open(), 1000)
    for _ in range(3):
        await rig.flush(11)
    assert rig.recorder.gauges()["evidence_tenants"] == 0


async def test_reports_of_one_user_do_not_push_out_what_the_server_found() -> None:
    rig = Rig(max_kept_per_hour=2)
    for _minute in range(5):
        for _ in range(4):
            rig.recorder.mismatch("t", b"lie", "liar")
        rig.now += 60
    rig.recorder.mismatch("t", b"theirs", "honest")
    for _ in range(9):
        rig.recorder.mismatch("t", b"found")
    await rig.flush()
    assert rig.store.taken[0][1].mismatches == (b"lie", b"lie", b"theirs", *[b"found"] * 9)
    rig.now += 3_600
    rig.recorder.mismatch("t", b"later", "liar")
    await rig.flush()
    assert rig.store.taken[-1][1].mismatches == (b"later",)


async def test_one_user_cannot_fill_a_nodes_kinds_between_two_batches() -> None:
    rig = Rig(max_kinds_per_user=4)
    sessions = [rig.open("liar", visitor=Visitor(app=str(n))) for n in range(50)]
    rig.open("liar", visitor=Visitor(app="0"))  # known kinds go on
    rig.open("honest", visitor=Visitor(app="7.2"))
    await rig.flush()
    (_, batch) = rig.store.taken[0]
    counts = {change.row: change.connects for change in batch.rows}
    assert counts.pop(Row("ws", "other")) == 46 and counts.pop(Row("ws", "native", app="7.2")) == 1
    assert counts == {Row("ws", "native", app=str(n)): 1 + (n == 0) for n in range(4)}
    for session in sessions:
        rig.close(session)
    rig.now += 60
    await rig.flush()
    assert rig.store.taken[-1][1].live == {
        Row("ws", "native", app="0"): 1,
        Row("ws", "native", app="7.2"): 1,
    }


async def test_too_many_kinds_are_counted_as_the_rest() -> None:
    rig = Rig()
    sessions = [rig.open(f"u{n}", visitor=Visitor(app=str(n))) for n in range(MAX_ROWS + 3)]
    await rig.flush()
    rows = rig.rows()
    assert len(rows) == MAX_ROWS + 1 and rows[Row("ws", "other")] == 3
    assert rig.live()[Row("ws", "other")] == 3
    for session in sessions:
        rig.close(session, 1000)
    await rig.flush(11)
    assert rig.live() == {}


async def test_what_the_store_did_not_take_is_told_again_under_the_same_name() -> None:
    rig = Rig()
    rig.open("a")
    rig.store.lose_replies = True
    await rig.flush()
    await rig.flush()
    rig.open("b")
    rig.store.lose_replies = False
    await rig.flush()
    await rig.flush()
    idents = [batch.ident for _, batch in rig.store.taken]
    assert len(idents) == 4 and len(set(idents)) == 2
    assert rig.store.sums() == {"ws_opened": 2}
    assert rig.recorder.dropped == 0 and rig.recorder.failures == 2


async def test_evidence_that_grew_old_is_dropped_and_counted() -> None:
    """Told when the store is back, it would look as if everything happened at once."""
    rig = Rig(lease_s=30)
    rig.store.away = True
    for n in range(5):
        rig.open(f"u{n}")
    for _ in range(4):
        await rig.flush(15)
    rig.store.away = False
    await rig.flush(15)
    assert rig.store.sums() == {}
    assert rig.recorder.dropped == 10  # opens, and connects of the census


async def test_tenants_beyond_the_bound_are_dropped_and_counted() -> None:
    rig = Rig(max_tenants=2)
    sessions = [rig.open(tenant=f"t{n}") for n in range(4)]
    assert rig.recorder.dropped == 2
    for session in sessions:
        rig.close(session, 1000)
    await rig.flush()
    assert {tenant for tenant, _ in rig.store.taken} == {"t0", "t1"}


async def test_mismatches_are_bounded() -> None:
    rig = Rig(max_waiting_mismatches=3)
    for n in range(5):
        rig.recorder.mismatch("t", b"%d" % n)
    rig.recorder.mismatch("u", b"x" * 5_000)
    rig.recorder.compared("t", 7, 5)
    await rig.flush()
    (_, batch) = rig.store.taken[0]
    assert batch.mismatches == (b"0", b"1", b"2") and rig.recorder.dropped == 3
    assert rig.store.sums() == {"compared": 7, "mismatched": 5}


async def test_the_lag_comes_from_telemetry_once() -> None:
    rig = Rig()
    delivery = rig.counters.delivery("t", "ws")
    delivery.latency_buckets[3] += 5
    await rig.flush()
    delivery.latency_buckets[3] += 2
    rig.counters.delivery("t", "sse").latency_buckets[-1] += 1
    rig.counters.delivery("_refused", "ws").latency_buckets[0] += 1
    await rig.flush()
    await rig.flush()
    assert rig.store.sums() == {lag("ws", 3): 7, lag("sse", 14): 1}
    assert {tenant for tenant, _ in rig.store.taken} == {"t"}


async def test_only_trouble_makes_a_suspect() -> None:
    rig = Rig()
    rig.close(rig.open(), 1000)
    rig.counters.delivery("t", "ws").latency_buckets[2] += 5
    rig.recorder.fell_back("bad", "alice", "timeout")
    rig.counters.delivery("slow", "ws").latency_buckets[-2] += 5
    await rig.flush()
    assert set(rig.recorder.active) == {"t", "bad", "slow"}
    assert set(rig.recorder.suspects) == {"bad", "slow"}
    await rig.flush(4_000)
    assert not rig.recorder.active and not rig.recorder.suspects
