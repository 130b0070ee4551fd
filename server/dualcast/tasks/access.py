"""Who may subscribe to `task:` and `batch:` channels: grants given at registration, withdrawn when retention
has ended.
"""

from __future__ import annotations

import logging
from collections import deque

from dualcast.model.errors import DualcastError
from dualcast.tenancy.grants import NO_GRANT, Grant, Grants

from .port import TaskStore

_log = logging.getLogger(__name__)


class ChannelAccess:
    """Grants of the channels of this room. What is withdrawn waits for `withdraw`, at most `most` channels:
    beyond that the oldest grant stays, which opens nothing but an empty channel, and is counted.
    """

    def __init__(self, grants: Grants, store: TaskStore, most: int) -> None:
        self._grants = grants
        self._store = store
        self._most = most
        self._gone: deque[tuple[str, str]] = deque()
        self.kept = 0
        """Grants that stay although their channel is gone."""

    @property
    def waiting(self) -> int:
        return len(self._gone)

    async def let_in(self, tenant: str, channel: str, grant: Grant, *, made: bool) -> None:
        """Lets owner and members in. `made`: the channel is new, so that a grant with another owner, or one
        that waits to be withdrawn, is of an earlier life of its id. Raises BusUnavailable, LimitExceeded.
        """
        earlier = made and (
            (tenant, channel) in self._gone
            or (await self._grants.get(tenant, channel)).grant.owner not in ("", grant.owner)
        )
        if earlier:
            await self._grants.set(tenant, channel, grant)
        else:
            await self._grants.add(tenant, channel, grant.members, owner=grant.owner)

    def gone(self, tenant: str, channels: tuple[str, ...]) -> None:
        """These channels have no task or batch any more."""
        self._gone.extend((tenant, channel) for channel in channels)
        while len(self._gone) > self._most:
            self._gone.popleft()
            self.kept += 1

    async def withdraw(self) -> None:
        """Withdraws what waits, unless the id is in use again. Stops when the store is away."""
        while self._gone:
            tenant, channel = self._gone[0]
            kind, _, ident = channel.partition(":")
            try:
                if kind == "task":
                    used = (await self._store.load(tenant, ident)).task is not None
                else:
                    used = (await self._store.load_batch(tenant, ident)).batch is not None
                if not used:
                    await self._grants.set(tenant, channel, NO_GRANT)
            except DualcastError as error:
                _log.warning("the grant of %s cannot be withdrawn now: %s", channel, error.code)
                return
            if self._gone and self._gone[0] == (tenant, channel):
                self._gone.popleft()
