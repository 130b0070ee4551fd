"""Commands for operators with what nobody should type: one line in words, status 1 or 2, nothing sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from dualcast.cli.root import run
from dualcast.gateway.migration import RecordView
from dualcast_migration.policy import MAX_AT_S, StageRecord

WHY = ("--why", "a test")
SET, SCHEDULE = ("migrate", "set", *WHY), ("migrate", "schedule", *WHY)
RECORD = {name: getattr(StageRecord(), name) for name in RecordView.__struct_fields__}
VIEW = msgspec.json.encode({"tenant": "default", "version": 7, "record": RECORD, "last": None})


@pytest.fixture
def sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Requests, which are answered with tenant `default` in its first record."""
    found: list[str] = []

    def request(method: str, url: str, **more: Any) -> httpx.Response:
        request = httpx.Request(method, url, json=more.get("json"), params=more.get("params"))
        found.append(f"{method} {request.url.raw_path.decode()}")
        return httpx.Response(200, content=VIEW, request=request)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DUALCAST_TOKEN", "t.o.k")
    monkeypatch.delenv("DUALCAST_URL", raising=False)
    monkeypatch.setattr(httpx, "request", request)
    yield found


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ((*SET, "--percent", "nan"), 2),
        ((*SET, "--percent", "100.01"), 2),
        ((*SET, "--percent", "x"), 2),
        ((*SET, "--budget", "lag_p99_ms=nan"), 2),
        ((*SET, "--budget", "lag_p99_ms=inf"), 2),
        ((*SCHEDULE, "--sunset", "+99999999999d"), 2),
        ((*SCHEDULE, "--sunset", "+9999999d"), 2),
        ((*SCHEDULE, "--sunset", "+" + "9" * 5_000), 2),
        ((*SCHEDULE, "--sunset", "0001-01-01T00:00+14:00"), 2),
        ((*SCHEDULE, "--sunset", "9999-12-31T23:59-14:00"), 2),
        ((*SCHEDULE, "--brownout", "now=nan"), 2),
        ((*SCHEDULE, "--brownout", "now=101"), 2),
        ((*SCHEDULE, "--brownout", "now"), 2),
        ((*SCHEDULE, "--brownout", "+9999999d=5"), 2),
        (("migrate", "plan", "--notice-days", "1000000000000000"), 2),
        (("migrate", "status", ""), 0),  # as if it were left out
        (("migrate", "status", "../x"), 1),
        (("migrate", "status", "--url", "http://[::1"), 1),
        (("tenants", "show", ""), 1),
        (("tenants", "show", ".."), 1),
        (("tenants", "set", "a/b", "--rate", "5"), 1),
        (("tenants", "set", "default", "--rate", "nan"), 2),
        (("tenants", "set", "default", "--rate", "1e400"), 2),
        (("tenants", "keys", "remove", "default", "--kid", "\udcff"), 1),
        (("token", "--dev", "--ttl", "9" * 5_000), 2),
    ],
)
def test_what_nobody_should_type(
    arguments: tuple[str, ...], status: int, sent: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with_history = ("--history", "0") if arguments[1] == "status" else ()
    assert run([*arguments, *with_history]) == status
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err and all(call.startswith("GET ") for call in sent)
    if status:
        assert "Error" in shown.err and shown.out == ""


@pytest.mark.parametrize("content", [b"[]", b"[1]", b'"x"', b"null", b"<html>", b"\xff"])
def test_an_answer_of_something_else(
    content: bytes, sent: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(httpx, "request", lambda *_, **__: httpx.Response(200, content=content))
    assert run(["tenants", "show", "default"]) == 1
    shown = capsys.readouterr()
    assert "is it a dualcast server?" in shown.err and "Traceback" not in shown.err


def test_the_last_second_there_is(sent: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*SCHEDULE, "--sunset", "9999-12-31T23:59:59Z", "--yes"]) == 0
    assert "9999-12-31 23:59 UTC" in capsys.readouterr().out
    assert sent[-1].startswith("PUT ")
    assert StageRecord(sunset_at=MAX_AT_S).sunset_at == MAX_AT_S
