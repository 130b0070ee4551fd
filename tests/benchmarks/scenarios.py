"""What is measured. Each function runs one cell: it starts what it needs, measures, and returns plain
figures.

CPU figures are those of the server under test alone, between two marks inside the steady state. Loss is
counted over the whole run: publications acknowledged x subscribers, against what the subscribers counted.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks import machine
from benchmarks.contenders import Bench, Contender
from benchmarks.dualcast_node import DualcastAlone
from benchmarks.load import Fan, Publisher

Figures = dict[str, Any]

WARM_UP_S = 1.0
TAIL_S = 0.4
"""The publishers go on for this long after the second mark, so that it falls into the steady state."""
DRAIN_S = 4.0
"""How long what is still under way may take when publishing has ended."""


class Clock:
    """CPU seconds of server, Redis and the load CPUs since it was made."""

    def __init__(self, bench: Bench, contender: Contender) -> None:
        self._bench, self._pid = bench, contender.server.pid
        self._start = self._read()

    def _read(self) -> tuple[float, float, float, float, int]:
        return (
            time.monotonic(),
            machine.cpu_seconds(self._pid),
            machine.cpu_seconds(self._bench.redis.pid),
            machine.busy_seconds(self._bench.load_cpus),
            machine.writes(self._pid),
        )

    def elapsed(self) -> Figures:
        wall, server, redis, load, writes = (
            now - then for now, then in zip(self._read(), self._start, strict=True)
        )
        return {
            "seconds": round(wall, 3),
            "server_cpu_s": round(server, 3),
            "redis_cpu_s": round(redis, 3),
            "server_busy": round(server / wall, 3),
            "load_busy": round(load / wall / len(self._bench.load_cpus), 3),
            "writes": writes,
        }


def fan_out(
    bench: Bench, contender: Contender, *, subscribers: int, rate: float, user_rate: float, seconds: float
) -> Figures:
    """`rate` publications/s to all `subscribers` and, beside it, `user_rate` to single users in turn."""
    total_s = WARM_UP_S + seconds + TAIL_S
    fan = Fan(bench.folder, contender.fan_arguments(subscribers), bench.load_cpus)
    publishers: list[Publisher] = []
    try:
        fan.opened()
        contender.wait_subscribed(subscribers)
        connections = bench.redis.connections()
        for each, targets in ((rate, 0), (user_rate, subscribers)):
            if each:
                arguments = contender.publish_arguments(rate=each, seconds=total_s, targets=targets)
                publishers.append(Publisher(bench.folder, arguments, bench.load_cpus))
        time.sleep(WARM_UP_S)
        first, clock = fan.mark(), Clock(bench, contender)
        time.sleep(seconds)
        second, used = fan.mark(), clock.elapsed()
        sent = [publisher.result(total_s + 20) for publisher in publishers]
        expected = sent[0]["published"] * subscribers + (sent[1]["published"] if user_rate else 0)
        end = _drained(fan, expected)
    finally:
        fan.stop()
        for publisher in publishers:
            publisher.stop()
    delivered = second["received"] - first["received"]
    # Still arriving when patience ended: late, not lost.
    missing = expected - _different(end)
    behind = missing if end["arriving"] else 0
    return {
        **used,
        "deliveries_per_cpu_s": round(delivered / used["server_cpu_s"]) if used["server_cpu_s"] else 0,
        "deliveries_per_s": round(delivered / second["seconds"]),
        "p50_ms": second["p50_ms"],
        "p99_ms": second["p99_ms"],
        "max_ms": second["max_ms"],
        "expected": expected,
        "received": end["received"],
        "behind": behind,
        "lost": missing - behind,
        "gaps": end["gaps"],
        "repeated": end["backward"],
        "disconnected": end["closed"],
        "bytes_per_delivery": round((second["bytes"] - first["bytes"]) / delivered) if delivered else 0,
        "subscribers_cpu_s": round(second["cpu_s"] - first["cpu_s"], 3),
        "publisher_late_ms": max(one["late_max_ms"] for one in sent),
        "redis_connections": connections,
    }


def _different(mark: Figures) -> int:
    """Messages received without repetitions (one that comes late, out of order, counts as a repetition)."""
    return int(mark["received"] - mark["backward"])


def _drained(fan: Fan, expected: int) -> Figures:
    """The counters when all `expected` messages are there, or when patience ends; `arriving`: more was
    coming.
    """
    end = time.monotonic() + DRAIN_S
    last = fan.mark()
    arriving = False
    while _different(last) < expected and time.monotonic() < end:
        time.sleep(0.25)
        now = fan.mark()
        arriving = now["received"] > last["received"]
        last = now
    return {**last, "arriving": arriving}


def connect(bench: Bench, contender: Contender, *, connections: int, churn_s: float) -> Figures:
    """A storm of `connections` handshakes on a warm server, what each then costs in memory, and
    connect-close churn.
    """
    _warm_up(bench, contender)
    empty = machine.rss_bytes(contender.server.pid)
    clock = Clock(bench, contender)
    fan = Fan(bench.folder, contender.fan_arguments(connections), bench.load_cpus)
    try:
        opened, used = fan.opened(120), clock.elapsed()
        contender.wait_subscribed(connections)
        time.sleep(1)
        full = machine.rss_bytes(contender.server.pid)
        redis_connections = bench.redis.connections()
        after = fan.mark()
    finally:
        fan.stop()
    figures = {
        **used,
        "connections": connections,
        "handshakes_per_cpu_s": round(connections / used["server_cpu_s"]) if used["server_cpu_s"] else 0,
        "handshakes_per_s": round(connections / opened["seconds"]),
        "handshake_p99_ms": opened["handshake_p99_ms"],
        "rss_per_connection": round((full - empty) / connections),
        "disconnected": after["closed"],
        "redis_connections": redis_connections,
    }
    if churn_s:
        figures["churn_per_cpu_s"] = _churn(bench, contender, churn_s)
    return figures


def _warm_up(bench: Bench, contender: Contender, connections: int = 50) -> None:
    """Opens and closes a few connections: lazily imported code and first buffers are not a connection's
    cost.
    """
    fan = Fan(bench.folder, contender.fan_arguments(connections), bench.load_cpus)
    try:
        fan.opened()
        contender.wait_subscribed(connections)
    finally:
        fan.stop()
    time.sleep(0.3)


def _churn(bench: Bench, contender: Contender, seconds: float) -> int:
    """Handshakes per server CPU-second when every connection is closed as soon as it is open."""
    time.sleep(0.5)  # the connections of the storm are going
    fan = Fan(bench.folder, [*contender.fan_arguments(1_000), "--churn", "--opening", "64"], bench.load_cpus)
    try:
        time.sleep(0.3)
        first, clock = fan.mark(), Clock(bench, contender)
        time.sleep(seconds)
        second, used = fan.mark(), clock.elapsed()
    finally:
        fan.stop()
    done = second["opened"] - first["opened"]
    return round(done / used["server_cpu_s"]) if used["server_cpu_s"] else 0


def redis_connections(bench: Bench, contender: Contender, *, few: int, many: int) -> Figures:
    """Redis client connections with `few` and with `many` subscribers, and when they are gone."""
    found: Figures = {"few": few, "many": many}
    for label, count in (("at_few", few), ("at_many", many)):
        fan = Fan(bench.folder, contender.fan_arguments(count), bench.load_cpus)
        try:
            fan.opened(120)
            contender.wait_subscribed(count)
            found[label] = bench.redis.connections()
        finally:
            fan.stop()
    time.sleep(1)
    found["after"] = bench.redis.connections()
    return found


def rest_publish(bench: Bench, contender: DualcastAlone, *, batched: bool, seconds: float) -> Figures:
    """Publications per server CPU-second over REST into Redis, to 1,000 single users nobody listens to."""
    users = ["--targets", "1000", "--stream", "1"]
    arguments = (contender.batch(1_000) if batched else contender.single(1_000)) + users
    warm = contender.closed_loop(arguments, connections=4, seconds=0.5)
    publish_all(bench, warm)
    clock = Clock(bench, contender)
    sent = publish_all(
        bench, contender.closed_loop(arguments, connections=8 if batched else 32, seconds=seconds)
    )
    used = clock.elapsed()
    return {
        **used,
        "published": sent["published"],
        "published_per_s": round(sent["rate"]),
        "published_per_cpu_s": round(sent["published"] / used["server_cpu_s"]),
        "redis_us_per_publication": round(used["redis_cpu_s"] / sent["published"] * 1e6, 1),
        "request_p50_ms": sent["request_p50_ms"],
        "request_p99_ms": sent["request_p99_ms"],
    }


def recovery(bench: Bench, contender: DualcastAlone, *, clients: int, missed: int, own: bool) -> Figures:
    """`clients` come back at once, each with a cursor `missed` publications old: to `all`, or each to its
    `own` user.

    Nobody was subscribed before, so nothing is in the node's memory: everything is read from Redis.
    """
    contender.cursor = contender.publish_one()
    if own:
        users = ["--targets", str(clients), "--stream", "1"]
        many = contender.batch(clients) + users
        sent = publish_all(
            bench, contender.closed_loop(many, connections=4, seconds=120, count=clients * missed)
        )
        expected = sent["published"]
    else:
        one = contender.closed_loop(contender.single(0), connections=1, seconds=30, count=missed)
        expected = publish_all(bench, one)["published"] * clients
    clock = Clock(bench, contender)
    fan = Fan(bench.folder, [*contender.fan_arguments(clients), "--expect", str(missed)], bench.load_cpus)
    try:
        opened = fan.event("open", 60)
        done = fan.event("caught_up", 30)
        used, end = clock.elapsed(), fan.mark()
    finally:
        fan.stop()
    return {
        **used,
        "clients": clients,
        "missed": missed,
        "caught_up_s": done["seconds"] if done else None,
        "open_s": opened["seconds"] if opened else None,
        "expected": expected,
        "received": end["received"],
        "lost": expected - _different(end),
        "gaps": end["gaps"],
        "repeated": end["backward"],
        "disconnected": end["closed"],
    }


def publish_all(bench: Bench, arguments: list[str]) -> Figures:
    """Runs a publisher to its end; its figures."""
    publisher = Publisher(bench.folder, arguments, bench.load_cpus)
    try:
        return publisher.result(150)
    finally:
        publisher.stop()
