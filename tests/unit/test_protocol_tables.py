"""The tables of docs/protocol.md against the code: close codes, and every error code it names."""

from __future__ import annotations

import re
from pathlib import Path

from dualcast.gateway.problems import CODES
from dualcast.model.codes import Close, action
from dualcast.sections import Delivery
from dualcast.session.node import SessionSettings

TEXT = (Path(__file__).parents[2] / "docs/protocol.md").read_text(encoding="utf-8")
IN_FRAMES = {"bad-command", "fixed-channel", "not-available"}
"""Codes of `error` frames that no REST endpoint answers."""
HEADERS = {"successor-version"}
FALLBACK_REASONS = {"open-failed"}
STATES = {"too-large"}


def test_the_close_codes_are_those_of_the_server() -> None:
    rows = re.findall(r"^  \| (4\d\d\d) \| `([a-z-]+)` \|", TEXT, re.MULTILINE)
    assert [(int(code), reason) for code, reason in rows] == [(code.value, code.reason) for code in Close]


def test_the_ranges_say_what_the_server_says() -> None:
    ranges = re.findall(r"\*\*(\d{4})–(\d{4}) (stop|reconnect\s+after|reconnect now)", TEXT)
    words = {"stop": "stop", "reconnect after": "later", "reconnect now": "now"}
    assert len(ranges) == 3
    for low, high, told in ranges:
        assert {action(int(code)) for code in (low, high)} == {words[" ".join(told.split())]}


def test_every_error_code_it_names_is_one() -> None:
    named = set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", TEXT))
    known = set(CODES) | {code.reason for code in Close} | IN_FRAMES | HEADERS | FALLBACK_REASONS | STATES
    assert named - known == set()


def test_the_heartbeats_it_promises_are_the_defaults() -> None:
    assert f"After {Delivery().sse_heartbeat_s} s without anything else" in TEXT
    assert f"The server pings every {Delivery().ws_heartbeat_s} s" in TEXT
    assert f"No answer for {Delivery().dead_after_s} s" in TEXT
    assert SessionSettings().sweep_s == 5, "the least heartbeat that `sections.Heartbeat` takes"
