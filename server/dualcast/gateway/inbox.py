"""`/v1/users/{user}/notifications`: a user's inbox; `DELETE /v1/notifications/{id}`: taking back what went to
a whole tenant.

Users see their own inbox only; the roles publisher and admin everybody's in their tenant. User ids and
notification ids in paths are percent-encoded.
"""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import unquote_to_bytes

import msgspec
from litestar import delete, get, post
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta, Raw, Struct

from dualcast.inbox.port import MAX_IDS, Marked
from dualcast.inbox.service import MAX_PAGE, Mark
from dualcast.model.channel import check_id
from dualcast.model.errors import BadChannel, BadRequest, NotFound
from dualcast.model.inbox import Badge, State
from dualcast.model.principal import PUBLISHER

from .authentication import ROLE
from .presence import own_or_backend
from .services import Caller, Injected

_PATH = "/v1/users/{user:str}/notifications"
_ONE = _PATH + "/{notification:str}"
MAX_ID = 128
Verb = Literal["seen", "read", "archive", "unread"]
_MARKS: dict[Verb, Mark] = {"seen": "seen", "read": "read", "archive": "archived", "unread": "unread"}
Ids = Annotated[list[Annotated[str, Meta(min_length=1, max_length=MAX_ID)]], Meta(max_length=MAX_IDS)]
Kind = Annotated[str, Meta(min_length=1, max_length=128)]


class InboxView(Struct, frozen=True):
    """A page, newest first. `next`: send it as `before` for the next page; "": there is none. With filters a
    page may be short, or even empty, and still have a next one.
    """

    notifications: list[Raw]
    """The canonical notification with `state` (`unseen`, `seen`, `read`, `archived`) and `scope` (`user`:
    sent to the user, `tenant`: to everybody)."""
    next: str
    unread: int
    """Unseen and seen ones."""
    unseen: int
    revision: tuple[int, int]
    """Of the user's and of the tenant's part: neither ever falls."""


class UnreadCount(Struct, frozen=True):
    """Counters of an inbox."""

    unread: int
    unseen: int
    revision: tuple[int, int]
    kinds: dict[str, int] | msgspec.UnsetType = msgspec.UNSET
    """Unread ones by type, when asked for."""


class MarkBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Exactly one of the two."""

    ids: Ids | None = None
    all: Literal[True] | None = None
    """All there are when the server gets to it."""


class MarkedView(Struct, frozen=True):
    """What was done. Repeating a request succeeds again, with nothing in `changed`."""

    changed: tuple[str, ...]
    """Newest first; of a change of all, at most 500."""
    count: int
    """How many were changed."""
    unknown: tuple[str, ...]
    """Asked for, but not in this inbox: somebody else's, expired, deleted, or never there."""
    unread: int
    unseen: int
    revision: tuple[int, int]


@get(_PATH, summary="List an inbox", tags=["inbox"], operation_id="ListNotifications")
async def list_notifications(
    services: Injected,
    caller: Caller,
    user: FromPath[str],
    states: Annotated[
        list[State] | None,
        QueryParameter(name="state", description="Only this state; may be given more than once"),
    ] = None,
    kinds: Annotated[
        list[Kind] | None,
        QueryParameter(name="type", description="Only this type; may be given more than once"),
    ] = None,
    before: Annotated[str, QueryParameter(description="`next` of the previous page", max_length=64)] = "",
    limit: Annotated[int, QueryParameter(description="Notifications per page", ge=1, le=MAX_PAGE)] = 50,
) -> InboxView:
    """What is stored for a user, newest first: personal notifications, and those to the whole tenant."""
    page = await services.inbox.list(
        caller.tenant,
        own_or_backend(caller, user),
        before=before,
        limit=limit,
        states=states or (),
        kinds=kinds or (),
    )
    badge = page.badge
    return InboxView(
        [Raw(item.json()) for item in page.items], page.next, badge.unread, badge.unseen, _revision(badge)
    )


@get(
    "/v1/users/{user:str}/unread-count",
    summary="Counters of an inbox",
    tags=["inbox"],
    operation_id="CountUnread",
)
async def unread_count(
    services: Injected,
    caller: Caller,
    user: FromPath[str],
    kinds: Annotated[bool, QueryParameter(description="Also by type")] = False,
) -> UnreadCount:
    """How many are unread (unseen or seen), and how many of these unseen."""
    owner = own_or_backend(caller, user)
    by_kind: dict[str, int] | msgspec.UnsetType = msgspec.UNSET
    if kinds:
        badge, by_kind = await services.inbox.counts_by_kind(caller.tenant, owner)
    else:
        badge = await services.inbox.counts(caller.tenant, owner)
    return UnreadCount(badge.unread, badge.unseen, _revision(badge), by_kind)


@post(_PATH + "/seen", status_code=200, summary="Mark many seen", tags=["inbox"], operation_id="MarkManySeen")
async def mark_seen(
    services: Injected, caller: Caller, user: FromPath[str], data: JSONBody[MarkBody]
) -> MarkedView:
    """Unseen → seen. The user's other devices are told at once (event `inbox`)."""
    return await _mark(services, caller, user, "seen", data)


