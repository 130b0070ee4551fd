"""One server process: configuration of uvicorn, listening socket, start, drain, shutdown. Several processes:
`transport.supervisor`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import resource
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dualcast.transport import asgi, logs, selfcheck
from dualcast.transport.edge import Connections, Edge
from dualcast.transport.http import EdgeConfig, HttpProtocol
from dualcast.transport.options import TransportSettings

logger = logging.getLogger("dualcast.transport")

Drain = Callable[[], Awaitable[None]]


class CannotListen(OSError):
    """The address is taken, not this machine's or not allowed; errno and text are the system's."""


def build_config(app: Any, settings: TransportSettings) -> EdgeConfig:
    """uvicorn's configuration for `app`; loggers are left as the application set them up, but lose query
    strings.
    """
    config = EdgeConfig(
        app,
        Edge(settings),
        http=HttpProtocol if settings.detach else HttpToolsProtocol,
        ws="websockets-sansio",  # only for the stock classes: ours answers upgrades itself
        loop=settings.loop,
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        root_path=settings.root_path,
        ws_max_size=settings.max_frame_bytes,
        ws_per_message_deflate=False,
        ws_ping_interval=20,
        ws_ping_timeout=20,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=max(1, round(settings.grace_s)),
        backlog=settings.backlog,
        limit_concurrency=None,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        workers=1,
    )
    logs.install()
    return config


class Server(uvicorn.Server):
    """uvicorn's server with a drain before its shutdown. Signals (`stop_signals`): the first one drains, a
    second SIGINT after a second forces.
    """

    def __init__(self, app: Any, settings: TransportSettings, *, on_drain: Drain | None = None) -> None:
        """`on_drain` is awaited after listening stopped and before any connection is touched, for at most
        `drain_s`.
        """
        super().__init__(build_config(app, settings))
        self.settings = settings
        self.edge: Edge = self.config.edge  # type: ignore[attr-defined]
        self.server_state.connections = Connections()
        self.pumped: set[Any] = set()
        """Sessions over plain ASGI (see `asgi.PUMPED`)."""
        self._on_drain = on_drain
        self._asked_at = 0.0

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Runs until told to stop. Unlike uvicorn's, returns normally after a signal: a drained exit is a
        success.
        """
        with self.capture_signals():
            await self._serve(sockets)
            self._captured_signals.clear()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {}
        if threading.current_thread() is threading.main_thread():
            more = [number for number in stop_signals() if number not in (signal.SIGTERM, signal.SIGINT)]
            before = {number: signal.signal(number, self.handle_exit) for number in more}
        try:
            with super().capture_signals():
                yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self.settings.detach:
            problem = await selfcheck.problem()
            if problem is not None:
                logger.warning("detach is off, serving over plain ASGI: %s", problem)
                self.config.http_protocol_class = HttpToolsProtocol
        self.lifespan.state[asgi.PUMPED] = self.pumped
        await super().startup(sockets)
        if self.settings.freeze_gc:
            gc.collect()
            gc.freeze()
            gc.set_threshold(50_000, 25, 25)
        parent = multiprocessing.parent_process()
        if parent is not None:
            asyncio.get_running_loop().add_reader(parent.sentinel, self._orphaned, parent.sentinel)

    def _orphaned(self, sentinel: int) -> None:
        """The supervisor died: a worker nobody restarts or stops would hold the port."""
        asyncio.get_running_loop().remove_reader(sentinel)
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in self.servers:
            listener.close()
        await self._drain()
        await self._shutdown_pumped()
        # uvicorn closes no socket when its graceful timeout ends: what still has unsent data then would stay.
        abort = asyncio.get_running_loop().call_later(self.settings.grace_s * 0.8, self._abort_connections)
        try:
            await super().shutdown(sockets)
        finally:
            abort.cancel()
            self._abort_connections()
            self.edge.sweep.stop()

    async def _drain(self) -> None:
        if self._on_drain is None:
            return
        drain = asyncio.ensure_future(self._on_drain())
        ends = time.monotonic() + self.settings.drain_s
        while not drain.done() and not self.force_exit and time.monotonic() < ends:
            await asyncio.wait((drain,), timeout=0.1)
        if not drain.done():
            logger.warning("drain was cut short after %s s", self.settings.drain_s)
            drain.cancel()
        for outcome in await asyncio.gather(drain, return_exceptions=True):
            if isinstance(outcome, Exception):
                logger.error("drain failed", exc_info=outcome)

    async def _shutdown_pumped(self) -> None:
        for session in list(self.pumped):
            session.shutdown()
        # Their last words go through a pump; uvicorn's own close, which comes next, would overtake them.
        ends = time.monotonic() + self.settings.grace_s / 2
        while self.pumped and not self.force_exit and time.monotonic() < ends:
            await asyncio.sleep(0.02)

    def _abort_connections(self) -> None:
        for connection in list(self.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # A terminal sends SIGINT to the whole process group while the supervisor forwards its own: that pair
        # is one request.
        now = time.monotonic()
        if self.should_exit and sig == signal.SIGINT and now - self._asked_at < 1.0:
            return
        self._asked_at = self._asked_at or now
        super().handle_exit(sig, frame)


def stop_signals() -> tuple[signal.Signals, ...]:
    """What asks for a drain: also SIGHUP, a terminal that was closed, unless it is ignored (nohup)."""
    hangs_up = signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    return (signal.SIGTERM, signal.SIGINT, *((signal.SIGHUP,) if hangs_up else ()))


def listen(settings: TransportSettings, *, shared: bool = False) -> socket.socket:
    """A bound TCP socket; accepted connections inherit its options (Linux). Listening
    starts with the server.

    `shared`: other processes may bind the same port too (SO_REUSEPORT). Raises CannotListen.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )  # plain asyncio sets it on outgoing sockets only
        if settings.tcp_keepalive_s:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if hasattr(socket, "TCP_KEEPIDLE"):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, settings.tcp_keepalive_s)
                sock.setsockopt(
                    socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, settings.tcp_keepalive_s // 3)
                )
        if settings.tcp_user_timeout_ms and hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, settings.tcp_user_timeout_ms)
        sock.bind((settings.host, settings.port))
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise CannotListen(error.errno, error.strerror) from error
    return sock


def raise_file_limit() -> int:
    """Raises the soft limit of open files (one for every connection) to the hard one; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return soft
    return hard


def run(
    app: Any, settings: TransportSettings, *, on_drain: Drain | None = None, sock: socket.socket | None = None
) -> None:
    """Serves `app` in this process until SIGTERM or SIGINT. `sock`: an own bound socket instead of
    `listen(settings)`.
    """
    raise_file_limit()
    Server(app, settings, on_drain=on_drain).run(sockets=[sock or listen(settings)])
