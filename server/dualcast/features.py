"""What is kept for people, put together: inbox, presence and devices, pushes, tasks, conversations."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from prometheus_client.core import Metric

from dualcast.bus.announcing import Announcer
from dualcast.bus.redis.listening import Listening
from dualcast.conversations.service import ConversationService
from dualcast.dialects.conversations import Frames
from dualcast.inbox.service import InboxService
from dualcast.mapping import (
    conversation_settings,
    older_queue_settings,
    presence_settings,
    push_provider_settings,
    push_settings,
    redis_settings,
    task_settings,
)
from dualcast.pairing.exchange import Exchange
from dualcast.presence.announcing import Announcements
from dualcast.presence.service import PresenceService
from dualcast.presence.tracker import Tracker
from dualcast.push.port import Provider
from dualcast.push.providers.finding import check_provider, find_provider
from dualcast.push.service import PushService
from dualcast.push.worker import PushWorker
from dualcast.session.node import Node
from dualcast.session.pairing import Pairing
from dualcast.settings import Settings
from dualcast.stores import Stores
from dualcast.tasks.known import KnownTasks
from dualcast.tasks.older_queue import OlderQueue
from dualcast.tasks.service import TaskService
from dualcast.telemetry.counters import Counters
from dualcast.tenancy.grants import Grants
from dualcast.tenancy.stages import StageControl
from dualcast.tenancy.store import SharedTenants
from dualcast.transport.parity import Compared, ParityWatch
from dualcast_migration.evidence.metrics import guard_families
from dualcast_migration.evidence.port import EvidenceSettings
from dualcast_migration.evidence.recorder import Recorder
from dualcast_migration.evidence.since import staged_since
from dualcast_migration.evidence.watch import Watch
from dualcast_migration.legacy_redis import CHANNELS, PATTERNS
from dualcast_migration.older_backends import OlderBackends
from dualcast_migration.parity import mismatch_of
from dualcast_migration.policy import MirrorMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """The services of one process and what runs behind them."""

    inbox: InboxService
    presence: PresenceService
    tracker: Tracker
    push: PushService
    provider: Provider
    worker: PushWorker
    tasks: TaskService
    known: KnownTasks
    older: OlderQueue | None
    backends: OlderBackends | None
    conversations: ConversationService
    pairing: Pairing
    exchange: Exchange | None

    def runs(self) -> list[Callable[[], Coroutine[Any, Any, Any]]]:
        """The background loops, which the composition root owns."""
        loops: list[Callable[[], Coroutine[Any, Any, Any]]]
        loops = [self.tracker.run, self.worker.run, self.tasks.run]
        if self.exchange is not None:
            loops.append(self.exchange.run)
        return loops + [older.run for older in (self.older, self.backends) if older is not None]

    async def check(self) -> None:
        """Raises ProviderUnusable: the server must not start."""
        await check_provider(self.provider)

    async def close(self) -> None:
        """After the loops have ended and while the bus is still there."""
        await self.tracker.close()
        if self.exchange is not None:
            await self.exchange.close()
        if self.backends is not None:
            await self.backends.close()
        await self.provider.close()

    def gauges(self) -> dict[str, float]:
        """Plain numbers for `/metrics`."""
        tasks = {f"task_{name}": float(value) for name, value in self.tasks.stats().items()}
        inbox = {"inbox_unannounced": float(self.inbox.unannounced)}
        older = self.backends.gauges() if self.backends is not None else {}
        pairs = self.pairing.gauges() | (self.exchange.gauges() if self.exchange is not None else {})
        return {**self.tracker.gauges(), **self.worker.gauges(), **tasks, **inbox, **older, **pairs}


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """What this process knows of how tenants move, and the guard that goes by it."""

    recorder: Recorder
    guard: Watch
    parity: ParityWatch
    families: Callable[[], Iterator[Metric]]

    def runs(self) -> list[Callable[[], Coroutine[Any, Any, Any]]]:
        """The background loops, which the composition root owns."""
        return [self.recorder.run, self.guard.run, self.parity.run]


def build_witness(
    stores: Stores, node: Node, counters: Counters, tenants: SharedTenants, stages: StageControl
) -> Witness:
    """Makes the parts and gives `node` its evidence."""
    settings = EvidenceSettings()
    recorder = Recorder(stores.evidence, counters, settings, node=node.id, draining=lambda: node.draining)

    async def counted_from(tenant: str) -> float:
        return (await staged_since(stages, tenant)).counted_s

    guard = Watch(
        stores.evidence,
        recorder,
        tenants.stage_record,
        counted_from,
        stages.step_back,
        settings,
    )
    node.evidence = recorder
    return Witness(
        recorder=recorder,
        guard=guard,
        parity=ParityWatch(node, tenants.stage_record, partial(note_comparison, recorder)),
        families=lambda: guard_families(guard, counters.label),
    )


def note_comparison(recorder: Recorder, found: Compared) -> None:
    """Counts a comparison of two sessions, and keeps it when it found something."""
    comparison = found.comparison
    recorder.compared(found.tenant, comparison.compared, comparison.mismatches)
    record = mismatch_of(comparison, "server", found.user, found.instance, int(time.time() * 1000))
    if record is not None:
        recorder.mismatch(found.tenant, record)


def older_queue(settings: Settings, stores: Stores, node: Node, announcer: Announcer) -> OlderQueue | None:
    """The reader of the older queue's keys, where there is a Redis and an older backend may be."""
    if stores.redis is None or not settings.legacy.redis:
        return None

    def watched(tenant: str, channel: str) -> bool:
        feed = node.hub.known(tenant, channel)
        return feed is not None and bool(feed.sessions)

    return OlderQueue(stores.redis, announcer, watched, older_queue_settings(settings))


