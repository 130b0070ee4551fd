"""redis-py connections to the master the sentinels name.

Where redis-py's own pool for sentinels raises when it is empty and asks one sentinel, these go into any pool
and ask as `sentinels` does. A connection to a replaced master is not used again.
"""

from __future__ import annotations

from typing import Any

from redis.asyncio.connection import Connection, SSLConnection
from redis.exceptions import ConnectionError, MasterDownError, ReadOnlyError, ResponseError

from .sentinels import Named, Sentinels
from .wire import LinkLost


class ElectedConnection(Connection):
    """A `Connection` that looks for its host each time it connects. Raises redis-py's errors."""

    def __init__(self, *, sentinels: Sentinels, **kwargs: Any) -> None:
        self._sentinels = sentinels
        self._master: Named | None = None
        super().__init__(**kwargs)

    async def connect(self) -> None:
        """Also called for each use of an open connection."""
        if self.is_connected and self._master is not None and self._sentinels.is_left(self._master):
            await self.disconnect(nowait=True)
        await super().connect()  # type: ignore[no-untyped-call]

    async def _connect(self) -> None:
        try:
            self._master = await self._sentinels.master()
        except LinkLost:
            raise ConnectionError("no sentinel names a master") from None
        self.host, self.port = self._master.host, self._master.port
        await super()._connect()  # type: ignore[no-untyped-call]

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        await super().on_connect_check_health(check_health=check_health)
        await self.send_command("ROLE", check_health=False)
        role = await self.read_response(disable_decoding=True)
        if role[0] != b"master":
            raise ConnectionError("the sentinels name a server that is no master")

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().read_response(*args, **kwargs)
        except ResponseError as error:
            # redis-py makes the first word of an error its class.
            if isinstance(error, ReadOnlyError | MasterDownError) or self._sentinels.is_demoted(str(error)):
                await self.disconnect(nowait=True)
            raise


class ElectedTlsConnection(ElectedConnection, SSLConnection):
    """The same over TLS."""
