"""What a call does, without doing it: generators that yield steps, driven by `AsyncClient` or `Client`.

A flow yields `Send`, `Sleep`, `Token` or `Ask` and is resumed with the outcome (an answer, None, a token,
what was asked for), or with the httpx.RequestError a `Send` ended with. So repetition, batches and the
rest exist once for both clients.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar

import httpx
import msgspec
from msgspec import Struct

from .answers import Problem
from .errors import DualcastError

T = TypeVar("T")
log = logging.getLogger("dualcast_client")

AGAIN = frozenset({429, 502, 503, 504})
"""Statuses after which the same request is sent again."""
SURELY_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
LOST = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError, httpx.ProxyError)
"""No answer came; nobody knows whether the server has acted."""

_problem = msgspec.json.Decoder(Problem).decode


class Retries(Struct, frozen=True, kw_only=True):
    """How a call is repeated. Before repetition n the client waits a random time between 0 and
    `base_s * 2**(n-1)`, at most `cap_s`; a `Retry-After` comes on top of it."""

    count: int = 4
    """0: never."""
    base_s: float = 0.2
    cap_s: float = 5.0
    within_s: float = 50.0
    """No repetition begins later than this after the first attempt: the server remembers ids for a time only
    (at least 60 s), and one that it has forgotten would be published again. A longer `Retry-After` ends the
    call."""

    def wait_s(self, repetition: int, retry_after_s: float | None, draw: Callable[[], float]) -> float:
        """Seconds before a repetition (the first is 1). `draw`: a number in [0, 1)."""
        wait = draw() * min(self.cap_s, self.base_s * 2.0 ** min(repetition - 1, 30))
        return wait + (retry_after_s or 0.0)


@dataclass(frozen=True, slots=True)
class Send:
    """An HTTP request with this token."""

    method: str
    path: str
    body: bytes | None
    query: Mapping[str, str | int | Sequence[str]]
    token: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sleep:
    seconds: float


@dataclass(frozen=True, slots=True)
class Token:
    """The token. `refused`: the one that does not do any more, "": any will do."""

    refused: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Ask:
    """Calls the application; what it gives back is awaited where it can be."""

    function: Callable[[str], Any]
    argument: str


Step = Send | Sleep | Token | Ask
Flow = Generator[Step, Any, T]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request of the REST interface, and how its answer is read."""

    method: str
    path: str
    decode: Callable[[bytes], T]
    body: bytes | None = None
    query: Mapping[str, str | int | Sequence[str]] = field(default_factory=dict)
    repeatable: bool = True
    """The server takes it twice for once. Else it is sent again only when it surely was not acted on."""
    headers: Mapping[str, str] = field(default_factory=dict)
    command: Mapping[str, Any] | None = None
    """The same as a command on an open WebSocket (docs/protocol.md, PROTO-46)."""
    reply: Callable[[Mapping[str, Any]], T] | None = None
    """How the reply to that is read. Raises DualcastError."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What flows take from the client they run in."""

    retries: Retries
    renewable: bool
    """The token can be fetched again."""
    clock: Callable[[], float] = time.monotonic
    draw: Callable[[], float] = random.random


def perform(policy: Policy, call: Call[T]) -> Flow[T]:
    """Sends until there is an answer that counts. Raises DualcastError."""
    begun = policy.clock()
    repetition = 0
    token = yield Token()
    renewed = False
    while True:
        try:
            answer = yield Send(call.method, call.path, call.body, call.query, token, call.headers)
        except LOST as error:
            failure = _lost(error)
            if not (call.repeatable or isinstance(error, SURELY_NOT_SENT)):
                raise failure from None
        else:
            if 200 <= answer.status < 300:
                return _decoded(call, answer)
            failure = refusal(answer)
            if answer.status == 401 and policy.renewable and not renewed:
                renewed = True
                token = yield Token(refused=token)
                continue
            if answer.status not in AGAIN or not (call.repeatable or answer.status in (429, 503)):
                raise failure
        repetition += 1
        wait = pause_s(policy, repetition, begun, failure)
        log.info("%s %s is repeated in %.1f s: %s", call.method, call.path, wait, failure)
        yield Sleep(wait)


def pause_s(policy: Policy, repetition: int, begun: float, failure: DualcastError) -> float:
    """Seconds to wait before a repetition; raises `failure` when there shall be none."""
    retries = policy.retries
    if repetition > retries.count:
        raise failure from None
    wait = retries.wait_s(repetition, failure.retry_after_s, policy.draw)
    if policy.clock() - begun + wait > retries.within_s:
        raise failure from None
    return wait


def refusal(answer: Answer) -> DualcastError:
    """The error an answer stands for."""
    problem = Problem()
    if "json" in answer.headers.get("content-type", ""):
        with contextlib.suppress(msgspec.MsgspecError):
            problem = _problem(answer.body)
    status = answer.status
    return DualcastError(
        problem.code or f"http-{status}",
        status,
        problem.detail or problem.title,
        retryable=problem.retryable or status in AGAIN,
        retry_after_s=retry_after_s(answer.headers.get("retry-after", "")),
        errors=[(one.path, one.message) for one in problem.errors],
        channels=problem.channels,
    )


def retry_after_s(text: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> float | None:
    """Seconds of a Retry-After field (RFC 9110 10.2.3: seconds, or a date); None: there is none."""
    text = text.strip()
    if not text:
        return None
    try:
        seconds = float(text)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - now()).total_seconds())


def _decoded(call: Call[T], answer: Answer) -> T:
    try:
        return call.decode(answer.body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise DualcastError("bad-answer", answer.status, "the answer is not what dualcast answers") from None


def _lost(error: httpx.RequestError) -> DualcastError:
    # The words of httpx name hosts and causes, never header fields.
    if isinstance(error, httpx.TimeoutException):
        return DualcastError("timeout", 0, "no answer in time", retryable=True)
    return DualcastError("unreachable", 0, str(error) or type(error).__name__, retryable=True)
