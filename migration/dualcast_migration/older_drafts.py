"""What older backends said, as publications. Pure.

`key` names a message alike on every node: whoever appends it first is the only one.
"""

from __future__ import annotations

from dualcast.model.inbox import InboxRider
from dualcast.model.publication import Audience, Draft

from .legacy_redis import mark
from .older_shapes import Broadcast, Notification, Progress, frame, notification_data, task_data

FRAME = "conversation.frame"
"""Event type of a frame of the contract `conversations` that is complete already: its data."""
PASSING = frozenset({"typing_status", "read_status", "presence_update"})
"""Frames that are of no use later."""


def notification_draft(said: Notification, tenant: str, key: str, now_ms: int) -> Draft:
    """A notification for its user, kept in the inbox as every other."""
    ident = said.id or f"older-{key}"
    data, kind = notification_data(said, ident, now_ms)
    return Draft(
        tenant=tenant,
        channels=("user:" + said.user,),
        id=ident,
        type="notification",
        data=data,
        time_ms=now_ms,
        # Two users' notifications may have one id; one user's are the same.
        dedupe_key="older-" + (mark("user:" + said.user, said.id.encode()) if said.id else key),
        inbox=InboxRider((said.user,), False, kind),
    )


def frame_draft(
    said: Broadcast, tenant: str, key: str, now_ms: int, user: str, audience: Audience | None
) -> Draft:
    """A frame for those of `user`'s connections that are in the audience. Raises Unreadable."""
    name, data = frame(said, now_ms)
    return Draft(
        tenant=tenant,
        channels=("user:" + user,),
        id=f"older-{key}",
        type=FRAME,
        data=data,
        time_ms=now_ms,
        audience=audience,
        ephemeral=name in PASSING,
        dedupe_key="older-" + key,
    )


def task_draft(said: Progress, tenant: str, key: str, now_ms: int, owner: str, sequence: int) -> Draft:
    """The state of a task of the older queue, as far as one message tells it."""
    channel = "task:" + said.task
    return Draft(
        tenant=tenant,
        channels=(channel,),
        id=f"older-{key}",
        type="task",
        data=task_data(said, owner, sequence, now_ms),
        time_ms=now_ms,
        conflation_key=channel,
        terminal=said.state != "processing",
        dedupe_key="older-" + key,
    )
