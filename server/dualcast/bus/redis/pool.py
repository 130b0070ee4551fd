"""The redis-py client a node shares for everything that is not the bus's own pipelines: state store, doctor,
tools.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from .dialing import Dialer, open_dialer
from .elected import ElectedConnection, ElectedTlsConnection
from .options import RedisSettings
from .sentinels import Sentinels


class PoolFacts(Struct, frozen=True):
    """How the pool stands. `available_connections`: open and not in use."""

    max_connections: int
    connection_class: str
    available_connections: int
    in_use_connections: int


class RedisPool:
    """A bounded, blocking pool of at most `pool_connections`, opened on demand.

    `client` is a plain `redis.asyncio.Redis` with bytes replies (RESP2), without retries (repeating a write
    is the caller's decision) and with bounded times. It raises redis-py's errors: turn them into
    BusUnavailable.
    """

    def __init__(self, settings: RedisSettings, dialer: Dialer | None = None) -> None:
        self._pool = BlockingConnectionPool(
            **connection_options(settings, dialer or open_dialer(settings)),
            max_connections=settings.pool_connections,
            timeout=settings.pool_wait_s,
            socket_timeout=settings.command_s,
            socket_connect_timeout=settings.connect_s,
            retry=Retry(NoBackoff(), 0),
            retry_on_error=[],
            protocol=2,
            client_name="dualcast-pool",
        )
        self.client: Redis = Redis(connection_pool=self._pool)

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        known = [*self._pool._available_connections, *self._pool._in_use_connections]
        return sum(connection.is_connected for connection in known)

    def facts(self) -> PoolFacts:
        """The numbers of this moment."""
        return PoolFacts(
            max_connections=self._pool.max_connections,
            connection_class=self._pool.connection_class.__name__,
            available_connections=len(self._pool._available_connections),
            in_use_connections=len(self._pool._in_use_connections),
        )

    async def close(self) -> None:
        """Closes all connections."""
        await self.client.aclose()
        await self._pool.disconnect()


def connection_options(settings: RedisSettings, dialer: Dialer) -> dict[str, Any]:
    """What a redis-py pool needs to reach the server that `dialer` reaches. Raises ValueError."""
    options: dict[str, Any] = dict(parse_url(settings.url))
    if isinstance(dialer, Sentinels):
        tls = options.get("connection_class") is SSLConnection
        options["connection_class"] = ElectedTlsConnection if tls else ElectedConnection
        options["sentinels"] = dialer
    return options
