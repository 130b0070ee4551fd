"""`dualcast doctor` against real Redis servers, good and bad."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from dualcast.cli import doctor
from dualcast.cli.root import run
from support import sentinel_set
from support.ports import free_port
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


def test_a_redis_that_is_full_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with RedisServer(aof="everysec") as redis:
        redis.command("CONFIG", "SET", "maxmemory", "1")
        assert run(["doctor", "--json", "--redis-url", redis.url]) == 1
    assert states(capsys)["redis memory"] == "failed"


def test_a_redis_cluster_is_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    # Else its second port is the first plus 10,000, which there may not be.
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with RedisServer(tcp=True, options=options) as redis:
        assert run(["doctor", "--json", "--redis-url", redis.url]) == 1
    assert states(capsys)["redis topology"] == "failed"


def test_a_redis_that_is_away_is_one_finding(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json", "--redis-url", "redis://:hidden-password@127.0.0.1:1/0"]) == 1
    shown = capsys.readouterr()
    found = {check["name"]: check["state"] for check in json.loads(shown.out)["checks"]}
    assert found["redis reachable"] == "failed"
    assert "hidden-password" not in shown.out + shown.err and "Traceback" not in shown.err


def sentinel_findings(capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[str, str]]:
    found = json.loads(capsys.readouterr().out)["checks"]
    return {check["name"]: (check["state"], check["detail"]) for check in found}


def test_a_redis_with_sentinels_is_looked_at_through_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    servers = sentinel_set.shared()
    monkeypatch.setenv("DUALCAST_REDIS__SENTINELS", ",".join(servers.places))
    assert run(["doctor", "--json"]) == 1  # nothing is kept there, and no replica is waited for
    found = sentinel_findings(capsys)
    port = servers.servers[0].port
    assert found["redis sentinels"] == ("ok", f"3 of 3 know mymaster, master 127.0.0.1:{port}")
    assert found["redis reachable"][0] == found["redis clock"][0] == "ok"
    assert found["redis replicas"][0] == "failed" and "min-replicas-to-write 1" in found["redis replicas"][1]
    master = servers.master()
    master.command("CONFIG", "SET", "min-replicas-to-write", 1)
    try:
        run(["doctor", "--json"])
        assert sentinel_findings(capsys)["redis replicas"] == ("ok", "1 connected, min-replicas-to-write 1")
    finally:
        master.command("CONFIG", "SET", "min-replicas-to-write", 0)


def test_a_service_the_sentinels_do_not_know_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DUALCAST_REDIS__SENTINELS", ",".join(sentinel_set.shared().places))
    monkeypatch.setenv("DUALCAST_REDIS__SERVICE", "somebody-elses")
    assert run(["doctor", "--json"]) == 1
    found = sentinel_findings(capsys)
    assert (
        found["redis sentinels"][0] == "failed"
        and "0 of 3 know somebody-elses" in found["redis sentinels"][1]
    )
    assert found["redis reachable"][0] == "failed"


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


@pytest.mark.parametrize(
    ("settings", "check", "said"),
    [
        ({"DUALCAST_PUSH__PROVIDER": "nope"}, "start", "no push provider 'nope'"),
        ({"DUALCAST_PUSH__PROVIDER": "webhook"}, "start", "the url must be https://host/"),
        ({"DUALCAST_TENANCY__FILE": "tenants.toml"}, "start", "tenancy.file: tenants.toml: No such file"),
        ({"DUALCAST_LEGACY__DIALECTS": "roomz"}, "start", "no contract 'roomz'"),
        ({"DUALCAST_ORIGINS": "app.example.com"}, "start", "an allowed origin is scheme://host"),
        (
            {"DUALCAST_REDIS_URL": "rediss://127.0.0.1:1/0?ssl_ca_certs=missing.pem"},
            "start",
            "redis.url: an option after the ? cannot be used: No such file",
        ),
        (
            {"DUALCAST_IDENTITY__KEYS": '[{"algorithm":"ES256","public_key_file":"/etc/passwd"}]'},
            "keys",
            "identity.keys: /etc/passwd: an ES256 key is a PEM public key",
        ),
    ],
)
def test_what_stops_the_start_fails(
    settings: dict[str, str],
    check: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`doctor` was content with settings that ended `serve` with a stack."""
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert run(["doctor", "--json"]) == 1
    (found,) = [each for each in json.loads(capsys.readouterr().out)["checks"] if each["name"] == check]
    assert found["state"] == "failed" and said in found["detail"]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("DUALCAST_TENANCY__FILE", "tenants.toml", "tenancy.file: tenants.toml: No such file or directory"),
        ("DUALCAST_DATA_DIR", "a-file/data", "a-file/data/state.db cannot be opened: Not a directory"),
    ],
)
def test_serve_says_in_one_line_why_it_does_not_start(
    name: str, value: str, said: str, tmp_path: Path
) -> None:
    """It ended with a stack, and called a directory it may not write to a port it cannot listen on."""
    (tmp_path / "a-file").write_text("")
    command = [sys.executable, "-P", "-m", "dualcast", "serve"]
    done = subprocess.run(
        command, env={**os.environ, name: value}, capture_output=True, text=True, check=False
    )
    assert done.returncode in (1, 2)
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert line.startswith("Error: ") and line.endswith(said)


def test_doctor_leaves_no_directory_behind_that_the_server_could_not_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUALCAST_DATA_DIR", "var/lib/data")
    assert run(["doctor", "--json"]) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty file can be made on a full disk."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")

    def full(**_: object) -> IO[bytes]:
        return open("/dev/full", "wb")

    monkeypatch.setattr(doctor, "NamedTemporaryFile", full)
    assert run(["doctor", "--json"]) == 1
    assert states(capsys)["data directory"] == "failed"


@pytest.mark.parametrize("name", ["bus.db", "state.db"])
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda file: file.write_bytes(b"not a database" * 20), "no SQLite database"),
        (
            lambda file: sqlite3.connect(file).execute("PRAGMA user_version = 99"),
            "written by a newer version",
        ),
        (lambda file: file.mkdir(), "Is a directory"),
    ],
    ids=["other", "newer", "directory"],
)
def test_data_files_no_server_could_open_fail(
    name: str,
    spoil: Callable[[Path], object],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / name
    spoil(file)
    assert run(["doctor", "--json"]) == 1
    (found,) = [
        each for each in json.loads(capsys.readouterr().out)["checks"] if each["name"] == "data files"
    ]
    assert found["state"] == "failed" and name in found["detail"] and said in found["detail"]


def test_why_redis_does_not_answer_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    def why(url: str) -> str:
        assert run(["doctor", "--json", "--redis-url", url]) == 1
        checks = json.loads(capsys.readouterr().out)["checks"]
        return next(str(check["detail"]) for check in checks if check["name"] == "redis reachable")

    with RedisServer(tcp=True) as redis:
        redis.command("CONFIG", "SET", "requirepass", "geheim")
        at = redis.url.removeprefix("redis://")
        assert "another user or password" in why(f"redis://{at}")
        assert "another user or password" in why(f"redis://:falsch@{at}")
        assert "number of the database" in why(f"redis://:geheim@{at.rpartition('/')[0] or at}/99")
        assert "an option behind the ?" in why(f"redis://:geheim@{at}?nosuch=1")
    assert "nobody listens" in why("redis://127.0.0.1:1/0")
    assert "no such socket" in why("unix:///nowhere/redis.sock")
