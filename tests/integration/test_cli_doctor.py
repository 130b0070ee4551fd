"""`dualcast doctor` against real Redis servers, good and bad."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dualcast.cli.root import run
from support.redis_server import RedisServer


@pytest.fixture(autouse=True)
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DUALCAST_JWT_SECRET", "d" * 40)
    monkeypatch.setenv("DUALCAST_PORT", "0")
    for name in ("REDIS_URL", "REDIS_HOST", "JWT_SECRET", "SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)


def states(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    return {check["name"]: check["state"] for check in json.loads(capsys.readouterr().out)["checks"]}


def test_a_durable_redis_passes(capsys: pytest.CaptureFixture[str]) -> None:
    with RedisServer(aof="everysec") as redis:
        assert run(["doctor", "--json", "--redis-url", redis.url]) == 0
    found = states(capsys)
    assert {found[f"redis {name}"] for name in ("reachable", "version", "aof", "eviction", "clock")} == {"ok"}


def test_a_redis_that_forgets_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with RedisServer(options=("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")) as redis:
        assert run(["doctor", "--json", "--redis-url", redis.url]) == 1
    found = states(capsys)
    assert (found["redis aof"], found["redis eviction"]) == ("failed", "failed")


def test_a_redis_that_is_away_is_one_finding(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json", "--redis-url", "redis://:hidden-password@127.0.0.1:1/0"]) == 1
    shown = capsys.readouterr()
    found = {check["name"]: check["state"] for check in json.loads(shown.out)["checks"]}
    assert found["redis reachable"] == "failed"
    assert "hidden-password" not in shown.out + shown.err and "Traceback" not in shown.err


def test_the_embedded_engine_passes_and_the_table_has_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"]) == 0
    shown = capsys.readouterr()
    assert "data directory" in shown.out and "engine sqlite" in shown.out
    assert "d" * 40 not in shown.out + shown.err


@pytest.mark.parametrize(
    ("name", "value", "check"),
    [
        ("DUALCAST_ORIGINS", "*", "origins"),
        ("DUALCAST_IDENTITY__KEYS", '[{"algorithm":"ES256","public_key_file":"missing.pem"}]', "keys"),
        ("DUALCAST_DATA_DIR", "/proc/nowhere", "data directory"),
    ],
)
def test_what_must_be_mended_fails(
    name: str, value: str, check: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    assert run(["doctor", "--json"]) == 1
    assert states(capsys)[check] == "failed"