def mirror_mode(tenants: SharedTenants, tenant: str, default: MirrorMode) -> MirrorMode:
    """What is copied to old servers now: as the tenant's stage record says, else `default`."""
    record = tenants.stage_record(tenant)
    return (record.mirror if record is not None else None) or default


def older_backends(
    settings: Settings,
    stores: Stores,
    node: Node,
    grants: Grants,
    presence: PresenceService,
    queue: OlderQueue | None,
    mirror: Callable[[], MirrorMode],
) -> OlderBackends | None:
    """What hears older backends and speaks to them, over one Redis connection more. What came in from them is
    published behind the copies, so that it does not go back."""
    older = stores.older
    if older is None or queue is None:
        return None
    behind = Announcer(older.behind)
    older.connect(
        node=node.id,
        hearing=Listening(
            redis_settings(settings), channels=CHANNELS, patterns=PATTERNS, dialer=stores.dialer
        ),
        tasks=TaskService(stores.tasks, behind, grants, task_settings(settings)),
        owner=queue.owner,
        store=stores.presence,
        presence=presence,
        announcements=Announcements(behind, presence_settings(settings)),
        frame=Frames(),
        mirror=mirror,
    )
    return older


def pair_sessions(stores: Stores, node: Node) -> tuple[Pairing, Exchange | None]:
    """Brings the sessions of each instance together, on this node and with those of the others."""
    exchange = Exchange(stores.pairs, node=node.id) if stores.pairs is not None else None
    pairing = Pairing(node, exchange)
    if exchange is not None:
        exchange.connect(pairing)
    node.pairing = pairing
    return pairing, exchange


def build_features(
    settings: Settings,
    stores: Stores,
    node: Node,
    grants: Grants,
    counters: Counters,
    tenants: SharedTenants,
) -> Features:
    """Makes the services and gives `node` its presence and the sources of its channel states. Raises
    ProviderUnusable."""
    stores.history.own = tenants.history
    mirror = partial(mirror_mode, tenants, settings.tenancy.legacy_tenant, settings.legacy.mirror)
    announcer = Announcer(stores.bus)
    tracker = Tracker(stores.presence, announcer, presence_settings(settings), node=node.id)
    presence = PresenceService(stores.presence, tracker.settle)
    tasks = TaskService(stores.tasks, announcer, grants, task_settings(settings))
    provider = find_provider(settings.push.provider, push_provider_settings(settings))
    worker = PushWorker(stores.push, provider, push_settings(settings))
    push = PushService(
        stores.push, provider=provider.name, poke=worker.poke, enabled=settings.push.provider != "none"
    )
    older = older_queue(settings, stores, node, announcer)
    known = KnownTasks(tasks, older)
    backends = older_backends(settings, stores, node, grants, presence, older, mirror)
    if backends is not None:
        tracker.told = backends.told
    node.presence = tracker
    pairing, exchange = pair_sessions(stores, node)
    node.states.sources.update(presence=presence.state, task=known.state, batch=known.state)
    return Features(
        inbox=InboxService(stores.inbox, announcer),
        presence=presence,
        tracker=tracker,
        push=push,
        provider=provider,
        worker=worker,
        tasks=tasks,
        known=known,
        older=older,
        backends=backends,
        conversations=ConversationService(
            stores.conversations,
            announcer,
            grants,
            conversation_settings(settings),
            counters=counters,
            push_ready=push.ready,
            poke_push=push.poke,
        ),
        pairing=pairing,
        exchange=exchange,
    )
