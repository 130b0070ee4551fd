"""A real redis-server process per use: on a unix socket or a TCP port, with append-only file or
without.

`RedisServer` can be killed, restarted over its data, frozen and thawed; `shared()` is one server for all
tests that need nothing special (their tenants have unique names).
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import hiredis

from support.ports import free_port

BINARY = shutil.which("redis-server")
START_S = 40.0


class RedisServer:
    """A server process. `aof`: "" (nothing is kept), "always" or "everysec"; `tcp`: a port instead of the
    unix socket; `password`: what `command` needs to come in.
    """

    def __init__(
        self, *, aof: str = "", tcp: bool = False, options: tuple[str, ...] = (), password: str = ""
    ) -> None:
        assert BINARY, "redis-server is not installed"
        self.folder = Path(tempfile.mkdtemp(prefix="dc-redis-"))
        self.socket = str(self.folder / "s")
        self.port = free_port() if tcp else 0
        self.url = f"redis://127.0.0.1:{self.port}/0" if tcp else f"unix://{self.socket}?db=0"
        self._aof = aof
        self._options = options
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def runs(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Starts the process over what the folder holds and waits until it answers."""
        arguments = [BINARY, "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", self.socket]
        arguments += ["--dir", str(self.folder), "--save", "", "--daemonize", "no", "--loglevel", "warning"]
        arguments += ["--appendonly", "yes" if self._aof else "no"]
        if self._aof:
            arguments += ["--appendfsync", self._aof]
        self._process = subprocess.Popen(
            [*map(str, arguments), *self._options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + START_S
        while True:
            try:
                if self.command("PING") == b"PONG":
                    return
            except OSError:
                pass
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError("redis-server did not start")
            time.sleep(0.005)

    def command(self, *words: str | bytes | int) -> object:
        """Runs one command over a connection of its own; error replies are raised as OSError."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(5)
            line.connect(self.socket)
            if self._password:
                _exchange(line, "AUTH", self._password)
            return _exchange(line, *words)

    def info(self, section: str) -> dict[str, str]:
        """INFO of one section."""
        found = self.command("INFO", section)
        assert isinstance(found, bytes)
        rows = (line.partition(":") for line in found.decode().splitlines())
        return {name: value for name, _, value in rows if value}

    def clients(self, name: str = "dualcast-") -> list[dict[str, str]]:
        """CLIENT LIST, those whose name begins with `name`."""
        listed = self.command("CLIENT", "LIST")
        assert isinstance(listed, bytes)
        rows = [dict(item.split("=", 1) for item in line.split()) for line in listed.decode().splitlines()]
        return [row for row in rows if row.get("name", "").startswith(name)]

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """kill -9 and a start over the same data."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: connections stay, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def copy_data(self) -> Path:
        """A copy of the append-only files as they are now."""
        copy = Path(tempfile.mkdtemp(dir=self.folder, prefix="copy-"))
        shutil.copytree(self.folder / "appendonlydir", copy / "appendonlydir")
        return copy

    def restore_data(self, copy: Path) -> None:
        """Puts a copy in the place of the data of a killed server: what came after it is lost."""
        assert self._process is None, "kill it first"
        shutil.rmtree(self.folder / "appendonlydir")
        shutil.copytree(copy / "appendonlydir", self.folder / "appendonlydir")

    def close(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def command_at(port: int, *words: str | bytes | int, password: str = "") -> object:
    """One command at 127.0.0.1, over a connection of its own; error replies are raised as OSError."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as line:
        if password:
            _exchange(line, "AUTH", password)
        return _exchange(line, *words)


def _exchange(line: socket.socket, *words: str | bytes | int) -> object:
    line.sendall(hiredis.pack_command(words))  # type: ignore[arg-type]
    reader = hiredis.Reader()
    while (reply := reader.gets()) is False:
        data = line.recv(65536)
        if not data:
            raise OSError("closed")
        reader.feed(data)
    if isinstance(reply, hiredis.ReplyError):
        raise OSError(str(reply))
    return reply


@functools.cache
def shared() -> RedisServer:
    """One server without persistence for the whole run."""
    server = RedisServer()
    server.start()
    atexit.register(server.close)
    return server
