"""Processes the run starts, each pinned to CPUs, with a log of its own; whatever is started here is
stopped here.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import redis


class BenchmarkFailed(Exception):
    """A process did not start, died, or said no; the text names it and shows the end of its log."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pinned(command: Sequence[str], cpus: set[int]) -> list[str]:
    """`command` so that it runs on `cpus` only, all its threads and children included."""
    return ["taskset", "--cpu-list", ",".join(map(str, sorted(cpus))), *command]


class Running:
    """One child process. `cpus`: where it may run."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        cpus: set[int],
        folder: Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                pinned(command, cpus),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Settings of the person who runs this must not reach the servers.
                env={k: v for k, v in os.environ.items() if not k.startswith("DUALCAST_")} | dict(env or {}),
                cwd=folder,
            )
        self.pid = self.process.pid

    def failure(self, what: str) -> BenchmarkFailed:
        return BenchmarkFailed(f"{self.name}: {what}\n{self.log.read_text(errors='replace')[-2000:]}")

    def wait_port(self, port: int, timeout_s: float = 20) -> None:
        """Until something listens on `port`; raises BenchmarkFailed when the process ends first or time is
        up.
        """
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise self.failure(f"ended with {self.process.returncode}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            time.sleep(0.02)
        raise self.failure(f"does not listen after {timeout_s:g} s")

    def stop(self, patience_s: float = 3) -> None:
        """SIGTERM, and SIGKILL for what is left after `patience_s`: thousands of open streams may drain
        slowly.
        """
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(patience_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class RedisServer(Running):
    """A redis-server with the settings the operations guide demands (AOF every second, no eviction), empty
    at start.
    """

    def __init__(self, folder: Path, cpus: set[int]) -> None:
        self.port = free_port()
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "maxclients": "15000",
            # A saturated baseline falls behind; cutting it off would hide by how much.
            "client-output-buffer-limit": "pubsub 0 0 0",
        }
        command = ["redis-server", *(word for key, value in options.items() for word in (f"--{key}", value))]
        super().__init__("redis", command, cpus=cpus, folder=folder)
        self.wait_port(self.port)
        self.client = redis.Redis(port=self.port, decode_responses=True)
        self.client.ping()

    def connections(self) -> int:
        """Client connections now, without the runner's own."""
        own = self.client.client_id()
        return sum(int(client["id"]) != own for client in self.client.client_list())

    def subscribers(self, channel: str) -> int:
        return int(self.client.pubsub_numsub(channel)[0][1])

    def stop(self, patience_s: float = 3) -> None:
        self.client.close()
        super().stop(patience_s)


def uvicorn_command(app: str, port: int) -> list[str]:
    """`app` (module:name) under uvicorn with its fastest parts: uvloop, httptools, the sans-I/O WebSocket
    class.
    """
    options = ["--host", "127.0.0.1", "--port", str(port), "--loop", "uvloop", "--http", "httptools"]
    options += ["--ws", "websockets-sansio", "--ws-per-message-deflate", "false", "--backlog", "4096"]
    options += ["--log-level", "warning", "--no-access-log"]
    return [sys.executable, "-m", "uvicorn", app, *options]
