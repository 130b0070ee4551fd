"""How the older contracts say no (section 1.3): a socket is accepted and closed with a code a browser can
read, and whoever does not take that for an answer is refused before the accept; HTTP gets a small problem
document.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from dualcast.dialects.legacy import Refusal
from dualcast.gateway.problems import MEDIA_TYPE

PATIENCE = 3
"""Refusals of one token (or address) on one path that are told by a close code."""
WINDOW_S = 60.0
MAX_KEYS = 10_000
"""Refused callers remembered; beyond it the one not seen for longest starts anew."""
RETRY_AFTER_S = 2

_encode = msgspec.json.Encoder().encode


class Refused(Exception):
    """An admission that ended in a `Refusal`."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


class _Caller:
    __slots__ = ("blocked", "last", "times")

    def __init__(self) -> None:
        self.times: list[float] = []
        self.last = 0.0
        self.blocked = False


class RepeatedRefusals:
    """Legacy clients reset their retry counter in `onopen`, so "accept, then close" alone would make one with
    an expired token come back every second for ever. A bounded table; `clock` gives seconds."""

    def __init__(self, *, max_keys: int = MAX_KEYS, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_keys = max_keys
        self._clock = clock
        self._callers: OrderedDict[bytes, _Caller] = OrderedDict()

    def note(self, path: str, caller: str) -> bool:
        """Counts a refusal of `caller` (a token, or an address) on `path`. True: it is to be given before the
        accept, like every one since the third within WINDOW_S, until WINDOW_S pass without one."""
        now = self._clock()
        key = hashlib.blake2b(f"{path}\0{caller}".encode(errors="replace"), digest_size=16).digest()
        found = self._callers.get(key)
        if found is None or now - found.last >= WINDOW_S:
            found = self._callers[key] = _Caller()
        self._callers.move_to_end(key)
        while len(self._callers) > self._max_keys:
            self._callers.popitem(last=False)
        found.last = now
        if found.blocked:
            return True
        found.times = [at for at in found.times if now - at < WINDOW_S] + [now]
        found.blocked = len(found.times) >= PATIENCE
        return False

    def __len__(self) -> int:
        return len(self._callers)


def problem(status: int, detail: str) -> bytes:
    """The body older clients know."""
    title = HTTPStatus(status).phrase
    return _encode({"type": "about:blank", "title": title, "status": status, "detail": detail})


def problem_headers(status: int, *, retry_after_s: float | None = None) -> dict[str, str]:
    """What belongs to a problem of `status`; names in lower case."""
    headers = {"cache-control": "no-store"}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if status == 503:
        headers["retry-after"] = str(max(1, round(retry_after_s or RETRY_AFTER_S)))
    return headers


async def send_refusal(send: Any, status: int, detail: str, *, retry_after_s: float | None = None) -> None:
    """Answers an HTTP request."""
    body = problem(status, detail)
    fields = {
        "content-type": MEDIA_TYPE,
        "content-length": str(len(body)),
        **problem_headers(status, retry_after_s=retry_after_s),
    }
    headers = [(name.encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def deny(receive: Any, send: Any) -> None:
    """Refuses a handshake before the accept: HTTP 403."""
    if (await receive())["type"] == "websocket.connect":
        await send({"type": "websocket.close", "code": 1008, "reason": ""})


async def accept_and_close(
    receive: Any, send: Any, code: int, reason: str, last: Sequence[bytes] = ()
) -> None:
    """Accepts a handshake, sends `last` (texts) and closes."""
    if (await receive())["type"] != "websocket.connect":
        return
    await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
    for text in last:
        await send({"type": "websocket.send", "text": text.decode()})
    await send({"type": "websocket.close", "code": code, "reason": reason})
