"""One tenant floods, the other hardly notices: its 99th percentile, alone and under the flood, printed.

The bound is a share of what the flood's own batches take in the same run, since a busy machine slows both.
Without turns the quiet tenant's publications stand behind everything the loud one has sent, which takes
longer than one of its batches.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from support.fairness import LOUD, Quiet, Seen, token_of, two_tenants
from support.flood import Account, Flood, Order
from support.redis_server import RedisServer
from support.server_process import ServerProcess

pytestmark = pytest.mark.anyio

RATE = 50.0
ALONE, FLOODED = 50, 150
SHARE = 1 / 4
"""Measured: 1/50 alone on a machine, 1/8 beside six others."""
ITEM = '{"to":{"user":"u-%d"},"title":"the flood"}'
"""Kept in inboxes: the most expensive kind of publication."""


@pytest.mark.parametrize("engine", ["sqlite", "redis"])
async def test_the_other_tenants_p99_under_a_flood(engine: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        url = stack.enter_context(RedisServer(tcp=True, aof="everysec")).url if engine == "redis" else ""
        async with (
            ServerProcess(engine, tmp_path, redis_url=url, settings=two_tenants(tmp_path)) as server,
            Quiet(server.port) as quiet,
        ):
            await quiet.measure(rate=RATE, count=10)  # everything has been used once
            alone = await quiet.measure(rate=RATE, count=ALONE)
            order = Order(port=server.port, token=token_of(LOUD, "backend", "publisher"), item=ITEM)
            async with Flood(order) as flood:
                waiting = await server.until_metric("dualcast_publish_waiting", lambda count: count > 10_000)
                under = await quiet.measure(rate=RATE, count=FLOODED)
                account = await flood.stop()
            report(engine, alone, under, account, waiting)
            assert set(account.statuses) == {"200"}
            assert under.p99_ms < account.median_s * 1000 * SHARE
            for arrived in quiet.arrived.values():
                assert [ident for ident, _ in arrived] == quiet.sent, "nothing lost, nothing twice, in order"


def report(engine: str, alone: Seen, under: Seen, account: Account, waiting: float) -> None:
    print(
        f"\n{engine}: alone {alone}\n{engine}: under the flood {under}\n{engine}: the flood "
        f"{account.published / account.seconds:,.0f}/s, {waiting:,.0f} waiting, a batch takes "
        f"{account.median_s:.2f} s (median), {account.slowest_s:.2f} s (longest)"
    )
