"""Several server processes on one port: spawned, restarted with back-off, stopped together.

Each worker binds its own SO_REUSEPORT socket, so the kernel spreads new connections evenly. The supervisor
holds the port (bound, never listening) for as long as it lives. It runs no event loop and serves nothing.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Any, Final

import msgspec

from dualcast.transport.options import TransportSettings
from dualcast.transport.server import listen, raise_file_limit, stop_signals

logger = logging.getLogger("dualcast.transport")

FIRST_BACKOFF_S: Final = 0.5
MAX_BACKOFF_S: Final = 30.0
STABLE_S: Final = 30.0
"""A worker that lived this long starts its back-off anew when it dies."""

Entry = Callable[[TransportSettings, tuple[Any, ...]], None]


class Supervisor:
    """Keeps `settings.workers` processes running `entry(settings, args)`. Both must be picklable, `entry`
    importable.
    """

    def __init__(self, entry: Entry, settings: TransportSettings, args: tuple[Any, ...] = ()) -> None:
        self._entry = entry
        self._args = args
        self._context = multiprocessing.get_context("spawn")
        self._reservation, self.settings = reserve_port(settings)
        count = settings.workers
        self.processes: list[SpawnProcess | None] = [None] * count
        self._started = [0.0] * count
        self._backoff_s = [0.0] * count
        self._due = [0.0] * count
        self._stopping = False
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_writer.setblocking(False)

    def stop(self) -> None:
        """Asks all workers to drain; `run` returns when they have. Safe in a signal handler and from another
        thread.
        """
        self._stopping = True
        with suppress(OSError):  # a signal may still come while `run` is ending
            self._wake_writer.send(b"\0")

    def run(self) -> int:
        """Blocks until one of `stop_signals` or `stop` and until every worker has ended; returns the exit
        status: 0, or 1 if a worker had to be killed. Signals are handled only in the main thread; the
        handlers before are put back.
        """
        before = {}
        if threading.current_thread() is threading.main_thread():
            before = {number: signal.signal(number, lambda *_: self.stop()) for number in stop_signals()}
        try:
            raise_file_limit()
            while not self._stopping:
                self._start_due()
                self._wait()
                self._reap()
            return self._stop_all()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start_due(self) -> None:
        now = time.monotonic()
        for index, process in enumerate(self.processes):
            if process is None and now >= self._due[index]:
                self._start(index, now)

    def _start(self, index: int, now: float) -> None:
        process = self._context.Process(
            target=self._entry, args=(self.settings, self._args), name=f"dualcast-worker-{index}"
        )
        process.start()
        self.processes[index] = process
        self._started[index] = now

    def _wait(self) -> None:
        """Until a worker ends, one is due to start, or `stop`."""
        due = [due for due, process in zip(self._due, self.processes, strict=True) if process is None]
        timeout_s = max(0.0, min(due) - time.monotonic()) if due else None
        sentinels = [process.sentinel for process in self.processes if process is not None]
        if self._wake_reader in wait([*sentinels, self._wake_reader], timeout=timeout_s):
            self._wake_reader.recv(64)

    def _reap(self) -> None:
        now = time.monotonic()
        for index, process in enumerate(self.processes):
            if process is None or process.exitcode is None:
                continue
            if now - self._started[index] >= STABLE_S:
                self._backoff_s[index] = 0.0
            self._backoff_s[index] = min(MAX_BACKOFF_S, 2 * self._backoff_s[index] or FIRST_BACKOFF_S)
            self._due[index] = now + self._backoff_s[index]
            self.processes[index] = None
            if not self._stopping:
                logger.error(
                    "worker %d ended with status %s, next start in %.1f s",
                    index,
                    process.exitcode,
                    self._backoff_s[index],
                )
            process.close()

    def _stop_all(self) -> int:
        running = [process for process in self.processes if process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + self.settings.drain_s + self.settings.grace_s + 5.0
        status = 0
        for process in running:
            process.join(max(0.1, deadline - time.monotonic()))
            if process.exitcode is None:
                logger.error("worker %s did not end in time and is killed", process.name)
                process.kill()
                process.join()
                status = 1
        self._reservation.close()
        self._wake_reader.close()
        self._wake_writer.close()
        return status


def reserve_port(settings: TransportSettings) -> tuple[socket.socket, TransportSettings]:
    """Holds the port for the workers: the bound socket and the settings with the real port number.

    Raises CannotListen if another program listens there, which SO_REUSEPORT alone would not notice.
    """
    if settings.port:
        listen(settings).close()
    sock = listen(settings, shared=True)
    return sock, msgspec.structs.replace(settings, port=sock.getsockname()[1])


def supervise(entry: Entry, settings: TransportSettings, args: tuple[Any, ...] = ()) -> int:
    """Runs a `Supervisor`; returns the exit status for the process.

    A worker's `entry` serves with `server.run(app, settings, sock=listen(settings, shared=True))`.
    """
    return Supervisor(entry, settings, args).run()
