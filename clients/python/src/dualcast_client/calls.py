"""The native REST interface (`/v1`) as values: a function per operation, its `Call` out. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from . import answers, bodies
from .flow import Call
from .ids import new_id, next_sequence
from .shapes import user_ids

MAX_TARGETS = 1000
"""Users or channels of one publication."""
MAX_BATCH_ITEMS = 1000
MAX_BATCH_BYTES = 4 * 1024 * 1024 - 4096

T = TypeVar("T")
Identified = TypeVar("Identified", bodies.Notification, bodies.Publication)

encode = msgspec.json.Encoder().encode
_receipt = msgspec.json.Decoder(answers.Receipt).decode
_results = msgspec.json.Decoder(answers.BatchAnswer).decode
_task = msgspec.json.Decoder(answers.Task).decode
_batch = msgspec.json.Decoder(answers.Batch).decode
_batch_page = msgspec.json.Decoder(answers.BatchPage).decode
_participants = msgspec.json.Decoder(answers.Participants).decode
_message = msgspec.json.Decoder(answers.StoredMessage).decode
_messages = msgspec.json.Decoder(answers.MessagePage).decode
_presence = msgspec.json.Decoder(answers.UserPresence).decode
_presence_page = msgspec.json.Decoder(answers.PresencePage).decode
_devices = msgspec.json.Decoder(answers.Devices).decode
_connections = msgspec.json.Decoder(answers.ConnectionPage).decode


def segment(text: str) -> str:
    """An id as a path segment."""
    if not text:
        raise ValueError("an id is not empty")
    # `.` and `..` would be taken for directories on the way.
    return text.replace(".", "%2E") if text in (".", "..") else quote(text, safe="")


def identified(body: Identified) -> Identified:
    """With an id, so that a repetition is published once. A key of the caller's own does the same."""
    return body if body.id or body.idempotency_key else replace(body, id=new_id())


# ── publishing ──


def notify(notification: bodies.Notification) -> Call[answers.Receipt]:
    return Call("POST", "/v1/notifications", _receipt, encode(identified(notification)))


def publish(publication: bodies.Publication) -> Call[answers.Receipt]:
    return Call("POST", "/v1/publish", _receipt, encode(identified(publication)))


def batch(items: Sequence[bytes]) -> Call[list[answers.ItemResult]]:
    """Notifications that have their ids, encoded."""
    body = b"[" + b",".join(items) + b"]"
    return Call("POST", "/v1/notifications/batch", lambda text: _results(text).results, body)


def parts(items: Iterable[T]) -> list[list[T]]:
    """Targets in pieces that fit into one publication."""
    whole = list(items)
    return [whole[start : start + MAX_TARGETS] for start in range(0, len(whole), MAX_TARGETS)]


# ── tasks ──


def report_task(task: str, report: bodies.TaskReport) -> Call[answers.Task]:
    return Call("POST", "/v1/tasks/" + segment(task), _task, encode(_numbered(report)))


def register_task(task: str, registration: bodies.TaskRegistration) -> Call[answers.Task]:
    body = registration
    if (
        body.state is not None
        or body.step is not None
        or body.percent is not None
        or body.message is not None
    ):
        body = _numbered(body)
    return Call("PUT", "/v1/tasks/" + segment(task), _task, encode(body))


def cancel_task(task: str) -> Call[answers.Task]:
    return Call("DELETE", "/v1/tasks/" + segment(task), _task)


def task(ident: str) -> Call[answers.Task]:
    return Call("GET", "/v1/tasks/" + segment(ident), _task)


def register_batch(ident: str, registration: bodies.BatchRegistration) -> Call[answers.Batch]:
    return Call("PUT", "/v1/batches/" + segment(ident), _batch, encode(registration))


def task_batch(ident: str, after: str = "") -> Call[answers.BatchPage]:
    return Call("GET", "/v1/batches/" + segment(ident), _batch_page, query=given(after=after))


Report = TypeVar("Report", bodies.TaskReport, bodies.TaskRegistration)


def _numbered(report: Report) -> Report:
    """The end of a task needs no number: the same end again changes nothing, and it must never be taken for
    late because two workers' clocks differ."""
    if report.sequence is not None or report.state in ("completed", "failed", "cancelled"):
        return report
    return replace(report, sequence=next_sequence())


# ── conversations ──


def participants(conversation: str) -> Call[answers.Participants]:
    return Call("GET", _in(conversation, "/participants"), _participants)


def set_participants(conversation: str, users: Iterable[str]) -> Call[answers.Participants]:
    body = encode({"participants": user_ids(users)})
    return Call("PUT", _in(conversation, "/participants"), _participants, body)


def change_participants(
    conversation: str, add: Iterable[str], remove: Iterable[str]
) -> Call[answers.Participants]:
    body = encode({"add": user_ids(add), "remove": user_ids(remove)})
    return Call("POST", _in(conversation, "/participants"), _participants, body)


def send_message(conversation: str, message: bodies.Message) -> Call[answers.StoredMessage]:
    said = message if message.id else replace(message, id=new_id())
    return Call("POST", _in(conversation, "/messages"), _message, encode(said))


def messages(conversation: str, before: int = 0, limit: int = 50) -> Call[answers.MessagePage]:
    return Call("GET", _in(conversation, "/messages"), _messages, query={"before": before, "limit": limit})


def typing(conversation: str, is_typing: bool, user: str | None = None) -> Call[None]:
    body = encode({"is_typing": is_typing, **({} if user is None else {"user": user})})
    return Call("POST", _in(conversation, "/typing"), nothing, body, repeatable=False)


def read(conversation: str, message_ids: Iterable[str], user: str | None = None) -> Call[None]:
    body = {"message_ids": user_ids(message_ids), **({} if user is None else {"user": user})}
    return Call("POST", _in(conversation, "/read"), nothing, encode(body))


def broadcast(conversation: str, said: bodies.Broadcast) -> Call[answers.Receipt]:
    body = said if said.id else replace(said, id=new_id())
    return Call("POST", _in(conversation, "/broadcasts"), _receipt, encode(body))


def direct_message(user: str, data: Mapping[str, Any], ident: str = "") -> Call[answers.Receipt]:
    body = encode({"user": user, "data": data, "id": ident or new_id()})
    return Call("POST", "/v1/direct-messages", _receipt, body)


# ── who is there ──


def user_presence(user: str) -> Call[answers.UserPresence]:
    return Call("GET", "/v1/presence/" + segment(user), _presence)


def presence(channel: str = "", after: str = "", limit: int = 100) -> Call[answers.PresencePage]:
    return Call("GET", "/v1/presence", _presence_page, query=given(channel=channel, after=after, limit=limit))


def devices(user: str) -> Call[list[answers.Device]]:
    path = f"/v1/users/{segment(user)}/devices"
    return Call("GET", path, lambda body: _devices(body).devices)


def connections(user: str = "", after: str = "", limit: int = 100) -> Call[answers.ConnectionPage]:
    return Call("GET", "/v1/connections", _connections, query=given(user=user, after=after, limit=limit))


def nothing(body: bytes) -> None:
    """An answer nobody reads."""


def _in(conversation: str, rest: str) -> str:
    return "/v1/conversations/" + segment(conversation) + rest


def given(**query: str | int) -> dict[str, str | int]:
    """Query parameters, without empty ones."""
    return cast(dict[str, str | int], {name: value for name, value in query.items() if value != ""})
