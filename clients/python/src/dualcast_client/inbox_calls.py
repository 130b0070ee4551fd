"""The inbox part of the REST interface as values: shapes, and a function per operation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from .calls import encode, nothing, segment
from .errors import DualcastError
from .flow import Call

InboxState = Literal["unseen", "seen", "read", "archived"]
Verb = Literal["seen", "read", "archive", "unread"]
Deletable = Literal["read", "archived", "all"]
MAX_IDS = 500
MAX_COMMAND_IDS = 200
MAX_COMMAND_KINDS = 20
T = TypeVar("T")


class InboxItem(Struct, frozen=True, kw_only=True):
    """A stored notification as its user sees it. Times are RFC 3339, UTC."""

    id: str
    type: str
    title: str
    content: str | None = None
    link: str | None = None
    level: str = "info"
    source: str | None = None
    priority: str = "normal"
    status: str = "unread"
    created_at: str
    expires_at: str | None = None
    data: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    state: str
    """`unseen`, `seen`, `read` or `archived`."""
    scope: str
    """`user`: sent to the user; `tenant`: to everybody."""


class InboxPage(Struct, frozen=True, kw_only=True):
    """Newest first; `next` goes into `before` of the next page, "": there is none."""

    notifications: list[InboxItem]
    next: str
    unread: int
    unseen: int
    revision: tuple[int, int]


class Counts(Struct, frozen=True, kw_only=True):
    """`unread`: unseen and seen ones."""

    unread: int
    unseen: int
    revision: tuple[int, int]
    """Of the user's and the tenant's part; neither ever falls."""
    kinds: dict[str, int] | None = None
    """Unread ones by type, when asked for."""


class Marked(Struct, frozen=True, kw_only=True):
    """What was changed. Doing it again succeeds and changes nothing."""

    changed: tuple[str, ...]
    count: int
    unknown: tuple[str, ...]
    """Asked for, but not in this inbox."""
    unread: int
    unseen: int
    revision: tuple[int, int]


_page = msgspec.json.Decoder(InboxPage).decode
_counts = msgspec.json.Decoder(Counts).decode
_marked = msgspec.json.Decoder(Marked).decode


def page(
    user: str, before: str, limit: int, states: Sequence[InboxState], kinds: Sequence[str]
) -> Call[InboxPage]:
    query: dict[str, str | int | Sequence[str]] = {"limit": limit}
    query |= {"before": before} if before else {}
    query |= {"state": list(states)} if states else {}
    query |= {"type": list(kinds)} if kinds else {}
    command = {
        "type": "inbox",
        "before": before,
        "limit": limit,
        "states": list(states),
        "kinds": list(kinds),
    }
    fits = len(kinds) <= MAX_COMMAND_KINDS
    return Call(
        "GET",
        _of(user),
        _page,
        query=query,
        command=command if fits else None,
        reply=lambda body: _read(body, InboxPage),
    )


def counts(user: str, by_kind: bool) -> Call[Counts]:
    query = {"kinds": "true"} if by_kind else {}
    command = {"type": "counters", "by_kind": by_kind}
    path = f"/v1/users/{segment(user)}/unread-count"
    return Call("GET", path, _counts, query=query, command=command, reply=lambda body: _read(body, Counts))


def mark(user: str, verb: Verb, ids: Iterable[str] | None) -> Call[Marked]:
    """`ids` None: all there are."""
    if isinstance(ids, str):
        raise TypeError("ids is a list")
    body: dict[str, Any] = {"all": True} if ids is None else {"ids": list(ids)}
    fits = ids is None or 0 < len(body["ids"]) <= MAX_COMMAND_IDS
    command = {"type": verb, **body} if fits else None
    return Call("POST", f"{_of(user)}/{verb}", _marked, encode(body), command=command, reply=_was_marked)


def delete(user: str, ident: str) -> Call[Marked]:
    return Call(
        "DELETE",
        f"{_of(user)}/{segment(ident)}",
        _marked,
        repeatable=False,
        command={"type": "delete", "ids": [ident]},
        reply=_was_deleted,
    )


def delete_all(user: str, which: Deletable) -> Call[Marked]:
    return Call("DELETE", _of(user), _marked, query={"state": which})


def withdraw(ident: str) -> Call[None]:
    return Call("DELETE", "/v1/notifications/" + segment(ident), nothing, repeatable=False)


def _of(user: str) -> str:
    return f"/v1/users/{segment(user)}/notifications"


def _read(body: Mapping[str, Any], shape: type[T]) -> T:
    """A reply over a WebSocket, whose counters stand in an object of their own."""
    badge = body.get("inbox")
    flat = {**body, **(badge if isinstance(badge, dict) else {}), "next": body.get("next") or ""}
    try:
        return msgspec.convert(flat, shape)
    except msgspec.ValidationError:
        raise DualcastError("bad-answer", 0, "the reply is not what dualcast replies") from None


def _was_marked(body: Mapping[str, Any]) -> Marked:
    return _read({"unknown": (), **body, "changed": body.get("ids") or ()}, Marked)


def _was_deleted(body: Mapping[str, Any]) -> Marked:
    marked = _was_marked(body)
    if marked.unknown:
        raise DualcastError("unknown-notification", 404, "it is not in this inbox")
    return marked
