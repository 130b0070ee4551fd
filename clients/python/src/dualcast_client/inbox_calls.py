"""The inbox part of the REST interface as values: shapes, and a function per operation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from .calls import encode, nothing, segment
from .flow import Call

InboxState = Literal["unseen", "seen", "read", "archived"]
Verb = Literal["seen", "read", "archive", "unread"]
Deletable = Literal["read", "archived", "all"]
MAX_IDS = 500


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
    return Call("GET", _of(user), _page, query=query)


def counts(user: str, by_kind: bool) -> Call[Counts]:
    query = {"kinds": "true"} if by_kind else {}
    return Call("GET", f"/v1/users/{segment(user)}/unread-count", _counts, query=query)


def mark(user: str, verb: Verb, ids: Iterable[str] | None) -> Call[Marked]:
    """`ids` None: all there are."""
    if isinstance(ids, str):
        raise TypeError("ids is a list")
    body = {"all": True} if ids is None else {"ids": list(ids)}
    return Call("POST", f"{_of(user)}/{verb}", _marked, encode(body))


def delete(user: str, ident: str) -> Call[Marked]:
    return Call("DELETE", f"{_of(user)}/{segment(ident)}", _marked, repeatable=False)


def delete_all(user: str, which: Deletable) -> Call[Marked]:
    return Call("DELETE", _of(user), _marked, query={"state": which})


def withdraw(ident: str) -> Call[None]:
    return Call("DELETE", "/v1/notifications/" + segment(ident), nothing, repeatable=False)


def _of(user: str) -> str:
    return f"/v1/users/{segment(user)}/notifications"
