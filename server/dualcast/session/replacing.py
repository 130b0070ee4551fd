"""The limit of native connections per user on a node: the newest wins.

Counted when a session is attached, in the same loop turn, itself among them: of handshakes at the same time
each sees those that were attached before it, so there are never more than the limit.
"""

from __future__ import annotations

from typing import Any

from dualcast.model.codes import Close


def replace_oldest(newest: Any) -> int:
    """Closes the oldest sessions of the user of `newest` (a `session.session.Session`, written Any: it
    imports this) beyond its `max_per_user`; returns how many. Those of a view (PROTO-66) are counted apart.
    """
    channel = newest.node.hub.known(newest.principal.tenant, "user:" + newest.principal.sub)
    own = [
        session
        for session in (channel.sessions if channel is not None else ())
        if session.principal.sub == newest.principal.sub
        and session.dialect.name == newest.dialect.name
        and session.view_name == newest.view_name
    ]
    excess = _oldest_pages(own, newest) if newest.view_name else _oldest(own, newest.max_per_user)
    for session in excess:
        session.counters.replaced += 1
        session.close(Close.REPLACED)
    return len(excess)


def _oldest_pages(own: list[Any], newest: Any) -> list[Any]:
    """Pages are counted (instances), since one that changes its transport has two connections for a while.
    Who gives all connections one name has as many of each transport."""
    pages = dict[str, list[Any]]()
    for session in own:
        pages.setdefault(_page(session), []).append(session)
    transport = newest.encoding.transport
    same = [session for session in pages.pop(_page(newest), ()) if session.encoding.transport == transport]
    others = _oldest(list(pages.values()), newest.max_per_user - 1)
    return [*(session for page in others for session in page), *_oldest(same, newest.max_per_user)]


def _oldest(ordered: list[Any], limit: int) -> list[Any]:
    return ordered[: max(0, len(ordered) - limit)]


def _page(session: Any) -> str:
    page: str = session.instance or session.id
    return page
