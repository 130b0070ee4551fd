"""What is read in Redis beside dualcast's own keys: hashes and sets of older systems, and facts about the
server. Nothing here writes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Struct
from redis.exceptions import RedisError

from dualcast.model.errors import BusUnavailable

from .pool import PoolFacts, RedisPool

CHUNK = 500
"""Hashes per round trip."""


class ServerFacts(Struct, frozen=True):
    """What Redis says of its clients, in the order of contract section 3.9."""

    connected_clients: int
    client_recent_max_input_buffer: int
    client_recent_max_output_buffer: int
    blocked_clients: int


class PlainKeys:
    """Reads over the shared pool. Every method raises BusUnavailable. Keys belong to others: whatever they
    hold is bytes, and may be anything.
    """

    def __init__(self, pool: RedisPool) -> None:
        self._pool = pool

    async def fields(self, keys: Sequence[str], names: Sequence[str]) -> list[list[bytes | None]]:
        """The named fields of each hash; None for what is missing, also of a key that is no hash."""
        found: list[list[bytes | None]] = []
        async with _reaching():
            for start in range(0, len(keys), CHUNK):
                pipe = self._pool.client.pipeline(transaction=False)
                for key in keys[start : start + CHUNK]:
                    pipe.hmget(key, list(names))
                for reply in await pipe.execute(raise_on_error=False):
                    found.append(reply if isinstance(reply, list) else [None] * len(names))
        return found

    async def members(self, key: str, most: int) -> list[bytes]:
        """At most `most` members of a set; none of a key that is no set."""
        found: list[bytes] = []
        async with _reaching():
            if await self._pool.client.type(key) != b"set":
                return found
            async for member in self._pool.client.sscan_iter(key, count=1000):
                if len(found) == most:
                    break
                found.append(member)
        return list(dict.fromkeys(found))

    async def time_us(self) -> int:
        """Redis's clock, Unix microseconds."""
        async with _reaching():
            seconds, rest = await self._pool.client.time()
        return int(seconds) * 1_000_000 + int(rest)

    def pool(self) -> PoolFacts:
        """The pool as it is now; does not wait."""
        return self._pool.facts()

    async def server(self) -> ServerFacts:
        """INFO clients."""
        async with _reaching():
            info: dict[str, Any] = await self._pool.client.info("clients")
        return ServerFacts(*(int(info.get(name, 0)) for name in ServerFacts.__struct_fields__))

    async def channels(self, pattern: str) -> list[str]:
        """Channels somebody subscribes to by name (patterns are not among them), sorted."""
        async with _reaching():
            found = await self._pool.client.pubsub_channels(pattern)
        return sorted(name.decode("utf-8", "replace") for name in found if isinstance(name, bytes))


@asynccontextmanager
async def _reaching() -> AsyncIterator[None]:
    """Redis's and the socket's errors become BusUnavailable."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise BusUnavailable("Redis cannot be reached", retry_after_s=1) from error
