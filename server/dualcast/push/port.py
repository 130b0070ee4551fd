"""The two ports of this room: `PushQueue`, where jobs wait, and `Provider`, which sends them.

A job is one publication for one user. It is sent at least once: a node that dies in the middle leaves a
lease that runs out, and another node sends again; the publication's id is the collapse id, so a device shows
both as one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from dualcast.model.errors import DualcastError
from dualcast.model.push import PushMessage

_OTHER = re.compile(r"[^a-z0-9.-]+")
QUEUE_FULL = "queue-full"
DEADLINE = "deadline"
ATTEMPTS = "attempts"
MALFORMED = "malformed"
"""Reasons of dead letters that are ours; the others are the provider's own (`Refused.reason`)."""


class PushSettings(Struct, frozen=True, kw_only=True):
    """The queue and its worker."""

    max_queued: int = 100_000
    """Jobs per tenant; beyond, new ones become dead letters with reason `queue-full`."""
    deadline_s: float = 3600.0
    """A push that could not be sent for so long is not sent any more, unless its publisher said otherwise."""
    max_attempts: int = 25
    backoff_min_s: float = 1.0
    """Upper bound of the first wait; it doubles with every attempt. The wait is random below it."""
    backoff_max_s: float = 300.0
    """Bound of every wait, a provider's `Retry-After` too."""
    lease_s: float = 60.0
    """Nobody else sends a claimed job for so long; more than `timeout_s`."""
    timeout_s: float = 10.0
    """For one call of the provider."""
    concurrency: int = 8
    """Calls of the provider at a time, per node."""
    tenant_concurrency: int = 4
    """Of these, for one tenant."""
    scan_s: float = 5.0
    """Between two looks for jobs of nodes that died."""
    drain_s: float = 5.0
    """On shutdown, for calls that are under way."""
    max_dead: int = 1000
    """Dead letters kept per tenant; the oldest go first."""
    dead_s: int = 7 * 86_400


class PushJob(Struct, frozen=True, kw_only=True):
    """What a provider sends."""

    tenant: str
    id: str
    """The publication's id, and the collapse id."""
    user: str
    message: PushMessage
    attempt: int
    """1: the first."""
    queued_ms: int
    """Unix milliseconds."""
    deadline_ms: int


class Claimed(Struct, frozen=True, kw_only=True):
    """A leased job as it is stored."""

    tenant: str
    id: str
    user: str
    message: bytes
    """`model.push.PushMessage`, encoded."""
    attempt: int
    queued_ms: int
    deadline_ms: int
    token: str
    """Of the lease: who holds another one cannot put the job back or bury it."""


class Facts(Struct, frozen=True, kw_only=True):
    """A tenant's queue at one moment. Times in Unix milliseconds of the store's clock."""

    now_ms: int
    queued: int
    """Jobs waiting, leased ones included."""
    oldest_ms: int = 0
    """When the oldest of them was queued; 0: none waits."""
    dead: int = 0
    """Dead letters kept."""
    counts: Mapping[str, int] = {}
    """Totals of the tenant over all nodes: `queued`, `skipped` (the user was online), `sent`, `retried`,
    `dead`."""


class Claim(Struct, frozen=True):
    """`next_due_ms`: when the next job is due that is not in `jobs`, or a lease ends; 0: nothing waits."""

    jobs: Sequence[Claimed]
    next_due_ms: int
    facts: Facts


class DeadLetter(Struct, frozen=True, kw_only=True):
    """A push that was given up."""

    number: int
    """Its id within the tenant; later ones are higher."""
    id: str
    user: str
    message: bytes
    attempts: int
    queued_ms: int
    dead_ms: int
    reason: str
    """`queue-full`, `deadline`, `attempts`, `malformed`, or the provider's reason."""
    error: str = ""
    """What the last attempt ended with."""


class PushQueue(Protocol):
    """Jobs by tenant, in the bus's engine. Jobs are born in the append (`PushRider`), not here.

    Times are of the store's clock. Every method raises BusUnavailable.
    """

    async def ensure(self, tenant: str) -> None:
        """From now on `tenants` names the tenant, for 10 minutes at least, and as long as it has jobs."""
        ...

    async def tenants(self) -> Sequence[str]:
        """The tenants that may have jobs."""
        ...

    async def forget(self, tenants: Sequence[str]) -> None:
        """These were found without jobs: `tenants` need not name those that were not ensured for long."""
        ...

    async def tidy(self) -> None:
        """Forgets dead letters that are too old."""
        ...

    async def claim(self, tenant: str, limit: int, lease_s: float, token: str) -> Claim:
        """Leases at most `limit` due jobs, the longest due first, and counts an attempt of each. `token` is
        unique per call."""
        ...

    async def done(self, job: Claimed) -> bool:
        """The job was sent and is forgotten, whoever holds its lease now. False: it was gone already."""
        ...

    async def retry(self, job: Claimed, delay_s: float) -> bool:
        """Ends the lease; the job is due in `delay_s`. False: the lease had run out, another one has it."""
        ...

    async def bury(self, job: Claimed, reason: str, error: str = "") -> bool:
        """Makes it a dead letter. False: the lease had run out."""
        ...

    async def facts(self, tenant: str) -> Facts: ...

    async def dead(self, tenant: str, after: int, limit: int) -> Sequence[DeadLetter]:
        """Dead letters with a higher number than `after`, in order."""
        ...

    async def revive(self, tenant: str, number: int) -> bool:
        """A dead letter becomes a new job, due now, with the queue's own deadline. False: no such letter."""
        ...

    async def discard(self, tenant: str, number: int) -> bool:
        """Forgets a dead letter. False: no such letter."""
        ...


def _code(reason: str) -> str:
    """`reason` as it may stand in a log line and an answer, whoever wrote it."""
    return _OTHER.sub("-", reason.lower())[:64] or "unknown"


class ProviderUnusable(DualcastError):
    """The configured provider cannot work: the server does not start. `reason` tells the operator why."""

    code = "provider-unusable"


class Refused(Exception):
    """Sending this job again cannot help. `reason`: kebab-case, at most 64 characters."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = _code(reason)


class TryLater(Exception):
    """Not now. `retry_after_s`: the provider asked to be left alone at least so long (the tenant's other jobs
    wait, too); None: the queue's back-off. `reason`: as of Refused."""

    def __init__(self, reason: str = "unavailable", *, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = _code(reason)
        self.retry_after_s = retry_after_s


class Provider(Protocol):
    """Sends pushes. One instance per process; `send` is called concurrently."""

    @property
    def name(self) -> str: ...

    async def check(self) -> None:
        """Raises ProviderUnusable when it cannot work as it is configured. Called once, before the start."""
        ...

    async def send(self, job: PushJob) -> None:
        """Returns when the push service has accepted it. Raises Refused, TryLater. What it raises else, and
        taking longer than the worker's `timeout_s`, counts as TryLater."""
        ...

    async def close(self) -> None: ...
