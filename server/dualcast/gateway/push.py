"""`/v1/push`: the tenant's push queue and its dead letters. For administrators."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import delete, get, post
from litestar.params import FromPath, QueryParameter
from msgspec import Struct

from dualcast.model.errors import NotFound
from dualcast.model.principal import ADMIN
from dualcast.model.push import decode_push
from dualcast.push.port import DeadLetter

from .authentication import ROLE
from .services import Caller, Injected

_OPT = {ROLE: ADMIN}
_LETTER = "/v1/push/dead/{number:int}"
MAX_NUMBER = 2**53


class PushTotals(Struct, frozen=True):
    """Since the tenant's first push, over all nodes."""

    queued: int
    skipped: int
    """The user was online."""
    sent: int
    retried: int
    dead: int


class PushView(Struct, frozen=True):
    """The tenant's queue now."""

    provider: str
    queued: int
    oldest_age_s: float
    """Of the job that waits longest; 0: none waits."""
    dead: int
    """Dead letters kept."""
    totals: PushTotals


class DeadPush(Struct, frozen=True):
    """A push that was given up. Times in Unix seconds."""

    number: int
    id: str
    """The notification's id."""
    user: str
    title: str
    reason: str
    """`queue-full`, `deadline`, `attempts`, `malformed`, `no-provider`, `http-410` …"""
    error: str
    """What the last attempt ended with, when `reason` does not say so."""
    attempts: int
    queued_at: float
    dead_at: float


class DeadPage(Struct, frozen=True):
    """Ask again with `after=next` until `next` is 0."""

    dead: list[DeadPush]
    next: int


@get("/v1/push", opt=_OPT, summary="The push queue", tags=["push"], operation_id="Push")
async def push_overview(services: Injected, caller: Caller) -> PushView:
    """Depth, age and totals of the caller's tenant."""
    push = services.push
    facts = await push.facts(caller.tenant)
    names = PushTotals.__struct_fields__
    return PushView(
        provider=push.provider,
        queued=facts.queued,
        oldest_age_s=max(0, facts.now_ms - facts.oldest_ms) / 1000 if facts.oldest_ms else 0.0,
        dead=facts.dead,
        totals=PushTotals(**{name: facts.counts.get(name, 0) for name in names}),
    )


@get("/v1/push/dead", opt=_OPT, summary="List dead pushes", tags=["push"], operation_id="DeadPushes")
async def list_dead(
    services: Injected,
    caller: Caller,
    after: Annotated[int, QueryParameter(ge=0, le=MAX_NUMBER)] = 0,
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
) -> DeadPage:
    """Pushes of the caller's tenant that were given up, the oldest first; kept 7 days, 1,000 at most."""
    letters = await services.push.dead(caller.tenant, after, limit)
    views = [_view(letter) for letter in letters]
    return DeadPage(views, letters[-1].number if len(letters) == limit else 0)


@post(
    _LETTER + "/retry",
    opt=_OPT,
    status_code=202,
    summary="Send a dead push again",
    tags=["push"],
    operation_id="RetryDeadPush",
)
async def retry_dead(services: Injected, caller: Caller, number: FromPath[int]) -> None:
    """It is queued as new: with new attempts and a new deadline. Raises NotFound."""
    await services.push.revive(caller.tenant, _checked(number))


@delete(_LETTER, opt=_OPT, summary="Forget a dead push", tags=["push"], operation_id="DeleteDeadPush")
async def delete_dead(services: Injected, caller: Caller, number: FromPath[int]) -> None:
    """Raises NotFound."""
    await services.push.discard(caller.tenant, _checked(number))


def _checked(number: int) -> int:
    if not 0 < number <= MAX_NUMBER:
        raise NotFound("there is no such dead letter")
    return number


def _view(letter: DeadLetter) -> DeadPush:
    try:
        title = decode_push(letter.message).title
    except msgspec.MsgspecError:
        title = ""
    return DeadPush(
        number=letter.number,
        id=letter.id,
        user=letter.user,
        title=title,
        reason=letter.reason,
        error=letter.error,
        attempts=letter.attempts,
        queued_at=letter.queued_ms / 1000,
        dead_at=letter.dead_ms / 1000,
    )


ROUTES = (push_overview, list_dead, retry_dead, delete_dead)
