"""`RedisBus`: the EventBus over one Redis, put together from the parts of this room."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Any

from dualcast.bus.keeping import Keeping, keeping
from dualcast.bus.port import Follower, Health, Retention
from dualcast.bus.storage import Extension
from dualcast.model.cursor import Cursor
from dualcast.model.errors import DualcastError
from dualcast.model.publication import Draft, Page, Quota, Receipt

from .appending import Appender
from .calls import Calls, unavailable
from .dialing import open_dialer
from .doctor import Check, inspect
from .feed import Feeds, TenantFeed
from .following import Following
from .keys import echo, meta
from .options import RedisSettings
from .pool import RedisPool
from .probing import Probe
from .reading import Reader
from .repair import Repair
from .scripts import Scripts


class RedisBus:
    """`EventBus` of every process that uses the same Redis and prefix.

    Durability is Redis's: with `appendonly yes` and `appendfsync everysec` at most the last second, noticed
    by fencing and announced as a new epoch; with `always` nothing. Three connections of its own (appends,
    reads and probe, subscriber), whatever the number of channels; `pool` is the shared one. The constructor
    must run on the event loop. `extensions`: what other rooms keep in the same Redis, by way of `call`
    (`Scripting`); two scripts of one name are a ValueError.
    """

    def __init__(
        self,
        settings: RedisSettings | None = None,
        retention: Retention | Keeping | None = None,
        *,
        pool: RedisPool | None = None,
        extensions: Sequence[Extension] = (),
    ) -> None:
        self._settings = settings or RedisSettings()
        keep = keeping(retention)
        self.dialer = dialer = open_dialer(self._settings)
        self._watch: asyncio.Task[None] | None = None
        echo_name = echo(self._settings.prefix, secrets.token_hex(8))
        self._own_pool = pool is None
        self.pool = pool or RedisPool(self._settings, dialer)
        self._feeds = Feeds(self._settings, self._doubt)
        self._write = Calls(dialer, self._settings, "dualcast-append", Scripts(extensions))
        self._ask = Calls(dialer, self._settings, "dualcast-read", Scripts(extensions))
        self._appender = Appender(self._write, self._feeds, self._settings, keep)
        self._reader = Reader(self._ask, self._feeds, self._settings, keep)
        self._following = Following(dialer, self._feeds, self._settings, echo_name, self._echo)
        self._probe = Probe(self._ask, self._reader, self._feeds, self._following, self._settings, echo_name)
        self._repair: Repair | None = None
        self._open = False

    async def start(self, follower: Follower) -> None:
        """Tries to connect once and goes on trying by itself; `follower.status(False)` says it failed."""
        self._open = True
        self._feeds.follower = follower
        self._repair = Repair(self._reader, self._feeds, follower)
        self._watch = asyncio.get_running_loop().create_task(self.dialer.run())
        await self._following.start(follower, self._repair)
        self._probe.start(follower)

    async def close(self) -> None:
        self._open = False
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self._probe.close()
        await self._following.close()
        await self._write.close()
        await self._ask.close()
        if self._own_pool:
            await self.pool.close()
        await self.dialer.close()

    async def append(self, draft: Draft, quota: Quota | None = None) -> Receipt:
        (result,) = await self.append_many((draft,), quota)
        if isinstance(result, DualcastError):
            raise result
        return result

    async def append_many(
        self, drafts: Sequence[Draft], quota: Quota | None = None
    ) -> list[Receipt | DualcastError]:
        if not self._open:
            return [unavailable() for _ in drafts]
        return await self._appender.append(drafts, quota)

    async def read(self, tenant: str, channels: Sequence[str], after: int, limit: int) -> Page:
        return await self._reader.page(self._feed(tenant), channels, after, limit)

    async def head(self, tenant: str) -> Cursor:
        feed = self._feed(tenant)
        position = await self._reader.position(feed)
        self._feeds.saw(feed, position.epoch, position.top)
        return Cursor(position.epoch, position.top)

    async def known_epoch(self, tenant: str, epoch: str) -> bool:
        feed = self._feed(tenant)
        if epoch == feed.epoch or epoch in feed.earlier:
            return True
        position = await self._reader.position(feed)
        self._feeds.saw(feed, position.epoch, position.top)
        return epoch == position.epoch or epoch in position.earlier

    def watch(self, tenant: str, channel: str) -> None:
        self._following.watch(tenant, channel)

    def unwatch(self, tenant: str, channel: str) -> None:
        self._following.unwatch(tenant, channel)

    async def call(self, script: str, tenant: str, *arguments: bytes, read: bool = False) -> Any:
        """`Scripting.call`. Raises KeyError when no extension has such a script."""
        if not self._open:
            raise unavailable()
        calls = self._ask if read else self._write
        return await calls.run(script, meta(self._settings.prefix, tenant), *arguments)

    async def probe(self) -> Health:
        if not self._open:
            return Health(False, "redis", detail="closed")
        return await self._probe.check()

    async def checks(self) -> list[Check]:
        """What `doctor` asks: (name, ok, detail) of durability, memory policy, version, limits, latency."""
        return await inspect(self.pool.client)

    def stats(self) -> dict[str, float]:
        repair, feeds, last = self._repair, self._feeds, self._probe.last
        connections = {
            "connections_pool": self.pool.connections,
            "connections_append": self._write.connections,
            "connections_read": self._ask.connections,
            "connections_subscriber": int(self._following.tap is not None),
            "connections_sentinel": self.dialer.connections,
        }
        return {
            **connections,
            "connections": sum(connections.values()),
            "available": int(self._following.available),
            "appended": self._appender.appended,
            "duplicates": self._appender.duplicates,
            "pipelines": self._write.pipelines + self._ask.pipelines,
            "retries": self._write.retries + self._ask.retries,
            "timeouts": self._write.timeouts + self._ask.timeouts,
            "pending_calls": self._write.pending + self._ask.pending,
            "watched_channels": len(feeds.names),
            "received": feeds.received,
            "malformed": feeds.malformed,
            "mismatches": feeds.mismatches,
            "held_bytes": feeds.held_bytes,
            "held_overflows": feeds.overflows,
            "resubscribes": self._following.resubscribes,
            "repairs": repair.repairs if repair else 0,
            "repaired_entries": repair.filled if repair else 0,
            "gaps": repair.gaps if repair else 0,
            "epoch_renewals": repair.epochs if repair else 0,
            "stale_messages": repair.stale if repair else 0,
            "probes": self._probe.probes,
            "probe_found_lost": self._probe.found,
            "probe_ok": int(bool(last and last.ok)),
            "probe_command_s": last.command_s or 0.0 if last else 0.0,
            "probe_echo_s": last.echo_s or 0.0 if last else 0.0,
        }

    def _feed(self, tenant: str) -> TenantFeed:
        if not self._open:
            raise unavailable()
        return self._feeds.of(tenant)

    def _doubt(self, feed: TenantFeed) -> None:
        self._following.doubt(feed)

    def _echo(self, token: bytes) -> None:
        self._probe.echo(token)
