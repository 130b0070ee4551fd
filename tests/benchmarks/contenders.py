"""The servers measured side by side: how each is started, subscribed to and published to.

In: a `Bench` (CPUs, folder, Redis). Out: arguments for the load programs, and the process whose CPU and
memory count.
"""

from __future__ import annotations

import os
import pwd
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from benchmarks.processes import BenchmarkFailed, RedisServer, Running, free_port, uvicorn_command

BENCHMARKS = Path(__file__).parent
PAYLOAD_BYTES = 200


@dataclass(frozen=True)
class Bench:
    """What every contender of one cell shares. `folder` is empty at the start and thrown away at the end."""

    folder: Path
    server_cpus: set[int]
    load_cpus: set[int]
    redis: RedisServer


class Contender:
    """One server and one transport (`sse` or `ws`). `start` before anything else; `stop` always.

    Publications go to channel `all` (stream 0) or, round robin, to the single users 0…targets-1 (stream 1);
    connection i is user i.
    """

    name: ClassVar[str]
    note: ClassVar[str]
    """How it is published to, in a few words, for the report."""
    connect_count: ClassVar[int] = 5_000
    """Connections in the `connect` scenario."""
    sustained_rate: ClassVar[float] = 100
    """Publications/s to 1,000 subscribers that it keeps up with on one core of a small machine."""

    def __init__(self, bench: Bench, transport: str) -> None:
        self.bench = bench
        self.transport = transport
        self.port = free_port()
        self.server: Running

    @classmethod
    def available(cls) -> bool:
        return True

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        if hasattr(self, "server"):
            self.server.stop()

    def fan_arguments(self, connections: int) -> list[str]:
        """Options of `fan` for `connections` subscribers."""
        raise NotImplementedError

    def publish_arguments(self, *, rate: float, seconds: float, targets: int = 0) -> list[str]:
        """Options of `publish` for a constant rate to `all`, or to single users when `targets` is not 0."""
        raise NotImplementedError

    def wait_subscribed(self, connections: int) -> None:
        """Returns when a publication would reach every connection that is open."""
        time.sleep(0.3)


class _OverRedis(Contender):
    """A baseline under uvicorn whose publisher speaks to Redis directly."""

    module: ClassVar[str]
    note = "published straight to Redis"

    def start(self) -> None:
        self.server = Running(
            self.name.replace(" ", "-"),
            uvicorn_command(f"benchmarks.baselines.{self.module}:app", self.port),
            cpus=self.bench.server_cpus,
            folder=self.bench.folder,
            env={"BENCH_REDIS_PORT": str(self.bench.redis.port), "PYTHONPATH": str(BENCHMARKS.parent)},
        )
        self.server.wait_port(self.port)

    def fan_arguments(self, connections: int) -> list[str]:
        return [
            *("--port", str(self.port), "--mode", self.transport, "--connections", str(connections)),
            *("--path", f"/{self.transport}/all"),
        ]

    def publish_arguments(self, *, rate: float, seconds: float, targets: int = 0) -> list[str]:
        return [
            *("--port", str(self.bench.redis.port), "--protocol", "resp", "--path", "all", "--batch", "100"),
            *("--rate", str(rate), "--seconds", str(seconds), "--payload", str(PAYLOAD_BYTES)),
        ]

    def expected_subscriptions(self, connections: int) -> int:
        return 1

    def wait_subscribed(self, connections: int) -> None:
        # These answer before they subscribe.
        end = time.monotonic() + 30
        while self.bench.redis.subscribers("all") < self.expected_subscriptions(connections):
            if time.monotonic() > end:
                raise BenchmarkFailed(f"{self.name} does not subscribe")
            time.sleep(0.05)
        super().wait_subscribed(connections)


class LegacyPattern(_OverRedis):
    name = "legacy pattern"
    module = "legacy_pattern"
    connect_count = 2_000
    sustained_rate = 5

    def expected_subscriptions(self, connections: int) -> int:
        return connections


class LitestarChannels(_OverRedis):
    name = "Litestar channels"
    module = "litestar_channels"
    sustained_rate = 20


NGINX = """
user {user};
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log error;
load_module {module};
events {{ worker_connections 20000; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location ~ ^/publish/(.+)$ {{ nchan_publisher; nchan_channel_id $1; }}
        location ~ ^/ws/(.+)$ {{ nchan_subscriber websocket; nchan_channel_id $1; }}
        location ~ ^/sse/(.+)$ {{ nchan_subscriber eventsource; nchan_channel_id $1; }}
    }}
}}
"""
_MODULE_FOLDERS = (
    "/usr/lib/nginx/modules",
    "/usr/lib64/nginx/modules",
    "/usr/share/nginx/modules",
    "/etc/nginx/modules",
)


class Nchan(Contender):
    name = "nchan"
    note = "published by HTTP POST, memory store, one worker"

    @staticmethod
    def _module() -> Path | None:
        paths = (Path(folder) / "ngx_nchan_module.so" for folder in _MODULE_FOLDERS)
        return next((path for path in paths if path.exists()), None)

    @classmethod
    def available(cls) -> bool:
        return shutil.which("nginx") is not None and cls._module() is not None

    def start(self) -> None:
        folder = self.bench.folder
        user = pwd.getpwuid(os.getuid()).pw_name
        config = NGINX.format(user=user, folder=folder, module=self._module(), port=self.port)
        (folder / "nginx.conf").write_text(config)
        command = [
            "nginx",
            "-p",
            str(folder),
            "-c",
            str(folder / "nginx.conf"),
            "-e",
            str(folder / "nginx-error.log"),
        ]
        self.server = Running("nchan", command, cpus=self.bench.server_cpus, folder=folder)
        self.server.wait_port(self.port)

    def fan_arguments(self, connections: int) -> list[str]:
        arguments = ["--port", str(self.port), "--mode", self.transport, "--connections", str(connections)]
        if self.transport == "ws":
            # Both transports then carry message ids.
            arguments += ["--header", "Sec-WebSocket-Protocol: ws+meta.nchan"]
        return [*arguments, "--path", f"/{self.transport}/all"]

    def publish_arguments(self, *, rate: float, seconds: float, targets: int = 0) -> list[str]:
        return [
            *("--port", str(self.port), "--protocol", "http", "--path", "/publish/all"),
            *("--rate", str(rate), "--seconds", str(seconds), "--payload", str(PAYLOAD_BYTES)),
        ]
