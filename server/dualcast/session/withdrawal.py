"""Taking channels from live sessions when the grant that let them in is withdrawn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from dualcast.hub.feed import ChannelFeed
from dualcast.model.channel import ALL
from dualcast.model.principal import Principal

from .node import Node
from .session import Session

MaySubscribe = Callable[[Principal, str], Awaitable[bool]]


class Withdrawals:
    """Follows the grants (callbacks of `state.follow`). Who may not subscribe any more is told `unsubscribed`
    and gets nothing more of the channel; the connection stays. Raises BusUnavailable: then it is asked again.
    """

    def __init__(self, node: Node, may_subscribe: MaySubscribe) -> None:
        self._node = node
        self._may_subscribe = may_subscribe

    async def changed(self, key: str) -> None:
        """The grant `<tenant>/<channel>` is another one."""
        self._node.grant_changes += 1
        tenant, _, channel = key.partition("/")
        found = self._node.hub.tenants.get(tenant)
        feed = found.channels.get(channel) if found is not None else None
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
            if isinstance(session, Session) and not await self._may_subscribe(session.principal, feed.name):
                session.withdraw([feed.name])
