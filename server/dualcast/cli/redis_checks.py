"""What `doctor` asks of Redis: the sentinels, the engine's own checks, and the clock."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator
from typing import NamedTuple

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    BusyLoadingError,
    InvalidResponse,
    NoPermissionError,
    RedisError,
    ResponseError,
)

from dualcast.bus.redis.dialing import open_dialer
from dualcast.bus.redis.doctor import inspect
from dualcast.bus.redis.options import RedisSettings
from dualcast.bus.redis.pool import connection_options
from dualcast.bus.redis.sentinels import Sentinels

CLOCK_S = 2.0
_OPTION = "an option behind the ? in redis.url is unknown or has a wrong value"
_WHY: tuple[tuple[type[BaseException], str], ...] = (
    (AuthenticationError, "Redis wants another user or password: see redis.url"),
    (AuthenticationWrongNumberOfArgsError, "Redis wants another user or password: see redis.url"),
    (NoPermissionError, "the user may not run a command that is needed: see its ACL"),
    (BusyLoadingError, "Redis is reading its data: ask again soon"),
    (InvalidResponse, "what answers there is no Redis"),
    (ResponseError, "Redis refuses the first commands: see the number of the database in redis.url"),
    (ssl.SSLCertVerificationError, "its certificate is not trusted: add ?ssl_ca_certs=FILE to redis.url"),
    (ssl.SSLError, "no TLS is spoken there: redis:// instead of rediss://"),
    (socket.gaierror, "the host's name is not known"),
    (ConnectionRefusedError, "nobody listens at the address"),
    (FileNotFoundError, "there is no such socket"),
    (TimeoutError, "no answer in time: see the address, and what stands between"),
    (redis.TimeoutError, "no answer in time: see the address, and what stands between"),
    (TypeError, _OPTION),
    (ValueError, _OPTION),
)


class Finding(NamedTuple):
    """One finding about Redis."""

    name: str
    ok: bool
    detail: str


async def redis_checks(settings: RedisSettings) -> list[Finding]:
    """Findings about the Redis of the settings, over one connection. Writes nothing."""
    try:
        dialer = open_dialer(settings)
        options = connection_options(settings, dialer)
    except (TypeError, ValueError, OSError):
        return [Finding("reachable", False, _OPTION)]
    sentinels = dialer if isinstance(dialer, Sentinels) else None
    asked = [] if sentinels is None else [await _sentinels(sentinels, settings.service)]
    client = redis.Redis.from_pool(
        redis.ConnectionPool(
            **options,
            max_connections=1,
            socket_timeout=settings.command_s,
            socket_connect_timeout=settings.connect_s,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )
    )
    try:
        # First, for the reason: the checks of the engine only say that it does not answer.
        await client.info("server")
        found = [Finding(*check) for check in await inspect(client, replicated=sentinels is not None)]
        if found[0].ok:
            found.append(await _clock(client))
    except (RedisError, OSError, TimeoutError, TypeError, ValueError) as error:
        found = [Finding("reachable", False, _why(error))]
    finally:
        await client.aclose(close_connection_pool=True)
        await dialer.close()
    return [*asked, *found]


async def _sentinels(sentinels: Sentinels, service: str) -> Finding:
    answers = await asyncio.gather(*map(sentinels.ask, sentinels.places), return_exceptions=True)
    named = [answer for answer in answers if not isinstance(answer, BaseException)]
    count = f"{len(named)} of {len(answers)} know {service}"
    if len(named) < len(answers):
        return Finding("sentinels", False, f"{count}: check redis.sentinels, redis.service and the password")
    if len({(one.host, one.port) for one in named}) > 1:
        return Finding("sentinels", False, f"{count}, but name different masters: check the network")
    others = min(one.sentinels for one in named)
    if others < 3:
        return Finding("sentinels", False, f"{count}, {others} in all: three or more are needed to agree")
    return Finding("sentinels", True, f"{count}, master {named[0].host}:{named[0].port}")


def _why(error: BaseException) -> str:
    """What to do about `error`, in words of our own: its text may name the password."""
    for each in _chain(error):
        for kind, text in _WHY:
            if isinstance(each, kind):
                return text
    return "Redis hangs up: see the address, and whether it wants TLS (rediss://)"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """`error` and what it came from, the first cause first."""
    if error is not None:
        yield from _chain(error.__cause__ or error.__context__)
        yield error


async def _clock(client: redis.Redis) -> Finding:
    before = time.time()
    seconds, micros = await client.time()
    drift_s = seconds + micros / 1e6 - (before + time.time()) / 2
    advice = "" if abs(drift_s) <= CLOCK_S else ": run NTP on both machines"
    return Finding("clock", not advice, f"{drift_s:+.3f} s from ours{advice}")
