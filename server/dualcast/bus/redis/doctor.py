"""What `doctor` wants to know about a Redis."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

FULL = 0.9
"""Of maxmemory."""


class Check(NamedTuple):
    """One finding; `detail` says what was found and what to do."""

    name: str
    ok: bool
    detail: str


async def inspect(client: Redis, *, replicated: bool = False) -> list[Check]:
    """The checks, in a fixed order; an unreachable server is one failed check. `replicated`: one of its
    replicas is to take over one day. Never raises for Redis's sake.
    """
    try:
        began = time.perf_counter()
        for _ in range(5):
            await client.ping()
        latency_ms = (time.perf_counter() - began) * 200
        info: dict[str, Any] = await client.info()
    except (RedisError, OSError, TimeoutError):
        return [Check("reachable", False, "Redis does not answer: check the address, password and TLS")]
    try:
        config: dict[Any, Any] = await client.config_get(
            "appendfsync", "client-output-buffer-limit", "min-replicas-to-write"
        )
    except RedisError:
        config = {}  # managed services hide CONFIG
    found = [
        Check("reachable", True, "Redis answers"),
        _version(str(info.get("redis_version", "0"))),
        _aof(info, str(config.get("appendfsync", "unknown"))),
        _policy(info),
        _buffer(str(config.get("client-output-buffer-limit", ""))),
        Check("latency", latency_ms < 20, f"a command takes {latency_ms:.2f} ms"),
    ]
    if limit := int(info.get("maxmemory") or 0):
        found.append(_memory(int(info.get("used_memory") or 0), limit))
    if info.get("cluster_enabled"):
        found.append(
            Check("topology", False, "Redis Cluster is not supported: use one master, with Sentinel")
        )
    if replicated:
        found.append(_replicas(info, int(config.get("min-replicas-to-write") or 0)))
    if info.get("role") != "master":
        found.append(Check("role", False, "this is a replica: writes will be refused"))
    return found


def _version(text: str) -> Check:
    numbers = tuple(int(number) for number in text.split(".")[:2] if number.isdigit())
    return Check("version", numbers >= (6, 2), f"Redis {text}; 6.2 is needed, 7.0 or later is recommended")


def _aof(info: dict[str, Any], fsync: str) -> Check:
    if not info.get("aof_enabled"):
        return Check(
            "aof", False, "set 'appendonly yes': without it a restart loses acknowledged publications"
        )
    if info.get("aof_last_write_status") != "ok":
        return Check("aof", False, "the last write to the append-only file failed")
    if fsync == "no":
        return Check("aof", False, "set 'appendfsync everysec' (loses at most a second) or 'always'")
    return Check("aof", True, f"append-only file on, appendfsync {fsync}")


def _policy(info: dict[str, Any]) -> Check:
    policy = info.get("maxmemory_policy", "noeviction")
    limited = bool(info.get("maxmemory"))
    return Check(
        "eviction",
        policy == "noeviction" or not limited,
        f"maxmemory-policy {policy}"
        + ("" if policy == "noeviction" else ": set 'noeviction', history would vanish"),
    )


def _memory(used: int, limit: int) -> Check:
    share = used / limit
    advice = "" if share < FULL else ": give it room, a full Redis refuses every publication"
    return Check("memory", not advice, f"{share:.0%} of maxmemory used{advice}")


def _replicas(info: dict[str, Any], wanted: int) -> Check:
    count = int(info.get("connected_slaves", 0))
    if not count:
        return Check("replicas", False, "no replica is connected: nothing could take over")
    advice = "" if wanted else ": set 'min-replicas-to-write 1', a master that is cut off goes on alone"
    return Check("replicas", bool(wanted), f"{count} connected, min-replicas-to-write {wanted}{advice}")


def _buffer(limits: str) -> Check:
    words = limits.split()
    hard = int(words[words.index("pubsub") + 1]) if "pubsub" in words else -1
    detail = "unknown" if hard < 0 else "unlimited" if hard == 0 else f"{hard // 1_048_576} MiB"
    return Check(
        "pubsub-buffer",
        hard <= 0 or hard >= 32 * 1_048_576,
        f"client-output-buffer-limit pubsub {detail}; below 32 MiB bursts drop the subscriber",
    )
