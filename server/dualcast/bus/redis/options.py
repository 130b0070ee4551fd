"""Settings of the redis engine."""

from __future__ import annotations

from msgspec import Struct


class RedisSettings(Struct, frozen=True, kw_only=True):
    """How to reach Redis and how patient to be. `url`: `redis://`, `rediss://` or `unix://`, as redis-py
    writes them.
    """

    url: str = "redis://127.0.0.1:6379/0"
    sentinels: tuple[str, ...] = ()
    """`host:port` each; then the host of `url` does not count, and the master is who they say it is."""
    service: str = "mymaster"
    """The name under which the sentinels watch the master."""
    sentinel_username: str = ""
    sentinel_password: str = ""
    prefix: str = "dc"
    """First part of every key and pub/sub name."""
    pool_connections: int = 8
    """Bound of the shared redis-py pool; the bus itself adds three connections."""
    pool_wait_s: float = 2.0
    connect_s: float = 1.0
    """TCP, TLS and AUTH together."""
    command_s: float = 2.0
    """An append or read is answered, or refused as unavailable, within about this time."""
    probe_every_s: float = 3.0
    echo_s: float = 2.0
    """How long a probe waits for its echo on the live path; then the subscriber is replaced."""
    fresh_s: float = 1.0
    """A probe younger than this answers the next question for health."""
    backoff_min_s: float = 0.05
    backoff_max_s: float = 2.0
    held_bytes: int = 4 * 1024 * 1024
    """Per tenant, while its delivery is held for repair."""
    pending_calls: int = 10_000
    """Calls waiting for Redis; beyond, the bus is unavailable."""
    pending_bytes: int = 64 * 1024 * 1024
    page_bytes: int = 4 * 1024 * 1024
    max_heads: int = 1_000_000
    """Channels per tenant whose last offset is remembered."""
