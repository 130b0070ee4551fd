"""No token, ticket, password or query string reaches a log line, whichever logger writes it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from dualcast.telemetry.logs import HIDDEN, configure, redact
from support.tokens import token


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    # A server that ran in this process before has raised uvicorn's level.
    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "level", logging.NOTSET)
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    out = io.StringIO()
    configure("debug", "json", out)
    yield out
    for handler in list(root.handlers):
        if handler.get_name() == "dualcast":
            root.removeHandler(handler)
    assert [h for h in root.handlers if h in before] == before
    root.setLevel(level)
    logging.getLogger("uvicorn.access").disabled = False
    structlog.reset_defaults()


TICKET = "w." + "0a" * 16 + "." + "A-_9" * 10 + "abc"


def test_secrets_are_cut_out_of_texts() -> None:
    secret = token()
    for text in (
        secret,
        f"GET /v1/stream?token={secret} HTTP/1.1",
        f"Authorization: Bearer {secret}",
        f"Sec-WebSocket-Protocol: dualcast, bearer.{secret}",
        f"ticket was {TICKET}",
        f'"{secret}"',
        f"b'{secret}'",
    ):
        clean = redact(text)
        assert secret not in clean and secret.split(".")[2] not in clean and TICKET not in clean
        assert HIDDEN in clean
    assert redact("redis://user:pass@host:1/0") == f"redis://{HIDDEN}@host:1/0"
    assert redact("GET /v1/stream?x=1&y=2 200") == f"GET /v1/stream?{HIDDEN} 200"
    assert redact("is that so? yes") == "is that so? yes"


def test_every_logger_writes_clean_json_lines(lines: io.StringIO) -> None:
    secret = token()
    structlog.get_logger("a").info("opened", token=secret, url=f"/v1/stream?token={secret}", user="alice")
    logging.getLogger("uvicorn.error").info(
        '%s - "WebSocket %s" [accepted]', ("::1", 1), f"/v1/socket?token={secret}"
    )
    try:
        raise ValueError(f"bad token {secret}")
    except ValueError:
        structlog.get_logger("b").exception("failed", headers={"authorization": "x", "n": [secret.encode()]})
        logging.getLogger("c").exception("failed %s", {"token": secret})
    logging.getLogger("uvicorn.access").info("GET /x")
    text = lines.getvalue()
    assert secret not in text and secret.split(".")[1] not in text
    found = [json.loads(line) for line in text.splitlines()]
    assert [line["event"].split()[0] for line in found] == ["opened", "('::1',", "failed", "failed"]
    assert found[0]["user"] == "alice" and found[0]["token"] == HIDDEN and found[0]["level"] == "info"
    assert "ValueError" in found[2]["exception"] and "ValueError" in found[3]["exception"]
    assert found[2]["headers"]["authorization"] == HIDDEN
