"""Commands on an open WebSocket, and the replies they wait for (PROTO-21)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from .calls import encode
from .errors import DualcastError
from .events import Reply

AT_ONCE = 16
"""Commands on their way; the server ends a connection that sends too many."""
ANSWER_S = 45.0
"""Longer than a dead socket goes unnoticed."""
PING = "ping"


class Lost(Exception):
    """The connection ended before the reply; whether the command was carried out is not known."""


class Commands:
    """Those of one subscription, over one connection after the other."""

    def __init__(self) -> None:
        self._replies: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._count = 0

    async def ask(
        self, send: Callable[[str], Awaitable[None]], fields: Mapping[str, Any], within_s: float = ANSWER_S
    ) -> dict[str, Any]:
        """The reply's fields. Raises Lost; DualcastError with the code of the refusal, or `timeout`."""
        async with self._turn:
            self._count += 1
            ref = f"c{self._count}"
            reply: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
            self._replies[ref] = reply
            try:
                async with asyncio.timeout(within_s):
                    await send(command(ref, fields))
                    return await reply
            except TimeoutError:
                raise DualcastError("timeout", 0, "no reply in time", retryable=True) from None
            finally:
                del self._replies[ref]

    def reply(self, frame: Reply) -> None:
        """Gives a reply to whoever waits for it."""
        waiting = self._replies.get(frame.ref)
        if waiting is None or waiting.done():
            return
        if frame.kind == "error":
            code, reason = str(frame.body.get("code", "")), str(frame.body.get("reason", ""))
            again, channels = code in AGAIN, [str(one) for one in frame.body.get("channels") or ()]
            waiting.set_exception(
                DualcastError(code or "refused", 0, reason, retryable=again, channels=channels)
            )
        else:
            waiting.set_result(frame.body)

    def lost(self) -> None:
        """Their connection is gone."""
        for waiting in self._replies.values():
            if not waiting.done():
                waiting.set_exception(Lost())


AGAIN = frozenset({"bus-unavailable", "internal", "rate-limited"})


def command(ref: str, fields: Mapping[str, Any]) -> str:
    return encode({**fields, "ref": ref}).decode()
