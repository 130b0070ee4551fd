"""Failover of a Redis that sentinels watch, under load, as a command with any numbers:
`python -m chaos.failover --clients 100 --times 3 --kind kill` in `tests/`.

Replication is asynchronous: what the old master acknowledged last may be missing at the new one. Such
publications are counted, and each of them must have been told as a `gap` to every client that was due it.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from chaos.drill import SETTINGS, Disturbance, Drill, Outcome, Plan, run
from support.accounting import Acknowledged, split
from support.fleet import Client
from support.sentinel_set import SentinelSet
from support.server_process import ServerProcess

KINDS = ("kill", "freeze", "planned")
NODE_SETTINGS = {**SETTINGS, "redis.command_timeout_s": 1.0, "redis.connect_timeout_s": 1.0}


@dataclass(kw_only=True)
class Tally:
    """What became of the acknowledged publications. The last four are faults."""

    acknowledged: int = 0
    received: int = 0
    """Publications that reached every client they were due to."""
    told: int = 0
    """Publications lost in a failover; every client that lacks one was told a gap that holds it."""
    outages_s: list[float] = field(default_factory=list)
    """The longest time without an acknowledgement in each failover."""
    silent: int = 0
    """Copies that are missing without a gap."""
    doubled: int = 0
    """Publications that a client which drops equal ids showed twice."""
    offsets_twice: int = 0
    """Cursors under which different publications came."""
    out_of_order: int = 0
    connections: set[int] = field(default_factory=set)
    """How many a node had open to Redis and sentinels, before and after each failover."""

    @property
    def faults(self) -> int:
        return self.silent + self.doubled + self.offsets_twice + self.out_of_order

    def table(self) -> str:
        names = ("acknowledged", "received", "told", "silent", "doubled", "offsets_twice", "out_of_order")
        words = {
            "received": "received by all",
            "told": "lost, told as gap",
            "silent": "silent losses",
            "doubled": "doubled after id",
            "offsets_twice": "offsets given twice",
        }
        lines = [
            f"  {words.get(name, name.replace('_', ' ')):<22}{getattr(self, name):>10,}" for name in names
        ]
        lines.append("  outages                " + " · ".join(f"{outage:.1f} s" for outage in self.outages_s))
        lines.append(f"  {'connections of a node':<22}{', '.join(map(str, sorted(self.connections))):>10}")
        return "\n".join(lines)


def tally(drill: Drill, found: Tally) -> Tally:
    """Fills `found` from what the clients wrote down."""
    total = drill.account()
    sent = drill.publisher.acknowledged
    lacking: set[str] = set()
    at: dict[str, set[str]] = {}
    for client in drill.fleet.clients:
        got = {arrival.id for arrival in client.arrivals}
        for publication in sent.values():
            if publication.channels & client.channels and publication.id not in got:
                lacking.add(publication.id)
                found.silent += not _told(client, publication)
        for arrival in client.arrivals:
            if arrival.cursor is not None:
                at.setdefault(arrival.cursor, set()).add(arrival.id)
    found.acknowledged = len(sent)
    found.told = len(lacking)
    found.received = len(sent) - len(lacking)
    found.doubled = total.doubled_after_id
    found.offsets_twice = sum(len(ids) > 1 for ids in at.values())
    found.out_of_order = total.out_of_order
    return found


def _told(client: Client, publication: Acknowledged) -> bool:
    """Whether a gap of one of its channels holds the publication."""
    _, offset = split(publication.cursor)
    for gap in client.named("gap"):
        after = split(gap["after"])[1] if gap.get("after") else -1
        oldest = split(gap["oldest"])[1] if gap.get("oldest") else None
        if gap["channel"] in publication.channels and after < offset and (oldest is None or offset < oldest):
            return True
    return False


def failovers(
    nodes: Sequence[ServerProcess], servers: SentinelSet, kind: str, times: int, found: Tally, back: bool
) -> Disturbance:
    """`times` failovers; if `back`, the old master comes back as a replica after each."""

    async def count() -> None:
        for node in nodes:
            found.connections.add(int(await node.metric("dualcast_bus_connections")))

    async def disturb(drill: Drill) -> None:
        for turn in range(times):
            await drill.published()
            if not turn:
                await count()
            old = await asyncio.to_thread(servers.master)
            begin = time.monotonic()
            if kind == "planned":
                await asyncio.to_thread(servers.fail_over)
            else:
                await drill.struck(old.kill if kind == "kill" else old.freeze)
                await drill.refused()
                await asyncio.to_thread(servers.replaced, old)
            first = await drill.publisher.publish("all")
            await drill.fleet.all_have(first.id)
            await drill.published()
            times_s = [one.at for one in drill.publisher.acknowledged.values() if one.at > begin]
            found.outages_s.append(
                max(after - before for before, after in pairwise([begin, *sorted(times_s)]))
            )
            await count()
            if not back:
                continue
            if kind == "kill":
                await asyncio.to_thread(old.start)
            elif kind == "freeze":
                old.thaw()
            await asyncio.to_thread(servers.settled)

    return disturb


async def failover_drill(
    folder: Path, servers: SentinelSet, plan: Plan, kind: str, times: int, *, back: bool = True
) -> tuple[Tally, Outcome]:
    """Two nodes over `servers`, clients of both transports on each."""
    found = Tally()
    folders = [folder / "a", folder / "b"]
    for one in folders:
        one.mkdir()
    nodes = [ServerProcess("redis", one, settings={**NODE_SETTINGS, **servers.settings}) for one in folders]
    async with nodes[0], nodes[1]:
        outcome = await run(nodes, plan, failovers(nodes, servers, kind, times, found, back))
    return tally(outcome.drill, found), outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=KINDS, default="kill")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--rate", type=float, default=200.0, help="publications a second")
    given = parser.parse_args()
    plan = Plan(clients=given.clients, users=max(1, given.clients // 8), publications=200, rate=given.rate)
    with tempfile.TemporaryDirectory() as folder, SentinelSet(aof="everysec", replicas=2) as servers:
        found, outcome = asyncio.run(failover_drill(Path(folder), servers, plan, given.kind, given.times))
    print(f"\n{given.times} failovers ({given.kind}), two nodes, {given.clients} clients\n{found.table()}")
    print(f"  {outcome.seconds:.1f} s")
    raise SystemExit(bool(found.faults))


if __name__ == "__main__":
    main()
