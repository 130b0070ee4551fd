"""From the settings to what each room wants: tenants, keys, and the rooms' own settings structs.

Pure, but for reading key and tenant files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dualcast import __version__
from dualcast.bus.redis.options import RedisSettings
from dualcast.conversations.model import ConversationSettings
from dualcast.dialects.legacy import LegacySettings
from dualcast.gateway.limits import RateSettings
from dualcast.gateway.services import GatewaySettings
from dualcast.identity.keys import BadKey, JwksEndpoint, VerificationKey
from dualcast.inbox.port import InboxSettings
from dualcast.presence.port import PresenceSettings
from dualcast.publishing.requests import PushPolicy
from dualcast.publishing.service import PublishSettings
from dualcast.publishing.turns import TurnSettings
from dualcast.push.port import PushSettings
from dualcast.sections import Key
from dualcast.session.node import SessionSettings
from dualcast.settings import Settings, SettingsError
from dualcast.tasks.older_queue import OlderQueueSettings
from dualcast.tasks.port import TaskSettings
from dualcast.tenancy.model import Tenant, TenantSettings
from dualcast.tenancy.seeds import load_tenants
from dualcast.tenancy.validate import BadTenant
from dualcast.transport.options import TransportSettings
from dualcast_migration.older_backends import OlderSettings
from dualcast_migration.policy import StageRecord
from dualcast_migration.stage import Stage

DEV_TOPICS = ("wallet_updates", "system_status")
"""Public topics of `serve --dev` (contract section 1.9)."""


def redis_settings(settings: Settings) -> RedisSettings:
    """The redis engine's share of the settings."""
    bus, redis = settings.bus, settings.redis
    return RedisSettings(
        url=redis.url or "redis://",
        sentinels=redis.sentinels,
        service=redis.service,
        sentinel_username=redis.sentinel_username,
        sentinel_password=redis.sentinel_password,
        prefix=redis.key_prefix,
        pool_connections=redis.pool_connections,
        connect_s=redis.connect_timeout_s,
        command_s=redis.command_timeout_s,
        probe_every_s=bus.probe_interval_s,
        held_bytes=bus.max_held_bytes,
    )


def inbox_settings(settings: Settings) -> InboxSettings:
    """The inbox room's share of the settings."""
    return InboxSettings(max_items=settings.inbox.max_items, max_age_s=settings.inbox.max_age_s)


def presence_settings(settings: Settings) -> PresenceSettings:
    """The presence room's share of the settings."""
    return PresenceSettings(lease_s=settings.presence.lease_s)


