"""The golden vectors of the contracts `rooms` and `topics` as what the pure functions take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dualcast.dialects.legacy import Action, Facts, Join, Leave, Opening, Reply, Stats, Tell
from dualcast.model.publication import Entry, Publication

FOLDER = Path(__file__).parents[1] / "conformance" / "vectors"


def vectors(dialect: str, key: str) -> list[Any]:
    """Those with input `key`, as parameters of a test."""
    found = json.loads((FOLDER / f"legacy_{dialect}.json").read_text(encoding="utf-8"))["vectors"]
    chosen = [pytest.param(vector, id=vector["name"]) for vector in found if key in vector]
    assert chosen
    return chosen


def facts_of(vector: dict[str, Any]) -> Facts:
    """The connection: user u1 of tenant default unless the vector says otherwise."""
    given = vector.get("facts", {})
    facts = Facts(tenant="default", user=given.get("user", "u1"), admin=given.get("admin", False))
    facts.params = given.get("params", {"user_id": facts.user})
    facts.query = given.get("query", {})
    facts.client_id = given.get("client_id", "")
    facts.now_ms = given.get("now_ms", 0)
    return facts


def entry_of(vector: dict[str, Any]) -> Entry:
    given = vector["publication"]
    publication = Publication(
        tenant="default",
        epoch="e",
        offset=1,
        id=given.get("id", "p1"),
        type=given["event"],
        data=given["data_json"].encode(),
        time_ms=given["time_ms"],
    )
    return Entry(publication, given["channel"])


def opening_of(vector: dict[str, Any]) -> Opening:
    return Opening(**vector["opening"])


def stats_of(vector: dict[str, Any]) -> Stats:
    return Stats(**vector["stats"])


def posted(vector: dict[str, Any]) -> tuple[str, bytes]:
    """How a backend publishes it: path and body. Notifications keep their id and time, so their frames are
    exact."""
    given = vector["publication"]
    channel, event, data = given["channel"], given["event"], given["data_json"]
    if event != "notification":
        return "/v1/publish", f'{{"channel":"{channel}","type":"{event}","data":{data}}}'.encode()
    note = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    note.pop("status")
    note.pop("expires_at")
    note["to"] = msgspec.Raw(msgspec.json.encode({"channel": channel}))
    return "/v1/notifications", msgspec.json.encode(note)


def timeless(text: str) -> str:
    """Without the time of the server's clock, where it is the frame's last member."""
    return text.rpartition('"timestamp":"')[0] or text


def told(actions: Sequence[Action]) -> dict[str, Any]:
    """One action as vectors write it."""
    (action,) = actions
    if isinstance(action, Reply):
        return {"action": "reply", "ws": [action.text.decode()]}
    if isinstance(action, Tell):
        return {"action": "tell", "ws": []}
    assert isinstance(action, Join | Leave)
    found = {"action": type(action).__name__.lower(), "channel": action.channel, "ws": [action.done.decode()]}
    if isinstance(action, Join) and action.owner_of:
        found["owner_of"] = action.owner_of
    return found


def expected(vector: dict[str, Any]) -> dict[str, Any]:
    """What `told` gives for it."""
    keys = ("action", "channel", "owner_of", "ws")
    return {key: vector[key] for key in keys if key in vector}
