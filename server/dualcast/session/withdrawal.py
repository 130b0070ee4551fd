"""Taking channels from live sessions when the grant that let them in is withdrawn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from dualcast.hub.feed import ChannelFeed
from dualcast.model.channel import ALL
from dualcast.model.principal import Principal

from .node import Node
from .session import Session

TOGETHER = 500
"""Sessions looked at in one turn of the loop."""
MaySubscribe = Callable[[Principal, str], Awaitable[bool]]


class Withdrawals:
    """Follows the grants (callbacks of `state.follow`). Who may not subscribe any more is told `unsubscribed`
    and gets nothing more of the channel; the connection stays. Raises BusUnavailable: then it is asked again.
    """

    def __init__(self, node: Node, may_subscribe: MaySubscribe) -> None:
        self._node = node
        self._may_subscribe = may_subscribe
        self._looked_at = 0

    async def changed(self, key: str) -> None:
        """The grant `<tenant>/<channel>` is another one."""
        self._node.grant_changes += 1
        tenant, _, channel = key.partition("/")
        feed = self._node.hub.known(tenant, channel)
        if feed is not None:
            await self._check(feed)

    async def resync(self) -> None:
        """Any grant may be another one."""
        self._node.grant_changes += 1
        for tenant in list(self._node.hub.tenants.values()):
            for feed in list(tenant.channels.values()):
                if feed.name != ALL and not feed.name.startswith("user:"):
                    await self._check(feed)

    async def _check(self, feed: ChannelFeed) -> None:
        for session in list(feed.sessions):
            self._looked_at += 1
            if self._looked_at % TOGETHER == 0:
                await asyncio.sleep(0)  # what is known is answered without waiting: others want their turn
            if not isinstance(session, Session) or await self._may_subscribe(session.principal, feed.name):
                continue
            if session in feed.sessions:  # it may have left meanwhile
                session.withdraw([feed.name])
