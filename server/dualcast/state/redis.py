"""State engine `redis`: shared by all nodes. It uses a client over the node's command pool and opens nothing
itself.

All keys share one hash tag, so the store lives on one shard and every script is atomic (`dc`: key prefix):

    dc:{~state}:v:<space>:<key>   hash d (bytes), v (version); Redis expires it
    dc:{~state}:head              hash revision, floor (highest revision that fell out of the log)
    dc:{~state}:names             zset of score 0: <space> NUL <key>, for listing in key order
    dc:{~state}:expiries          zset: Unix ms → names to forget
    dc:{~state}:log               zset: revision → <space> NUL <key>; a key stands once, at its last revision
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from redis.exceptions import RedisError

from dualcast.model.errors import BusUnavailable

from .limits import LOG_SIZE, check_log_size, check_name, check_write
from .port import Change, Changes, Value, VersionConflict

if TYPE_CHECKING:
    from redis.asyncio import Redis

PURGE_AT_ONCE = 64


def _script(name: str, *, writes: bool = True) -> str:
    folder = resources.files("dualcast.state") / "lua"
    text = (folder / f"{name}.lua").read_text("utf-8")
    return (folder / "prelude.lua").read_text("utf-8") + text if writes else text


def _member(space: str, key: str) -> bytes:
    return f"{space}\0{key}".encode()


def _split(member: bytes) -> tuple[str, str]:
    space, _, key = member.decode().partition("\0")
    return space, key


@asynccontextmanager
async def _reaching() -> AsyncIterator[None]:
    """Redis's and the socket's errors become BusUnavailable."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise BusUnavailable("the state store cannot be reached", retry_after_s=1) from error


class RedisState:
    """A StateStore over `client`, which must give bytes (`decode_responses=False`) and belongs to its owner.

    BusUnavailable from a write means an unknown outcome. `take` is not retried: a lost answer loses the
    value, it never doubles it.
    """

    def __init__(self, client: Redis, *, prefix: str = "dc", log_size: int = LOG_SIZE) -> None:
        self._client = client
        self._base = f"{prefix}:{{~state}}:"
        self._head, self._names, self._expiries, self._log = (
            self._base + name for name in ("head", "names", "expiries", "log")
        )
        self._log_size = check_log_size(log_size)
        self._put = client.register_script(_script("put"))
        self._drop = client.register_script(_script("drop"))
        self._changes = client.register_script(_script("changes", writes=False))

    async def start(self) -> None:
        """Nothing to open: scripts load themselves on first use and after a restart of Redis."""

    async def close(self) -> None:
        """Nothing to close: the client belongs to its owner."""

    async def get(self, space: str, key: str) -> Value | None:
        check_name(space, key)
        async with _reaching():
            row: Any = await self._client.hmget(self._value_key(space, key), ["d", "v"])
        data, version = row
        return None if version is None else Value(key, data, int(version))

    async def put(
        self,
        space: str,
        key: str,
        data: bytes,
        *,
        expected: int | None = None,
        ttl_s: float | None = None,
        quiet: bool = False,
    ) -> int:
        check_write(space, key, data, ttl_s)
        ttl_ms = 0 if ttl_s is None else max(1, int(ttl_s * 1000))
        args: list[Any] = [_member(space, key), data, -1 if expected is None else expected]
        args += [ttl_ms, int(quiet), self._log_size, PURGE_AT_ONCE]
        async with _reaching():
            stored, version = await self._put(
                keys=[self._value_key(space, key), self._head, self._names, self._expiries, self._log],
                args=args,
            )
        if not stored:
            raise VersionConflict("the value was changed by somebody else")
        return int(version)

    async def delete(self, space: str, key: str) -> bool:
        return await self._remove(space, key, logged=True) is not None

    async def take(self, space: str, key: str) -> Value | None:
        return await self._remove(space, key, logged=False)

    async def list(self, space: str, *, prefix: str = "", after: str = "", limit: int = 100) -> list[Value]:
        """As the port says. Each value is whole; the list is not one snapshot."""
        found: list[Value] = []
        last = _member(space, prefix) + b"\xff"  # no UTF-8 text contains this byte
        first = b"(" + _member(space, after) if after and after >= prefix else b"[" + _member(space, prefix)
        async with _reaching():
            while (wanted := limit - len(found)) > 0:
                names: Any = await self._client.zrangebylex(
                    self._names, first, b"(" + last, start=0, num=wanted
                )
                keys = [_split(name)[1] for name in names]
                async with self._client.pipeline(transaction=False) as pipe:
                    for key in keys:
                        pipe.hmget(self._value_key(space, key), ["d", "v"])
                    rows = await pipe.execute() if keys else []
                # A name whose value has expired is still listed for a moment: it is passed over.
                found += [
                    Value(key, data, int(version))
                    for key, (data, version) in zip(keys, rows, strict=True)
                    if version is not None
                ]
                if len(names) < wanted:
                    break
                first = b"(" + names[-1]
        return found

    async def changes(self, after: int) -> Changes:
        async with _reaching():
            revision, complete, rows = await self._changes(keys=[self._head, self._log], args=[after])
        fresh = tuple(
            Change(int(score), *_split(member)) for member, score in zip(rows[::2], rows[1::2], strict=True)
        )
        return Changes(int(revision), fresh, bool(complete))

    def _value_key(self, space: str, key: str) -> str:
        return f"{self._base}v:{space}:{quote(key, safe=':@.-_~/')}"

    async def _remove(self, space: str, key: str, *, logged: bool) -> Value | None:
        check_name(space, key)
        args: list[Any] = [_member(space, key), int(logged), self._log_size]
        async with _reaching():
            row = await self._drop(
                keys=[self._value_key(space, key), self._head, self._names, self._expiries, self._log],
                args=args,
            )
        return None if row is None else Value(key, row[0], int(row[1]))
