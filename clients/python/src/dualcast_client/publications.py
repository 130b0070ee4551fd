"""Which native call each of the older contracts' publishing calls is. Pure; the classes that are named as the
contracts name them (`rooms`, `topics`, `conversations`, `progress`, `notifications`) are thin shells over it.

| publication | channel | event type |
|---|---|---|
| a notification | a user's, or `all` | `notification` |
| rooms: sync, knowledge, system | `user:<u>`, `all` | `sync_update`, `knowledge_update`, `system_message` |
| a message to a room | `room:<name>` | `room_message` |
| a message to a topic | `topic:<name>` | `topic_message` |
| a progress frame | `user:<u>`, `topic:progress-client:<client id>`, `all` | `progress_frame` |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from . import calls
from .answers import Receipt
from .bodies import Audience, Notification, Publication, Target
from .flow import Call
from .shapes import user_ids

MAX_ID = 128

Receipts = tuple[Receipt, ...]
Body = Mapping[str, Any]
Publishing = Call[Receipt]
Users = Iterable[str | int]


def to_user(user: str | int, make: Callable[[Target], Notification]) -> Publishing:
    """A notification for one user."""
    return calls.notify(make(Target(user=str(user))))


def to_users(users: Users | None, make: Callable[[Target], Notification]) -> list[Publishing]:
    """A notification for all (in nobody's inbox), or for `users`, as many at a time as one publication may
    have; of none, nothing is sent."""
    if users is None:
        return [calls.notify(replace(make(Target(all=True)), store=False))]
    found = []
    for number, part in enumerate(calls.parts(user_ids(users))):
        notification = make(Target(users=part))
        if number and notification.id:
            # One id names one publication; a part's own is the same when the call is made again.
            notification = replace(notification, id=f"{notification.id}.{number}"[-MAX_ID:])
        found.append(calls.notify(notification))
    return found


def event(channel: str, kind: str, data: Any) -> Publishing:
    return calls.publish(Publication(channel=channel, type=kind, data=data))


def user_event(user: str | int, kind: str, data: Any) -> Publishing:
    return event(f"user:{user}", kind, data)


def events(users: Users | None, kind: str, data: Any) -> list[Publishing]:
    """An event for all, or for `users`."""
    if users is None:
        return [event("all", kind, data)]
    return [
        calls.publish(Publication(channels=["user:" + user for user in part], type=kind, data=data))
        for part in calls.parts(user_ids(users))
    ]


def room_message(message: Any, room: str) -> Publishing:
    return event("room:" + room, "room_message", message)


def topic_message(topic: str, message: Any) -> Publishing:
    return event("topic:" + topic, "topic_message", message)


def import_progress(task_id: str | int, progress: Body) -> Publishing:
    topic = f"import:{task_id}"
    message = {"type": "import_progress", "task_id": str(task_id), "topic": topic, "data": progress}
    return topic_message(topic, message)


def wallet_update(wallet_address: str, data: Body) -> Publishing:
    topic = "wallet_updates"
    message = {"type": "wallet_update", "wallet_address": wallet_address, "topic": topic, "data": data}
    return topic_message(topic, message)


def system_status(status: Body) -> Publishing:
    topic = "system_status"
    return topic_message(topic, {"type": "system_status", "topic": topic, "data": status})


def progress_frame(client_id: str | int, frame: Body) -> Publishing:
    """To a user, or with a suffix behind `:` to that client id alone."""
    client = str(client_id)
    channel = f"topic:progress-client:{client}" if ":" in client else f"user:{client}"
    return event(channel, "progress_frame", frame)


def progress_to_all(frame: Body, exclude_client: str | int | None) -> Publishing:
    """To everybody but the user `exclude_client`, or with a suffix that client id alone."""
    audience = None
    if exclude_client is not None:
        client = str(exclude_client)
        suffixed = ":" in client
        audience = Audience(exclude_connections=[client]) if suffixed else Audience(exclude_users=[client])
    return calls.publish(Publication(channel="all", type="progress_frame", data=frame, audience=audience))
