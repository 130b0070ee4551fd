"""The command line against a real server: a process of its own, killed and started again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

DUALCAST = [sys.executable, "-P", "-m", "dualcast"]


class Here:
    """A directory with a server of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        self.url = f"http://127.0.0.1:{self.port}"
        drop = ("DUALCAST_", "REDIS_", "JWT_SECRET", "SECRET_KEY")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(drop)}
        self.env["DUALCAST_URL"] = self.url
        self.server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [*DUALCAST, "serve", "--dev", "--port", str(self.port)]
        with (self.folder / "server.log").open("ab") as log:
            self.server = subprocess.Popen(command, cwd=self.folder, env=self.env, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while True:
            try:
                if httpx.get(self.url + "/readyz").status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            assert self.server.poll() is None and time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.server is not None
        self.server.send_signal(number)
        return self.server.wait(30)

    def log(self) -> str:
        return (self.folder / "server.log").read_text()

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [*DUALCAST, *arguments]
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def tail(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*DUALCAST, "tail", "--json", *arguments],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    found = Here(tmp_path_factory.mktemp("cli"))
    found.start()
    yield found
    assert found.server is not None
    if found.server.poll() is None:
        found.server.kill()
        found.server.wait()


def connected(tail: subprocess.Popen[str]) -> None:
    assert tail.stderr is not None
    for line in tail.stderr:
        if line.startswith("connected"):
            return
    raise AssertionError("tail ended before it was connected")


def test_publish_prints_where_it_went(here: Here) -> None:
    done = here.run("publish", "--user", "demo", "Hello", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["cursor"] and answer["duplicate"] is False
    again = here.run("publish", "--channel", "topic:x", "--id", "one", "-", stdin='{"n": 1}')
    repeated = here.run("publish", "--channel", "topic:x", "--id", "one", '{"n": 1}')
    assert "published one" in again.stdout and "known already" in repeated.stdout


def test_refusals_are_one_line(here: Here) -> None:
    for arguments, words in (
        (("publish", "--channel", "nonsense:x", "1"), "bad-channel"),
        (("publish", "--channel", "topic:x", "1", "--token", "wrong"), "401"),
        (("publish", "--channel", "topic:x", "1", "--url", "http://127.0.0.1:1"), "is the server running?"),
        (("tail", "--token", "wrong"), "401"),
        (("tail", "--ws", "--token", "wrong"), "4001"),
        (("tail", "user:somebody-else"), "403"),
    ):
        done = here.run(*arguments)
        assert done.returncode == 1, (arguments, done.stdout, done.stderr)
        assert words in done.stderr and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("transport", [(), ("--ws",)], ids=["sse", "ws"])
def test_tail_goes_on_by_cursor_after_the_server_was_killed(here: Here, transport: tuple[str, ...]) -> None:
    channel = "topic:ws" if transport else "topic:sse"
    tail = here.tail(channel, "--count", "4", *transport)
    try:
        connected(tail)
        assert here.run("publish", "--channel", channel, "1").returncode == 0
        assert tail.stdout is not None
        first = json.loads(tail.stdout.readline())
        assert here.run("publish", "--channel", channel, "2").returncode == 0
        here.stop(signal.SIGKILL)
        here.start()
        for number in ("3", "4"):
            assert here.run("publish", "--channel", channel, number).returncode == 0
        rest = [json.loads(line) for line in tail.communicate(timeout=60)[0].splitlines()]
    finally:
        tail.kill()
        tail.wait()
    assert [entry["data"] for entry in (first, *rest)] == [1, 2, 3, 4]
    assert tail.returncode == 0


def test_tail_from_a_cursor_reads_history(here: Here) -> None:
    cursors = [
        json.loads(here.run("publish", "--channel", "topic:h", str(number), "--json").stdout)["cursor"]
        for number in range(3)
    ]
    done = here.run("tail", "topic:h", "--cursor", cursors[0], "--count", "2", "--json")
    assert [json.loads(line)["data"] for line in done.stdout.splitlines()] == [1, 2]


@pytest.mark.parametrize("transport", [(), ("--ws",)], ids=["sse", "ws"])
def test_bench_counts_what_arrives(here: Here, transport: tuple[str, ...]) -> None:
    done = here.run("bench", "--connections", "20", "--rate", "20", "--seconds", "1", *transport)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-5:-3] == ["400", "0"], done.stdout


def test_bench_is_not_held_to_the_limit_of_the_user_in_the_environment(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(here.env, "DUALCAST_TOKEN", here.run("token", "--dev").stdout.strip())
    done = here.run("bench", "--connections", "30", "--rate", "10", "--seconds", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-5:-3] == ["300", "0"], done.stdout


def test_a_second_server_is_refused_in_words(here: Here) -> None:
    same_port = here.run("serve", "--dev", "--port", str(here.port))
    assert same_port.returncode == 1 and "cannot listen on" in same_port.stderr
    same_data = here.run("serve", "--dev", "--port", "0")
    assert same_data.returncode == 1 and "in use by another server" in same_data.stderr
    assert "Traceback" not in same_port.stderr + same_data.stderr


def test_doctor_finds_the_running_server(here: Here) -> None:
    found = json.loads(here.run("doctor", "--json").stdout)
    states = {check["name"]: check["state"] for check in found["checks"]}
    assert states["keys"] == "failed" and not found["ok"]
    assert states["embedded engine"] == "warning"


def test_no_token_is_in_the_log(here: Here) -> None:
    token = here.run("token", "--dev", "--sub", "demo").stdout.strip()
    assert (
        httpx.get(here.url + "/v1/connections", headers={"Authorization": f"Bearer {token}"}).status_code
        == 200
    )
    httpx.get(here.url + "/v1/stream", params={"token": "x." + token}, timeout=5)
    assert token.split(".")[2] not in here.log()


def test_sigterm_ends_the_server_cleanly(here: Here) -> None:
    assert here.stop() == 0
    assert "Traceback" not in here.log()
    here.start()