def push_settings(settings: Settings) -> PushSettings:
    """The push room's share of the settings."""
    push = settings.push
    return PushSettings(
        max_queued=push.max_queued,
        deadline_s=push.deadline_s,
        max_attempts=push.max_attempts,
        backoff_min_s=push.backoff_min_s,
        backoff_max_s=push.backoff_max_s,
        lease_s=push.timeout_s + 50,
        timeout_s=push.timeout_s,
        concurrency=push.concurrency,
        tenant_concurrency=max(1, push.concurrency // 2),
    )


def push_provider_settings(settings: Settings) -> dict[str, Any]:
    """What the provider is given: the webhook its fields, a plug-in its options."""
    push = settings.push
    if push.provider == "webhook":
        return {
            "url": push.url,
            "secret": push.secret,
            "timeout_s": push.timeout_s,
            "allow_http": push.allow_http,
        }
    return dict(option.partition("=")[::2] for option in push.options)


def default_push(settings: Settings) -> PushPolicy:
    """The policy of notifications that name none: a push where it reaches people."""
    push = settings.push
    if push.when is not None:
        return push.when
    return "never" if push.provider in ("none", "log", "logging") else "offline"


def publish_settings(settings: Settings) -> PublishSettings:
    return PublishSettings(
        max_data_bytes=settings.server.max_body_bytes,
        max_batch_items=settings.limits.batch_items,
        default_push=default_push(settings),
        turns=TurnSettings(
            waiting_items=settings.limits.waiting_per_tenant, waiting_bytes=settings.limits.waiting_bytes
        ),
    )


def task_settings(settings: Settings) -> TaskSettings:
    """The task room's share of the settings."""
    tasks = settings.tasks
    return TaskSettings(
        finished_s=tasks.finished_s,
        unfinished_s=tasks.unfinished_s,
        max_tasks_per_batch=tasks.max_per_batch,
    )


def older_queue_settings(settings: Settings) -> OlderQueueSettings:
    """The older queue's share of the settings."""
    return OlderQueueSettings(
        tenant=settings.tenancy.legacy_tenant, batch_poll_s=settings.legacy.batch_poll_s
    )


def older_settings(settings: Settings) -> OlderSettings:
    """How this server lives next to older backends."""
    return OlderSettings(tenant=settings.tenancy.legacy_tenant)


def conversation_settings(settings: Settings) -> ConversationSettings:
    """The conversation room's share of the settings."""
    conversations = settings.conversations
    return ConversationSettings(
        messages_kept=conversations.max_messages,
        messages_age_s=conversations.max_age_s,
        messages_per_user_per_s=conversations.messages_per_user_per_s,
        signals_per_user_per_s=conversations.signals_per_user_per_s,
    )


def seeds(settings: Settings) -> tuple[Tenant, ...]:
    """The tenants the settings describe: the legacy tenant always, and those of the tenant file. Raises
    BadTenant, and SettingsError for a file that cannot be read.
    """
    tenancy = settings.tenancy
    try:
        listed = load_tenants(Path(tenancy.file)) if tenancy.file else ()
    except OSError as error:
        raise SettingsError(f"tenancy.file: {tenancy.file}: {error.strerror}") from None
    for tenant in listed:
        for name in ("history_entries", "history_s"):
            own, most = getattr(tenant.settings, name), getattr(settings.bus, name)
            if own is not None and own > most:
                raise BadTenant(f"tenant {tenant.id}: settings.{name}: at most what the server keeps, {most}")
    if any(tenant.id == tenancy.legacy_tenant for tenant in listed):
        return listed
    default = Tenant(
        id=tenancy.legacy_tenant,
        settings=TenantSettings(public_channels=tenancy.public_channels),
        stage=StageRecord(stage=Stage(tenancy.stage)),
    )
    return (default, *listed)


def verification_keys(settings: Settings) -> list[VerificationKey]:
    """The keys of the settings. Raises BadKey, and SettingsError for a file that cannot be read."""
    identity = settings.identity

    def verification_key(key: Key) -> VerificationKey:
        material = key.secret.encode() if key.secret else _read("identity.keys", key.public_key_file)
        try:
            return VerificationKey(
                algorithm=key.algorithm,
                material=material,
                tenant=key.tenant or settings.tenancy.legacy_tenant,
                kid=key.id,
                issuer=identity.issuer,
                audience=identity.audience,
                legacy_short_keys=identity.allow_short_secrets,
            )
        except BadKey as error:
            raise BadKey(
                f"identity.keys: {key.public_key_file or key.id or 'secret'}: {error.reason}"
            ) from None

    return [verification_key(key) for key in identity.keys]


def _read(setting: str, file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise SettingsError(f"{setting}: {file}: {error.strerror}") from None


def endpoints(settings: Settings) -> list[JwksEndpoint]:
    """The key set of the settings' identity provider, if there is one."""
    identity = settings.identity
    if not identity.jwks_url:
        return []
    tenant = settings.tenancy.legacy_tenant
    return [
        JwksEndpoint(url=identity.jwks_url, tenant=tenant, issuer=identity.issuer, audience=identity.audience)
    ]


def legacy_settings(settings: Settings) -> LegacySettings:
    """What the older contracts are made with."""
    legacy = settings.legacy
    return LegacySettings(
        ws_heartbeat_s=legacy.ws_heartbeat_s,
        max_connections_per_user=legacy.connections_per_user,
        connection_timeout_ms=legacy.connect_timeout_ms,
        max_reconnect_attempts=legacy.reconnect_attempts,
        task_heartbeat_s=legacy.task_heartbeat_s,
        task_idle_s=legacy.task_idle_s,
        batch_idle_s=legacy.batch_idle_s,
        progress_ping_s=legacy.progress_ping_s,
        progress_max_connections=legacy.progress_connections,
        topics_idle_s=legacy.topics_idle_s,
        topics_public=(*legacy.topics_public, *(DEV_TOPICS if settings.server.dev else ())),
        stats_public=legacy.stats_public or settings.server.dev,
        stream_ids=legacy.stream_ids,
        cut_on_expiry=legacy.cut_on_expiry,
        dev=settings.server.dev,
        tenant=settings.tenancy.legacy_tenant,
    )


def gateway_settings(settings: Settings) -> GatewaySettings:
    """The HTTP edge's share of the settings."""
    server = settings.server
    return GatewaySettings(
        max_body_bytes=server.max_body_bytes,
        max_batch_bytes=server.max_batch_bytes,
        max_batch_items=settings.limits.batch_items,
        body_deadline_s=server.body_deadline_s,
        metrics_token=server.metrics_token,
        ticket_s=settings.identity.ticket_s,
        version=__version__,
        operator_tenant=settings.tenancy.operator_tenant or settings.tenancy.legacy_tenant,
        legacy_tenant=settings.tenancy.legacy_tenant,
        new_tenant_stage=Stage(settings.tenancy.stage),
        history_entries=settings.bus.history_entries,
        history_s=settings.bus.history_s,
    )


def rate_settings(settings: Settings) -> RateSettings:
    """The rate limits' share of the settings; loopback and trusted proxies are exempt."""
    limits = settings.limits
    return RateSettings(
        requests_per_ip_per_s=limits.requests_per_ip_per_s,
        requests_per_principal_per_s=limits.requests_per_principal_per_s,
        handshakes_per_ip_per_s=limits.handshakes_per_ip_per_s,
        burst_s=limits.burst_s,
        exempt=("127.0.0.0/8", "::1", *settings.server.trusted_proxies),
    )


def session_settings(settings: Settings) -> SessionSettings:
    """The session room's share of the settings."""
    delivery, limits = settings.delivery, settings.limits
    return SessionSettings(
        max_channels=limits.channels_per_session,
        max_per_user=limits.connections_per_user,
        max_connections=limits.connections,
        page_limit=settings.bus.recovery_page_entries,
        lag_limit_s=delivery.lag_limit_s,
        heartbeat_sse_s=delivery.sse_heartbeat_s,
        heartbeat_ws_s=delivery.ws_heartbeat_s,
        dead_after_s=delivery.dead_after_s,
        move_spread_s=delivery.move_spread_s,
        move_grace_s=delivery.move_grace_s,
        retry_min_ms=delivery.retry_min_ms,
        retry_max_ms=delivery.retry_max_ms,
        max_frame_bytes=limits.max_frame_bytes,
    )


def transport_settings(settings: Settings) -> TransportSettings:
    """The transport room's share of the settings."""
    server = settings.server
    return TransportSettings(
        host=server.host,
        port=server.port,
        workers=server.workers,
        loop=server.loop,
        backlog=server.backlog,
        header_s=server.header_deadline_s,
        header_bytes=server.max_header_bytes,
        keep_alive_s=round(server.keep_alive_s),
        max_connections_per_address=settings.limits.connections_per_ip,
        trusted_proxies=server.trusted_proxies,
        max_frame_bytes=settings.limits.max_frame_bytes,
        compression=settings.delivery.compression,
        drain_s=server.drain_s,
    )
