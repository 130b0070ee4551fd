"""Opens the configured engine: the bus, the state store, and what each room keeps beside the log.

In: settings. Out: `Stores`. Nothing is connected yet; the bus's and the state store's `start` do that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dualcast.bus.keeping import Keeping
from dualcast.bus.memory import MemoryBus
from dualcast.bus.port import EventBus, Retention
from dualcast.bus.redis.dialing import Dialer
from dualcast.bus.redis.engine import RedisBus
from dualcast.bus.redis.plain import PlainKeys
from dualcast.bus.sqlite import SqliteBus
from dualcast.bus.storage import SqlPart
from dualcast.conversations.port import ConversationStore
from dualcast.conversations.redis import RedisConversations
from dualcast.conversations.redis import extension as conversation_extension
from dualcast.conversations.sql import PART as CONVERSATION_PART
from dualcast.conversations.sql import SqlConversations
from dualcast.inbox.port import InboxStore
from dualcast.inbox.redis import RedisInbox, inbox_extension
from dualcast.inbox.sql import SqlInbox
from dualcast.inbox.sql_rider import inbox_part
from dualcast.mapping import (
    conversation_settings,
    inbox_settings,
    older_settings,
    push_settings,
    redis_settings,
    task_settings,
)
from dualcast.pairing.port import PairStore
from dualcast.pairing.redis import RedisPairs
from dualcast.pairing.redis import extension as pair_extension
from dualcast.presence.local import LocalPresence
from dualcast.presence.port import PresenceStore
from dualcast.presence.redis import RedisPresence
from dualcast.presence.redis import extension as presence_extension
from dualcast.presence.sql_devices import SqlDevices
from dualcast.presence.sql_devices import sql_part as device_part
from dualcast.push.port import PushQueue
from dualcast.push.redis import RedisPushQueue
from dualcast.push.redis import extension as push_extension
from dualcast.push.sql import SqlPushQueue
from dualcast.push.sql import part as push_part
from dualcast.settings import Settings, SettingsError
from dualcast.state.memory import MemoryState
from dualcast.state.port import StateStore
from dualcast.state.redis import RedisState
from dualcast.state.sqlite import SqliteState
from dualcast.tasks.port import TaskStore
from dualcast.tasks.redis import RedisTasks
from dualcast.tasks.redis import extension as task_extension
from dualcast.tasks.sql import SqlTasks
from dualcast.tasks.sql_rows import PART as TASK_PART
from dualcast_migration.evidence.port import EvidenceStore
from dualcast_migration.evidence.redis import RedisEvidence
from dualcast_migration.evidence.redis import extension as evidence_extension
from dualcast_migration.evidence.sql import PART as EVIDENCE_PART
from dualcast_migration.evidence.sql import SqlEvidence
from dualcast_migration.legacy_redis import extension as older_extension
from dualcast_migration.older_backends import OlderBackends


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """Everything that is kept, on one engine."""

    bus: EventBus
    history: Keeping
    """How much of it each tenant keeps."""
    state: StateStore
    inbox: InboxStore
    presence: PresenceStore
    push: PushQueue
    tasks: TaskStore
    conversations: ConversationStore
    evidence: EvidenceStore
    pairs: PairStore | None = None
    """Instances over all nodes; None: there is one process."""
    dialer: Dialer | None = None
    """Opens connections to the same Redis; None on other engines."""
    redis: PlainKeys | None = None
    """What else is read in Redis; None on other engines."""
    older: OlderBackends | None = None
    """Where older backends may be: on Redis, unless it is switched off."""


def open_stores(settings: Settings) -> Stores:
    """The stores of the configured engine; next to older backends with the bus that copies to them."""
    bus = settings.bus
    history = Keeping(
        Retention(entries=bus.history_entries, seconds=bus.history_s, idempotency_s=bus.idempotency_s)
    )
    if settings.engine == "redis":
        return _on_redis(settings, history)
    return _on_sql(settings, history)


def _on_sql(settings: Settings, history: Keeping) -> Stores:
    """One process: SQLite, in a file or in memory; presence is what this process knows."""

    def is_online(tenant: str, user: str, devices: Sequence[str]) -> bool:
        return presence.is_online_now(tenant, user, devices)

    parts: tuple[SqlPart, ...] = (
        inbox_part(inbox_settings(settings)),
        push_part(is_online, push_settings(settings), enabled=settings.push.provider != "none"),
        device_part(),
        TASK_PART,
        CONVERSATION_PART,
        EVIDENCE_PART,
    )
    bus: MemoryBus | SqliteBus
    state: StateStore
    if settings.engine == "memory":
        bus, state = MemoryBus(history, parts=parts), MemoryState()
    else:
        directory = Path(settings.bus.data_dir)
        bus = SqliteBus(directory / "bus.db", history, parts=parts)
        state = SqliteState(directory / "state.db")
    database = bus.database
    presence = LocalPresence(SqlDevices(database))
    return Stores(
        bus=bus,
        history=history,
        state=state,
        inbox=SqlInbox(database),
        presence=presence,
        push=SqlPushQueue(database, push_settings(settings)),
        tasks=SqlTasks(database, task_settings(settings)),
        conversations=SqlConversations(database, conversation_settings(settings)),
        evidence=SqlEvidence(database),
    )


def _on_redis(settings: Settings, history: Keeping) -> Stores:
    extensions = (
        inbox_extension(inbox_settings(settings)),
        push_extension(push_settings(settings), enabled=settings.push.provider != "none"),
        presence_extension(),
        task_extension(),
        conversation_extension(),
        pair_extension(),
        evidence_extension(),
        older_extension(),
    )
    try:
        bus = RedisBus(redis_settings(settings), history, extensions=extensions)
    except (TypeError, ValueError, OSError) as error:
        # An option in the url's query: unknown, of a wrong value, or a file for TLS that cannot be read.
        reason = getattr(error, "strerror", None) or "unknown, or with a wrong value"
        raise SettingsError(f"redis.url: an option after the ? cannot be used: {reason}") from None
    older = OlderBackends(bus, bus, older_settings(settings)) if settings.legacy.redis else None
    return Stores(
        bus=bus if older is None else older.bus,
        history=history,
        older=older,
        state=RedisState(bus.pool.client, prefix=settings.redis.key_prefix),
        inbox=RedisInbox(bus),
        presence=RedisPresence(bus),
        push=RedisPushQueue(bus),
        tasks=RedisTasks(bus, task_settings(settings)),
        conversations=RedisConversations(bus, conversation_settings(settings)),
        evidence=RedisEvidence(bus),
        pairs=RedisPairs(bus),
        dialer=bus.dialer,
        redis=PlainKeys(bus.pool),
    )
