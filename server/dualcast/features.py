"""What is kept for people, put together: inbox, presence and devices, pushes, tasks, conversations."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

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
from dualcast.presence.announcing import Announcements
from dualcast.presence.service import PresenceService
from dualcast.presence.tracker import Tracker
from dualcast.push.port import Provider
from dualcast.push.providers.finding import check_provider, find_provider
from dualcast.push.service import PushService
from dualcast.push.worker import PushWorker
from dualcast.session.node import Node
from dualcast.settings import Settings
from dualcast.stores import Stores
from dualcast.tasks.known import KnownTasks
from dualcast.tasks.older_queue import OlderQueue
from dualcast.tasks.service import TaskService
from dualcast.telemetry.counters import Counters
from dualcast.tenancy.grants import Grants
from dualcast_migration.legacy_redis import CHANNELS, PATTERNS
from dualcast_migration.older_backends import OlderBackends


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

    def runs(self) -> list[Callable[[], Coroutine[Any, Any, Any]]]:
        """The background loops, which the composition root owns."""
        loops: list[Callable[[], Coroutine[Any, Any, Any]]]
        loops = [self.tracker.run, self.worker.run, self.tasks.run]
        return loops + [older.run for older in (self.older, self.backends) if older is not None]

    async def check(self) -> None:
        """Raises ProviderUnusable: the server must not start."""
        await check_provider(self.provider)

    async def close(self) -> None:
        """After the loops have ended and while the bus is still there."""
        await self.tracker.close()
        await self.provider.close()

    def gauges(self) -> dict[str, float]:
        """Plain numbers for `/metrics`."""
        tasks = {f"task_{name}": float(value) for name, value in self.tasks.stats().items()}
        inbox = {"inbox_unannounced": float(self.inbox.unannounced)}
        older = self.backends.gauges() if self.backends is not None else {}
        return {**self.tracker.gauges(), **self.worker.gauges(), **tasks, **inbox, **older}


def older_queue(settings: Settings, stores: Stores, node: Node, announcer: Announcer) -> OlderQueue | None:
    """The reader of the older queue's keys, where there is a Redis and an older backend may be."""
    if stores.redis is None or not settings.legacy.redis:
        return None

    def watched(tenant: str, channel: str) -> bool:
        feed = node.hub.known(tenant, channel)
        return feed is not None and bool(feed.sessions)

    return OlderQueue(stores.redis, announcer, watched, older_queue_settings(settings))


def older_backends(
    settings: Settings,
    stores: Stores,
    node: Node,
    grants: Grants,
    presence: PresenceService,
    queue: OlderQueue | None,
) -> OlderBackends | None:
    """What hears older backends and speaks to them, over one Redis connection more. What came in from them is
    published behind the copies, so that it does not go back."""
    older = stores.older
    if older is None or queue is None:
        return None
    behind = Announcer(older.behind)
    older.connect(
        node=node.id,
        hearing=Listening(redis_settings(settings), channels=CHANNELS, patterns=PATTERNS),
        tasks=TaskService(stores.tasks, behind, grants, task_settings(settings)),
        owner=queue.owner,
        store=stores.presence,
        presence=presence,
        announcements=Announcements(behind, presence_settings(settings)),
        frame=Frames(),
    )
    return older


def build_features(
    settings: Settings, stores: Stores, node: Node, grants: Grants, counters: Counters
) -> Features:
    """Makes the services and gives `node` its presence and the sources of its channel states. Raises
    ProviderUnusable."""
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
    backends = older_backends(settings, stores, node, grants, presence, older)
    if backends is not None:
        tracker.told = backends.told
    node.presence = tracker
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
    )
