"""What one tenant notices of another's flood: the quiet one's latency alone and while the loud one posts
batches over many connections as fast as it is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from benchmarks.contenders import Bench
from benchmarks.dualcast_node import DualcastAlone
from benchmarks.scenarios import WARM_UP_S, Clock, Figures
from support.fairness import LOUD, Quiet, Seen, percentile, token_of, two_tenants
from support.flood import Account, Flood, Order

RATE = 50.0
"""Publications/s of the quiet tenant, each to one user with a stream and a socket."""
ITEM = '{"to":{"user":"bench-%d"},"title":"bench"}'
P99_MS = 250.0
"""The target under the flood."""


class DualcastTwoTenants(DualcastAlone):
    """With a loud tenant and a quiet one."""

    note = "one tenant's publications under another's flood, published by REST through the server under test"

    def __init__(self, bench: Bench, transport: str) -> None:
        super().__init__(bench, transport)
        given: Mapping[str, object] = two_tenants(bench.folder)
        self.settings = {"DUALCAST_" + name.upper().replace(".", "__"): str(v) for name, v in given.items()}


def measure(
    bench: Bench, contender: DualcastTwoTenants, *, connections: int, items: int, seconds: float
) -> Figures:
    """The quiet tenant's latencies in milliseconds, alone and under a flood of `connections` posters of
    batches of `items` notifications that are kept in inboxes.
    """
    order = Order(
        port=contender.port,
        token=token_of(LOUD, "backend", "publisher"),
        item=ITEM,
        connections=connections,
        items=items,
    )

    async def both() -> tuple[Seen, Seen, Account, Figures]:
        count = int(RATE * seconds)
        async with Quiet(contender.port) as quiet:
            await quiet.measure(rate=RATE, count=20)
            alone = await quiet.measure(rate=RATE, count=count)
            async with Flood(order) as flood:
                await asyncio.sleep(WARM_UP_S)
                clock = Clock(bench, contender)
                under = await quiet.measure(rate=RATE, count=count)
                used = clock.elapsed()
                return alone, under, await flood.stop(), used

    alone, under, account, used = asyncio.run(both())
    figures: Figures = {**used, "connections": connections, "items": items}
    for name, seen in (("alone", alone), ("flood", under)):
        figures[f"{name}_answer_p99_ms"] = round(percentile(seen.answered_ms, 0.99), 1)
        for transport, arrived in seen.arrived_ms.items():
            figures[f"{name}_{transport}_p50_ms"] = round(percentile(arrived, 0.5), 1)
            figures[f"{name}_{transport}_p99_ms"] = round(percentile(arrived, 0.99), 1)
    figures["loud_per_s"] = round(account.published / account.seconds)
    figures["loud_batch_ms"] = round(account.median_s * 1000)
    figures["loud_refused"] = sum(count for status, count in account.statuses.items() if status != "200")
    return figures


def line(name: str, figures: Mapping[str, float]) -> str:
    """The sentence of the report."""
    return (
        f"* {name}: a tenant's publication arrives after p50 {figures['alone_ws_p50_ms']:.1f} ms, p99 "
        f"{figures['alone_ws_p99_ms']:.1f} ms over WebSocket (SSE p99 {figures['alone_sse_p99_ms']:.1f} ms) "
        f"alone, and after p50 {figures['flood_ws_p50_ms']:.1f} ms, p99 {figures['flood_ws_p99_ms']:.1f} ms "
        f"(SSE p99 {figures['flood_sse_p99_ms']:.1f} ms) while another tenant posts "
        f"{figures['loud_per_s']:,.0f}/s in batches of {figures['items']:,.0f} over "
        f"{figures['connections']:.0f} connections, each batch answered after "
        f"{figures['loud_batch_ms']:,.0f} ms."
    )