@post(_PATH + "/read", status_code=200, summary="Mark many read", tags=["inbox"], operation_id="MarkManyRead")
async def mark_read(
    services: Injected, caller: Caller, user: FromPath[str], data: JSONBody[MarkBody]
) -> MarkedView:
    """Unseen or seen → read. The user's other devices are told at once (event `inbox`)."""
    return await _mark(services, caller, user, "read", data)


@post(_PATH + "/archive", status_code=200, summary="Archive many", tags=["inbox"], operation_id="ArchiveMany")
async def archive(
    services: Injected, caller: Caller, user: FromPath[str], data: JSONBody[MarkBody]
) -> MarkedView:
    """Any state → archived, for good. The user's other devices are told at once (event `inbox`)."""
    return await _mark(services, caller, user, "archive", data)


@post(
    _PATH + "/unread",
    status_code=200,
    summary="Mark many unread",
    tags=["inbox"],
    operation_id="MarkManyUnread",
)
async def mark_unread(
    services: Injected, caller: Caller, user: FromPath[str], data: JSONBody[MarkBody]
) -> MarkedView:
    """Read → seen again. The user's other devices are told at once (event `inbox`)."""
    return await _mark(services, caller, user, "unread", data)


@post(
    _ONE + "/{verb:str}",
    status_code=200,
    summary="Mark one",
    tags=["inbox"],
    operation_id="MarkNotification",
)
async def mark_one(
    services: Injected, caller: Caller, user: FromPath[str], notification: FromPath[str], verb: FromPath[str]
) -> MarkedView:
    """`verb`: `seen`, `read`, `archive` or `unread`. 404 `unknown-notification` when it is not in this inbox,
    whatever the reason."""
    if verb not in _MARKS:
        raise NotFound("a notification is marked by " + ", ".join(_MARKS))
    owner = own_or_backend(caller, user)
    ident = _id(notification)
    return _known(await services.inbox.mark(caller.tenant, owner, _MARKS[verb], (ident,)))


@delete(_ONE, status_code=200, summary="Delete one", tags=["inbox"], operation_id="DeleteNotification")
async def delete_one(
    services: Injected, caller: Caller, user: FromPath[str], notification: FromPath[str]
) -> MarkedView:
    """Takes a notification out of this user's inbox, and of no other. 404 `unknown-notification` when it is
    not there."""
    owner = own_or_backend(caller, user)
    return _known(await services.inbox.delete(caller.tenant, owner, (_id(notification),)))


@delete(_PATH, status_code=200, summary="Delete many", tags=["inbox"], operation_id="DeleteNotifications")
async def delete_many(
    services: Injected,
    caller: Caller,
    user: FromPath[str],
    which: Annotated[
        Literal["read", "archived", "all"], QueryParameter(name="state", description="What is deleted")
    ],
) -> MarkedView:
    """Takes out of this user's inbox what is read (and not archived), archived, or all, as it stands now."""
    owner = own_or_backend(caller, user)
    states: tuple[State, ...] = () if which == "all" else (which,)
    return _marked(await services.inbox.delete(caller.tenant, owner, None, states=states))


@delete(
    "/v1/notifications/{notification:str}",
    opt={ROLE: PUBLISHER},
    summary="Withdraw a tenant-wide notification",
    tags=["inbox"],
    operation_id="WithdrawNotification",
)
async def withdraw(services: Injected, caller: Caller, notification: FromPath[str]) -> None:
    """Takes a notification to the whole tenant out of every inbox, and tells everybody (event `inbox`, action
    `withdrawn`). 404 `unknown-notification` when there is none."""
    if not await services.inbox.withdraw(caller.tenant, _id(notification)):
        raise _unknown()


ROUTES = (
    list_notifications,
    unread_count,
    mark_seen,
    mark_read,
    archive,
    mark_unread,
    mark_one,
    delete_one,
    delete_many,
    withdraw,
)


async def _mark(services: Injected, caller: Caller, user: str, verb: Verb, body: MarkBody) -> MarkedView:
    owner = own_or_backend(caller, user)
    if (body.ids is None) == (body.all is None):
        raise BadRequest("give exactly one of ids and all", code="bad-target")
    return _marked(await services.inbox.mark(caller.tenant, owner, _MARKS[verb], body.ids))


def _marked(marked: Marked) -> MarkedView:
    badge = marked.badge
    return MarkedView(
        marked.changed, marked.count, marked.unknown, badge.unread, badge.unseen, _revision(badge)
    )


def _known(marked: Marked) -> MarkedView:
    if marked.unknown:
        raise _unknown()
    return _marked(marked)


def _unknown() -> NotFound:
    return NotFound("there is no such notification", code="unknown-notification")


def _id(segment: str) -> str:
    """The notification id of a path segment; one that cannot be an id is unknown like any other."""
    try:
        ident = check_id(unquote_to_bytes(segment).decode())
    except (UnicodeDecodeError, BadChannel):
        raise _unknown() from None
    return ident


def _revision(badge: Badge) -> tuple[int, int]:
    return badge.user_revision, badge.tenant_revision
