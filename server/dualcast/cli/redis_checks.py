"""What `doctor` asks of Redis: the engine's own checks, and the clock."""

from __future__ import annotations

import time
from typing import NamedTuple

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from dualcast.bus.redis.doctor import inspect
from dualcast.sections import Redis

CLOCK_S = 2.0


class Finding(NamedTuple):
    """One finding about Redis."""

    name: str
    ok: bool
    detail: str


async def redis_checks(settings: Redis) -> list[Finding]:
    """Findings about the Redis of `settings`, over one connection. Writes nothing."""
    client = redis.Redis.from_url(
        settings.url,
        socket_timeout=settings.command_timeout_s,
        socket_connect_timeout=settings.connect_timeout_s,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
        single_connection_client=True,
    )
    try:
        found = [Finding(*check) for check in await inspect(client)]
        if found[0].ok:
            found.append(await _clock(client))
    except (RedisError, OSError, TimeoutError):
        found = [Finding("reachable", False, "Redis does not answer: check the address, password and TLS")]
    finally:
        await client.aclose()
    return found


async def _clock(client: redis.Redis) -> Finding:
    before = time.time()
    seconds, micros = await client.time()
    drift_s = seconds + micros / 1e6 - (before + time.time()) / 2
    advice = "" if abs(drift_s) <= CLOCK_S else ": run NTP on both machines"
    return Finding("clock", not advice, f"{drift_s:+.3f} s from ours{advice}")
