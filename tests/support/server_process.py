"""`dualcast serve` as a process of its own: started, killed, drained, started again on the same port,
measured.

Nothing of the test's environment reaches it but PATH; its output goes to a file whose end is shown when it
does not start.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import jwt
import psutil  # type: ignore[import-untyped]

from support.plain_http import http_client
from support.ports import free_port

SECRET = "a secret of the tests that is long enough"
START_S = 40.0
EXIT_S = 40.0
METRIC_S = 60.0


def token(
    sub: str,
    *,
    roles: Sequence[str] = (),
    channels: Sequence[str] = (),
    life_s: int = 3600,
    secret: str = SECRET,
) -> str:
    """A token the servers of this module accept."""
    now = int(time.time())
    claims = {"sub": sub, "roles": list(roles), "channels": list(channels), "iat": now, "exp": now + life_s}
    return jwt.encode(claims, secret, algorithm="HS256")


class ServerProcess:
    """One server. `settings` are dotted names (`delivery.lag_limit_s`); the number of connections per user is
    not limited unless they say so. `engine` redis wants `redis_url`. `environ`: more names, as they are.
    """

    def __init__(
        self,
        engine: str,
        folder: Path,
        *,
        redis_url: str = "",
        port: int = 0,
        dev: bool = False,
        settings: Mapping[str, object] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.port = port or free_port()
        self.host = "127.0.0.1"
        self.base_url = f"http://{self.host}:{self.port}"
        self.log_file = folder / f"server-{self.port}.log"
        self.starts = 0
        self._command = [sys.executable, "-m", "dualcast", "serve", "--engine", engine]
        self._command += ["--data-dir", str(folder / "data"), "--port", str(self.port)]
        self._command += ["--redis-url", redis_url] if redis_url else []
        self._command += ["--dev"] if dev else []
        given = {"limits.connections_per_user": 0, **(settings or {})}
        self._environment = {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONUNBUFFERED": "1",
            **{"DUALCAST_" + name.upper().replace(".", "__"): str(value) for name, value in given.items()},
            **({} if dev else {"DUALCAST_JWT_SECRET": SECRET}),
            **(environ or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server does not run"
        return self._process.pid

    async def start(self) -> None:
        """Starts it and waits until `/readyz` says 200."""
        self.launch()
        await self.ready()

    def launch(self) -> None:
        """Starts it without waiting."""
        assert self._process is None, "the server runs"
        self.starts += 1
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    async def ready(self) -> None:
        """Waits for 200 from `/readyz`. Raises RuntimeError with the end of the log if that does not come."""
        deadline = time.monotonic() + START_S
        while True:
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the server did not start:\n" + self.log()[-4000:])
            if await status(self.host, self.port, "/readyz") == 200:
                return
            await asyncio.sleep(0.02)

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def exited(self) -> int:
        """Waits for its end; the exit code."""
        assert self._process is not None
        code = await asyncio.to_thread(self._process.wait, EXIT_S)
        self._process = None
        return code

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    async def metric(self, name: str) -> float:
        """The value of a metric, all labels added up."""
        async with http_client() as http:
            text = (await http.get(self.base_url + "/metrics")).text
        rows = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return sum(float(value) for key, value in rows if key.partition("{")[0] == name)

    async def until_metric(self, name: str, wanted: Callable[[float], bool]) -> float:
        """Waits until the metric is as wanted. Raises TimeoutError."""
        async with asyncio.timeout(METRIC_S):
            while not wanted(value := await self.metric(name)):
                await asyncio.sleep(0.1)
        return value

    def rss_bytes(self) -> int:
        return int(psutil.Process(self.pid).memory_info().rss)

    def open_files(self) -> int:
        """Open file descriptors."""
        return int(psutil.Process(self.pid).num_fds())

    async def until_files(self, most: int) -> None:
        """Waits until at most so many files are open: who hung up last may not have been noticed yet. Raises
        TimeoutError."""
        async with asyncio.timeout(METRIC_S):
            while self.open_files() > most:
                await asyncio.sleep(0.1)


async def status(host: str, port: int, path: str) -> int:
    """The status of a GET; 0 when there was no answer."""
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                words = (await reader.readline()).split()
                return int(words[1]) if len(words) > 1 else 0
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError):
        return 0
