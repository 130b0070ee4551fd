"""Short waits of admission and commands: until channels are watched, until a client has read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from dualcast.hub.feed import ChannelFeed

from .node import Node
from .session import Session

WATCH_TIMEOUT_S = 5.0


async def watched(node: Node, feeds: Sequence[ChannelFeed]) -> bool:
    """True once every feed is watched; False at once when the bus is away, or when it takes longer than 5
    s."""
    if all(feed.complete_from >= 0 for feed in feeds):
        return True
    if not node.hub.available:
        return False
    future: asyncio.Future[bool] = node.loop.create_future()

    def answer(ready: bool) -> None:
        if not future.done():
            future.set_result(ready)

    def ready() -> None:
        answer(True)

    if node.hub.when_watched(feeds, ready):
        return True
    timer = node.loop.call_later(WATCH_TIMEOUT_S, answer, False)
    try:
        return await future
    finally:
        timer.cancel()
        node.hub.stop_waiting(feeds, ready)


async def writable(session: Session) -> bool:
    """True when the session's transport takes data; waits while it is paused. False once the session is
    closed.

    Polled: only a client that asks for old history and does not read it is ever waited for, and `lag_limit_s`
    ends it.
    """
    while session.paused and not session.closed:
        await asyncio.sleep(0.05)
    return not session.closed
