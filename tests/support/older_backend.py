"""A simulated older backend, and nodes that live next to it.

`OlderBackend` speaks plain Redis pub/sub as those backends do: it publishes on the older names, hears them,
delivers to clients of its own, and keeps one plain set of online users. Run as a module it is one node more,
in a process that can be killed: `python -m support.older_backend FOLDER URL PREFIX SECRET`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self
from unittest import mock

from redis.asyncio import Redis

from dualcast import app as composition_root
from dualcast import stores as stores_module
from dualcast.app import Composition
from dualcast.bus.announcing import Announcer
from dualcast.bus.redis.engine import RedisBus
from dualcast.bus.redis.listening import Listening
from dualcast.bus.redis.plain import PlainKeys
from dualcast.bus.storage import Extension
from dualcast.dialects.conversations import Frames
from dualcast.features import mirror_mode
from dualcast.mapping import presence_settings, redis_settings, task_settings
from dualcast.presence.announcing import Announcements
from dualcast.settings import Settings
from dualcast.stores import Stores, open_stores
from dualcast.tasks.older_queue import OlderQueue
from dualcast.tasks.service import TaskService
from dualcast.tenancy.grants import Grants
from dualcast_migration.legacy_redis import CHANNELS, PATTERNS, extension
from dualcast_migration.older_backends import OlderBackends, OlderSettings
from dualcast_migration.policy import MirrorMode
from support.legacy_node import legacy_node
from support.node import WAIT_S, Node, Place, running_node
from support.tokens import key

TESTS = Path(__file__).parents[1]
ONLINE = "ws:online_users"
LEASE_S = 3
"""Of nodes that are killed, and of those that shall notice."""


class OlderBackend:
    """One instance of an older backend. `sse` and `sockets`: users connected to it; what they got is in
    `delivered`."""

    def __init__(self, url: str, *, sse: set[str] | None = None, sockets: set[str] | None = None) -> None:
        self.redis = Redis.from_url(url)
        self.instance = str(uuid.uuid4())
        self.sse = sse or set()
        self.sockets = sockets or set()
        self.delivered: list[tuple[str, dict[str, Any]]] = []
        """(user or task, what the client got)."""
        self.heard: list[tuple[str, dict[str, Any]]] = []
        """(channel, message) of everything on the older names, its own as well."""
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        pubsub = self.redis.pubsub()
        await pubsub.subscribe(*CHANNELS)
        await pubsub.psubscribe(*PATTERNS)
        for _ in (*CHANNELS, *PATTERNS):
            await pubsub.get_message(timeout=5)
        self._task = asyncio.create_task(self._hear(pubsub))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.redis.aclose()

    async def _hear(self, pubsub: Any) -> None:
        async for message in pubsub.listen():
            if message["type"] not in ("message", "pmessage"):
                continue
            channel = message["channel"].decode()
            try:
                said = json.loads(message["data"])
            except ValueError:
                continue
            if not isinstance(said, dict):
                continue
            self.heard.append((channel, said))
            self._deliver(channel, said)
            self._changed.set()

    def _deliver(self, channel: str, said: dict[str, Any]) -> None:
        kind, _, ident = channel.partition(":")
        if kind in ("notifications", "task_progress"):
            if ident in self.sse:
                self.delivered.append((ident, said))
        elif said.get("instance_id") == self.instance:
            return
        elif channel == "ws:broadcast" and said.get("target_user_id") in self.sockets:
            self.delivered.append((said["target_user_id"], said["payload"]))

    async def until(self, condition: Callable[[], bool], what: str = "condition") -> None:
        """Waits for something heard."""
        try:
            async with asyncio.timeout(WAIT_S):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"never came: {what}; heard {self.heard[-5:]}") from None

    def on(self, channel: str) -> list[dict[str, Any]]:
        """What was heard on a channel."""
        return [said for name, said in self.heard if name == channel]

    # ── what it publishes ──

    async def say(self, channel: str, payload: Any) -> int:
        text = payload if isinstance(payload, str | bytes) else json.dumps(payload)
        return int(await self.redis.publish(channel, text))

    async def notify(self, user: str, ident: str, **fields: Any) -> int:
        """The eight keys, times without an offset as older backends write them."""
        body = {
            "id": ident,
            "type": "analysis",
            "title": "分析完成",
            "content": "000001 分析已完成",
            "link": "/stocks/000001",
            "source": "analysis",
            "status": "unread",
            "created_at": "2026-01-31T12:00:00.123456",
        }
        return await self.say(f"notifications:{user}", {**body, **fields})

    async def progress(self, task: str, **fields: Any) -> int:
        return await self.say(f"task_progress:{task}", fields)

    async def broadcast(self, payload: Mapping[str, Any], **target: str) -> int:
        body = {
            **target,
            "payload": payload,
            "instance_id": self.instance,
            "timestamp": "2026-01-31T12:00:00",
        }
        return await self.say("ws:broadcast", body)

    async def online(self, user: str) -> None:
        await self.redis.sadd(ONLINE, user)  # type: ignore[misc]
        await self._present("user_online", user)

    async def offline(self, user: str) -> None:
        await self.redis.srem(ONLINE, user)  # type: ignore[misc]
        await self._present("user_offline", user)

    async def _present(self, kind: str, user: str) -> None:
        time = "2026-01-31T12:00:00"
        await self.say(
            "ws:presence",
            {"event_type": kind, "user_id": user, "instance_id": self.instance, "timestamp": time},
        )

    async def listed(self) -> set[str]:
        """The set of online users."""
        return {one.decode() for one in await self.redis.smembers(ONLINE)}  # type: ignore[misc]

    async def until_listed(self, wanted: Callable[[set[str]], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not wanted(await self.listed()):
                await asyncio.sleep(0.02)


class OlderNode(Node):
    """A node that lives next to older backends."""

    older: OlderBackends
    tidying: asyncio.Task[Any]

    def gauge(self, name: str) -> float:
        return self.older.gauges()["older_" + name]


@asynccontextmanager
async def older_node(
    where: Place,
    *,
    mirror: MirrorMode = "off",
    tidy_s: float = 0.2,
    dialects: Sequence[str] = (),
    **overrides: Mapping[str, Any],
) -> AsyncIterator[OlderNode]:
    """A running node wired to older backends, subscribed to their names. `dialects`: the contracts it
    serves."""
    overrides = {**overrides, "legacy": {"redis": False, "dialects": []}}
    made: list[tuple[OlderBackends, Stores, Settings]] = []

    def opened(settings: Settings) -> Stores:
        stores = open_stores(settings)
        assert isinstance(stores.bus, RedisBus)
        older = OlderBackends(stores.bus, stores.bus, OlderSettings(tidy_s=tidy_s))
        made.append((older, stores, settings))
        return replace(stores, bus=older.bus)

    def bus(*given: Any, extensions: Sequence[Extension] = (), **named: Any) -> RedisBus:
        known = any("older-say" in one.scripts for one in extensions)
        return RedisBus(*given, extensions=(*extensions, *(() if known else (extension(),))), **named)

    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.object(composition_root, "open_stores", opened))
        patches.enter_context(mock.patch.object(stores_module, "RedisBus", bus))
        running = (
            legacy_node(where, dialects=dialects, **overrides)
            if dialects
            else running_node(where, **overrides)
        )
        async with running as plain:
            patches.close()
            ((older, stores, settings),) = made
            connect(older, stores, settings, plain.composition, mirror)
            node = OlderNode(plain.composition, plain.live, plain.http)
            node.older = older
            task = asyncio.create_task(older.run())
            try:
                await node.until(lambda: bool(node.gauge("connected")), "the subscription")
                yield node
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


def connect(
    older: OlderBackends, stores: Stores, settings: Settings, composition: Composition, mirror: MirrorMode
) -> None:
    """What the composition root does with the parts."""
    behind = Announcer(older.behind)
    features = composition.features
    assert isinstance(stores.bus, RedisBus)
    queue = OlderQueue(PlainKeys(stores.bus.pool), behind, lambda tenant, channel: False)
    older.connect(
        node=composition.node.id,
        hearing=Listening(redis_settings(settings), channels=CHANNELS, patterns=PATTERNS),
        tasks=TaskService(
            stores.tasks, behind, Grants(stores.state, composition.follower), task_settings(settings)
        ),
        owner=queue.owner,
        store=stores.presence,
        presence=features.presence,
        announcements=Announcements(behind, presence_settings(settings)),
        frame=Frames(),
        mirror=partial(mirror_mode, composition.tenants, settings.tenancy.legacy_tenant, mirror),
    )
    features.tracker.told = older.told


class OlderProcess:
    """A node in a process of its own, which takes in what older backends say, and can be killed."""

    def __init__(self, where: Place) -> None:
        self._command = [sys.executable, "-P", "-m", "support.older_backend"]
        self._command += [
            str(where.folder),
            where.redis_url,
            where.prefix,
            key(tenant="default").material.decode(),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        """Of its server."""

    async def start(self) -> None:
        """Starts it and waits until it is subscribed."""
        environment = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(TESTS)}
        self._process = process = subprocess.Popen(  # noqa: ASYNC220
            self._command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdout is not None
        line = await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), 60)
        word, _, port = line.decode().partition(" ")
        assert word == "hearing", line
        self.port = int(port)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


async def _serve(folder: str, url: str, prefix: str, secret: str) -> None:
    where = Place("redis", Path(folder), url, prefix)
    keys = {"keys": [{"secret": secret, "tenant": "default"}]}
    async with older_node(where, presence={"lease_s": LEASE_S}, identity=keys) as node:
        print(f"hearing {node.port}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:5]))
