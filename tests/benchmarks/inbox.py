"""Inboxes: what storing adds to a publish, and that reading costs by the page, not by the inbox."""

from __future__ import annotations

import asyncio
import json
import os
import urllib.request
from collections.abc import Sequence
from urllib.parse import quote

from benchmarks.contenders import Bench
from benchmarks.dualcast_node import DualcastAlone, token
from benchmarks.processes import BenchmarkFailed
from benchmarks.scenarios import Clock, Figures, publish_all

TURNS = 4
"""Windows of each kind, taking turns: what drifts hits both."""
CONNECTIONS = 4
PAGE = 50
WIDE_ITEMS = 20
"""Tenant-wide notifications that every inbox shows beside its own."""
FILL_ITEMS = 500


def publish(bench: Bench, contender: DualcastAlone, *, batched: bool, seconds: float) -> Figures:
    """Notifications to 1,000 single users, with and without storing, as fast as the server answers."""
    users = ["--targets", "1000", "--stream", "1"]
    connections = 8 if batched else 32
    used = {store: [0.0, 0.0, 0.0] for store in (False, True)}

    def window(store: bool, length: float) -> tuple[int, Figures]:
        arguments = contender.notifications(batched=batched, store=store) + users
        clock = Clock(bench, contender)
        sent = publish_all(bench, contender.closed_loop(arguments, connections=connections, seconds=length))
        return sent["published"], clock.elapsed()

    for store in (False, True):
        window(store, 0.5)
    for _ in range(TURNS):
        for store in (False, True):
            published, spent = window(store, seconds / 2)
            for index, value in enumerate((published, spent["server_cpu_s"], spent["redis_cpu_s"])):
                used[store][index] += value
    figures: Figures = {}
    for store, name in ((False, "plain"), (True, "stored")):
        published, server, redis = used[store]
        figures[f"{name}_server_us"] = round(server / published * 1e6, 1)
        figures[f"{name}_redis_us"] = round(redis / published * 1e6, 1)
    figures["added"] = round(figures["stored_server_us"] / figures["plain_server_us"] - 1, 3)
    return figures


def read(bench: Bench, contender: DualcastAlone, *, sizes: Sequence[int], seconds: float) -> Figures:
    """CPU of one page of 50 and of the counters, for a user with each of `sizes` items."""
    for size in sizes:
        _fill(contender, {"user": f"inbox-{size}"}, size)
    _fill(contender, {"all": True}, WIDE_ITEMS)
    figures: Figures = {}
    calls = {"list": f"notifications?limit={PAGE}", "count": "unread-count"}
    spent: dict[tuple[str, int], list[float]] = {}
    affinity = os.sched_getaffinity(0)
    os.sched_setaffinity(0, bench.load_cpus)  # the requests below are made in this process
    try:
        for turn in range(TURNS):
            for name, path in calls.items():
                for size in sizes:
                    clock = Clock(bench, contender)
                    length = seconds / TURNS if turn else 0.3
                    done = asyncio.run(_calls(contender.port, f"inbox-{size}", path, length))
                    used = clock.elapsed()
                    if turn:  # the first is for warming up
                        sums = spent.setdefault((name, size), [0, 0, 0])
                        for index, value in enumerate((done, used["server_cpu_s"], used["redis_cpu_s"])):
                            sums[index] += value
    finally:
        os.sched_setaffinity(0, affinity)
    for (name, size), (done, server, redis) in spent.items():
        figures[f"{name}_{size}_server_us"] = round(server / done * 1e6, 1)
        figures[f"{name}_{size}_redis_us"] = round(redis / done * 1e6, 1)
    for name in calls:
        least, most = (
            figures[f"{name}_{size}_server_us"] + figures[f"{name}_{size}_redis_us"]
            for size in (min(sizes), max(sizes))
        )
        figures[f"{name}_ratio"] = round(most / least, 2)
    return figures


def _fill(contender: DualcastAlone, to: dict[str, object], count: int) -> None:
    """Stores `count` notifications. Raises BenchmarkFailed when one is refused."""
    for start in range(0, count, FILL_ITEMS):
        items = [
            {"to": to, "title": f"notification {number}", "content": "x" * 80, "store": True}
            for number in range(start, min(count, start + FILL_ITEMS))
        ]
        request = urllib.request.Request(
            f"http://127.0.0.1:{contender.port}/v1/notifications/batch",
            data=json.dumps(items).encode(),
            headers={
                "Authorization": f"Bearer {contender.publisher_token}",
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            failed = json.load(response)["failed"]
        if failed:
            raise BenchmarkFailed(f"{failed} notifications were not stored")


async def _calls(port: int, user: str, path: str, seconds: float) -> int:
    """GETs of `/v1/users/{user}/{path}` over keep-alive connections; how many were answered with 200."""
    head = f"GET /v1/users/{quote(user)}/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    request = f"{head}Authorization: Bearer {token(user)}\r\n\r\n".encode()
    end = asyncio.get_running_loop().time() + seconds

    async def one() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        done = 0
        try:
            while asyncio.get_running_loop().time() < end:
                writer.write(request)
                lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
                lengths = [line[15:] for line in lines if line.lower().startswith(b"content-length:")]
                body = await reader.readexactly(int(lengths[0]))
                if b" 200 " not in lines[0]:
                    raise BenchmarkFailed(f"{path}: {lines[0]!r} {body[:300]!r}")
                done += 1
        finally:
            writer.close()
        return done

    return sum(await asyncio.gather(*(one() for _ in range(CONNECTIONS))))
