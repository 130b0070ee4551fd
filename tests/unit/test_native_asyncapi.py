"""`/asyncapi.yaml` says what the code does: every command, every frame, on the transport that has it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import yaml

from dualcast.dialects.native_types import ClientCommand, ServerMessage
from dualcast.gateway.asyncapi import document, render
from dualcast.model.codes import RESERVED_TYPES

ROOT = Path(__file__).parents[2]
COMMANDS = {kind.__struct_config__.tag for kind in get_args(ClientCommand)}
FRAMES = {kind.__struct_config__.tag for kind in get_args(ServerMessage)}
REPLIES = {"inbox_page", "inbox_counters", "marked", "sent", "done", "presence_state"}


def payload(found: dict[str, Any], name: str) -> dict[str, Any]:
    """The schema of a message of the socket."""
    message = found["channels"]["socket"]["messages"][name]["$ref"].rpartition("/")[2]
    schema = found["components"]["messages"][message]["payload"]["$ref"].rpartition("/")[2]
    schemas: dict[str, Any] = found["components"]["schemas"]
    body: dict[str, Any] = schemas[schema]
    return body


def test_commands_and_frames_never_share_a_name() -> None:
    assert not COMMANDS & FRAMES
    assert set(document("1")["channels"]["socket"]["messages"]) == COMMANDS | FRAMES


def test_a_stream_has_states_and_signals_and_no_replies() -> None:
    on_streams = set(document("1")["channels"]["stream"]["messages"])
    assert {"state", "welcome", "gap", "publication"} <= on_streams
    assert not on_streams & (REPLIES | COMMANDS)
    assert on_streams - {"publication"} <= RESERVED_TYPES


def test_every_field_a_client_may_fill_has_a_bound() -> None:
    found = document("1")
    for name in COMMANDS:
        schema = payload(found, name)
        assert schema["additionalProperties"] is False, name
        for field, shape in schema["properties"].items():
            for one in shape.get("anyOf", [shape]):
                if one.get("type") == "string" and field not in ("type", "content"):
                    assert "maxLength" in one or "enum" in one, (name, field)
                if one.get("type") == "array":
                    assert "maxItems" in one, (name, field)
                if one.get("type") == "integer":
                    assert "maximum" in one, (name, field)


def test_a_state_and_a_badge_are_described() -> None:
    found = document("1")
    assert {"channel", "data", "status"} <= set(payload(found, "state")["properties"])
    assert "inbox" in payload(found, "publication")["properties"]
    badge = found["components"]["schemas"]["InboxBadge"]["properties"]
    assert set(badge) == {"unread", "unseen", "revision", "tenant_revision"}
    assert yaml.safe_load(render("1"))["channels"] == found["channels"]


def test_the_protocol_names_every_command_and_frame() -> None:
    text = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
    missing = {name for name in COMMANDS | FRAMES if f"`{name}`" not in text}
    assert not missing
    numbers = [int(number) for number in re.findall(r"^\* \*\*PROTO-(\d+)\*\*", text, re.MULTILINE)]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
