"""A master, its replicas and three sentinels: real processes, for `redis.sentinels`."""

from __future__ import annotations

import atexit
import contextlib
import functools
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from support.ports import free_port
from support.redis_server import BINARY, RedisServer, command_at

WAIT_S = 60.0
"""A bound, not an expectation."""


class Sentinel:
    """One sentinel process; its own configuration file, which it rewrites."""

    def __init__(self, folder: Path, master: int, password: str, options: tuple[str, ...]) -> None:
        self.port = free_port()
        self._file = folder / f"sentinel-{self.port}.conf"
        self._file.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {folder}\nloglevel warning\n"
            f"sentinel monitor mymaster 127.0.0.1 {master} 2\n" + "".join(f"{option}\n" for option in options)
        )
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        assert BINARY
        self._process = subprocess.Popen(
            [BINARY, str(self._file), "--sentinel"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def command(self, *words: str | int) -> object:
        """Raises OSError, also for an error reply."""
        return command_at(self.port, *words, password=self._password)

    def facts(self) -> dict[str, str]:
        """SENTINEL MASTER; empty while it does not answer."""
        try:
            flat = self.command("SENTINEL", "MASTER", "mymaster")
        except OSError:
            return {}
        assert isinstance(flat, list)
        words = [word.decode() for word in flat]
        return dict(zip(words[::2], words[1::2], strict=True))

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class SentinelSet:
    """Starts everything and waits until each sentinel knows the others and every replica is in step.

    `aof`: of the servers. `password`: of the servers, `sentinel_password` of the sentinels.

    `down_after_ms`: a sentinel connects to a new master at most once a second; with less patience than that
    it takes the new master for dead as well.
    """

    def __init__(
        self,
        *,
        replicas: int = 1,
        aof: str = "",
        down_after_ms: int = 3000,
        password: str = "",
        sentinel_password: str = "",
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="dc-sentinels-"))
        options = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
        options += ("--requirepass", password, "--masterauth", password) if password else ()
        self.servers = [RedisServer(aof=aof, tcp=True, options=options, password=password)]
        for _ in range(replicas):
            of = ("--replicaof", f"127.0.0.1 {self.servers[0].port}")
            self.servers.append(RedisServer(aof=aof, tcp=True, options=(*options, *of), password=password))
        said = (
            f"sentinel down-after-milliseconds mymaster {down_after_ms}",
            "sentinel failover-timeout mymaster 3000",
            *((f"sentinel auth-pass mymaster {password}",) if password else ()),
            *((f"requirepass {sentinel_password}",) if sentinel_password else ()),
        )
        self.sentinels = [
            Sentinel(self._folder, self.servers[0].port, sentinel_password, said) for _ in range(3)
        ]

    @property
    def places(self) -> tuple[str, ...]:
        """`redis.sentinels`."""
        return tuple(sentinel.place for sentinel in self.sentinels)

    @property
    def settings(self) -> dict[str, object]:
        """For a `ServerProcess`."""
        return {"redis.sentinels": ",".join(self.places)}

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        for server in self.servers:
            server.start()
        for sentinel in self.sentinels:
            sentinel.start()
        self.settled()

    def close(self) -> None:
        for sentinel in self.sentinels:
            sentinel.kill()
        for server in self.servers:
            server.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def settled(self) -> None:
        """Waits until a failover could begin: all sentinels name one living master and know one another, and
        every running replica is in step with it."""
        others = str(len(self.sentinels) - 1)
        running = sum(server.runs for server in self.servers)

        def ready() -> bool:
            facts = [sentinel.facts() for sentinel in self.sentinels]
            if any(one.get("num-other-sentinels") != others or one.get("flags") != "master" for one in facts):
                return False
            if len({one["port"] for one in facts}) > 1 or any(
                int(one["num-slaves"]) < len(self.servers) - 1 for one in facts
            ):
                return False
            info = self._at(int(facts[0]["port"])).info("replication")
            return (
                info.get("role") == "master"
                and sum("state=online" in text for name, text in info.items() if name.startswith("slave"))
                == running - 1
            )

        _until(ready, "the sentinels do not settle")

    def master(self) -> RedisServer:
        """The server that all sentinels name."""
        found: list[int] = []

        def agreed() -> bool:
            found[:] = {int(sentinel.facts().get("port", 0)) for sentinel in self.sentinels}
            return len(found) == 1 and found[0] > 0

        _until(agreed, "the sentinels do not agree")
        return self._at(found[0])

    def replica(self) -> RedisServer:
        """A running server that is not the master."""
        master = self.master()
        return next(server for server in self.servers if server is not master and server.runs)

    def kill_master(self) -> RedisServer:
        """kill -9 of the master, which is given back."""
        master = self.master()
        master.kill()
        return master

    def fail_over(self) -> RedisServer:
        """SENTINEL FAILOVER, as an operator does it; the new master."""
        old = self.master()

        def done() -> bool:
            # Refused while no replica is good enough, or another failover is at work; given up by the
            # sentinel when the replica does not hear in time.
            with contextlib.suppress(OSError):
                self.sentinels[0].command("SENTINEL", "FAILOVER", "mymaster")
            return self.master() is not old

        _until(done, "there was no failover")
        return self.master()

    def replaced(self, old: RedisServer) -> RedisServer:
        """Waits until all sentinels name another master than `old`; that."""
        _until(lambda: self.master() is not old, "there was no failover")
        return self.master()

    def _at(self, port: int) -> RedisServer:
        return next(server for server in self.servers if server.port == port)


@functools.cache
def shared() -> SentinelSet:
    """One set for the whole run, for tests that need no failover."""
    servers = SentinelSet(down_after_ms=60_000)  # none by mistake either, on a busy machine
    servers.start()
    atexit.register(servers.close)
    return servers


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.05)
