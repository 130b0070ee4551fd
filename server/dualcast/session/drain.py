"""Paced drain: on shutdown every client is told when to come back, in batches, so that no reconnect storm
follows."""

from __future__ import annotations

import asyncio

from dualcast.model.codes import Close

from .node import Node

STEP_S = 0.1


async def drain(node: Node, duration_s: float) -> int:
    """Closes all sessions over about `duration_s` seconds with code 4100 and a jittered delay; returns how
    many.

    New connections during the drain are accepted, told the same and closed. Ends when the last byte has been
    taken or `duration_s` plus the close timeout is over (what is left then is aborted).
    """
    node.draining = True
    sessions = list(node.hub.sessions.values())
    total = len(sessions)
    # Two thirds of the time for closing, the rest for the peers to take their last bytes.
    steps = max(1, int(duration_s * 2 / 3 / STEP_S))
    size = max(1, -(-total // steps))
    for start in range(0, total, size):
        for session in sessions[start : start + size]:
            session.close(Close.DRAIN)  # type: ignore[attr-defined]
        if start + size < total:
            await asyncio.sleep(STEP_S)
    deadline = node.loop.time() + min(duration_s / 3, node.settings.close_timeout_s)
    while node.closing and node.loop.time() < deadline:
        await asyncio.sleep(STEP_S / 4)
    for left in list(node.closing):
        left.transport.abort()
    return total
