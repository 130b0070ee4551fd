"""`SyncStream`: a `Stream` for threads. The same code, on an event loop in a thread of the stream's own that
also answers the server's pings while the program works.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from .errors import DualcastError
from .events import Event, Gap, Published, Status, Welcome
from .flow import Call, Flow, Policy
from .inbox import Inbox
from .stream import Stream
from .wanted import Backend, Wanted

T = TypeVar("T")
END_S = 15.0


class SyncStream:
    """Made by `Client.subscribe`; `with` opens it, `for` gives publications, `events()` all there is. One
    thread reads; `close` may be called from any."""

    def __init__(
        self,
        base_url: str,
        policy: Policy,
        run: Callable[[Flow[Any]], Any],
        use_token: Callable[[str], None],
        wanted: Wanted,
    ) -> None:
        self._make = (base_url, policy, run, use_token)
        self._wanted = wanted
        self._stream: Stream | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._turn = threading.Lock()
        """Of whoever begins something on the loop: nothing may be begun when it is about to end."""
        self._closed = False

    def __repr__(self) -> str:
        return f"Sync{self._stream!r}" if self._stream else f"SyncStream({', '.join(self._wanted.channels)})"

    @property
    def cursor(self) -> str:
        """The position behind what was given last."""
        return self._stream.cursor if self._stream else ""

    @property
    def transport(self) -> str:
        """`websocket` or `sse`; "": it is not connected."""
        return self._stream.transport if self._stream else ""

    @property
    def welcome(self) -> Welcome | None:
        """Of the last connection."""
        return self._stream.welcome if self._stream else None

    def __enter__(self) -> Self:
        """Waits until the server says `welcome`. Raises DualcastError as `Stream` does."""
        ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        with self._turn:
            if self._thread is not None:
                raise RuntimeError("a stream is entered once")
            if self._closed:
                raise DualcastError("closed", 0, "the subscription was closed before it was opened")
            self._thread = threading.Thread(
                target=self._run, args=(ready,), name="dualcast-subscription", daemon=True
            )
            self._thread.start()
            try:
                ready.result()
            except BaseException:
                self._closed = True
                raise
        assert self._stream is not None
        try:
            self._do(self._stream.__aenter__())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shut(kind)

    def close(self) -> None:
        """Ends it; a thread that waits for the next event gets the end of the iteration. In `on_status` it
        does not wait for the end."""
        self._shut(SystemExit)  # what was given last may not have been dealt with

    def __iter__(self) -> Iterator[Published]:
        return self

    def __next__(self) -> Published:
        while True:
            event = self.next_event()
            if event is None:
                raise StopIteration
            if isinstance(event, Published):
                return event

    def events(self) -> Iterator[Event]:
        """Publications and everything else the server says, and breaks of the line, in order."""
        while (event := self.next_event()) is not None:
            yield event

    def next_event(self, timeout_s: float | None = None) -> Event | None:
        """The next of `events()`; None: the stream was closed. Raises TimeoutError when there is none in
        time, after which it may be asked again; GapError, DualcastError as `Stream` does."""
        if self._stream is None:
            raise RuntimeError("enter the stream first: with client.subscribe(…) as stream")
        try:
            return self._do(_within(self._stream, timeout_s))
        except DualcastError as error:
            if self._closed and error.code == "closed":
                return None
            raise

    # ── as of Stream; from any thread ──

    @property
    def acked(self) -> str:
        """The position behind what was dealt with: what a store keeps."""
        return self._stream.acked if self._stream else ""

    @property
    def channels(self) -> tuple[str, ...]:
        """What is subscribed, beside the own `user:` channel and `all`."""
        return self._stream.channels if self._stream else self._wanted.channels

    @property
    def status(self) -> Status:
        """How the connection is."""
        return self._stream.status if self._stream else Status(state="closed")

    @property
    def inbox(self) -> Inbox:
        """The own inbox: over the WebSocket where there is one, else over REST."""
        stream = self._open()
        if stream.welcome is None:
            raise RuntimeError("enter the stream first")
        return Inbox(self.call, stream.welcome.user)

    def ack(self, what: Published | str | None = None) -> None:
        """A publication was dealt with, or everything up to a cursor, or (None) all that was given."""
        self._do(self._open().ack(what))

    def subscribe(self, *channels: str, since: str = "") -> None:
        """Adds channels while it is open. Raises DualcastError."""
        self._do(self._open().subscribe(*channels, since=since))

    def unsubscribe(self, *channels: str) -> None:
        """Takes channels away."""
        self._do(self._open().unsubscribe(*channels))

    def authenticate(self, token: str = "") -> None:
        """Takes another token to the server; "": the one the client's `token` function gives."""
        self._do(self._open().authenticate(token))

    def backfill(self, gap: Gap) -> list[Published]:
        """What history has of a gap and was not given yet."""
        return self._do(self._open().backfill(gap))

    def call(self, call: Call[T]) -> T:
        """One call: as a command where it has one and there is a WebSocket. Raises DualcastError."""
        return self._do(self._open().call(call))

    def _open(self) -> Stream:
        if self._stream is None or self._closed:
            raise DualcastError("closed", 0, "the subscription is not open")
        return self._stream

    # ── the thread ──

    def _run(self, ready: concurrent.futures.Future[None]) -> None:
        try:
            asyncio.run(self._live(ready))
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)  # there is no loop to be had

    async def _live(self, ready: concurrent.futures.Future[None]) -> None:
        base_url, policy, run, use_token = self._make

        async def in_thread(flow: Flow[Any]) -> Any:
            return await asyncio.to_thread(run, flow)

        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self._stream = Stream(Backend(base_url, policy, in_thread, use_token), self._wanted)
        ready.set_result(None)
        await self._end.wait()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None and self._thread is not None
        with self._turn:
            here = threading.current_thread() is self._thread
            if gone := self._closed or here or not self._thread.is_alive():
                work.close()
            else:
                future = asyncio.run_coroutine_threadsafe(work, self._loop)
        if here:
            raise RuntimeError("on_status may close the stream, and must not wait for it")
        if gone:
            raise DualcastError("closed", 0, "the subscription is closed, or was opened before a fork")
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise DualcastError("closed", 0, "the subscription was closed meanwhile") from None
        except BaseException:
            future.cancel()  # a signal came while it was waited for
            raise

    def _shut(self, kind: type[BaseException] | None) -> None:
        leaving: concurrent.futures.Future[None] | None = None
        with self._turn:
            thread, first, self._closed = self._thread, not self._closed, True
            if thread is None:
                return
            if first and thread.is_alive():  # in a forked process it is not
                assert self._loop is not None
                leaving = asyncio.run_coroutine_threadsafe(self._leave(kind), self._loop)
        if threading.current_thread() is thread:
            return
        try:
            if leaving is not None:
                leaving.result()
        finally:
            thread.join(END_S)

    async def _leave(self, kind: type[BaseException] | None) -> None:
        assert self._end is not None and self._stream is not None
        try:
            await self._stream.__aexit__(kind, None, None)
        finally:
            self._end.set()


async def _within(stream: Stream, timeout_s: float | None) -> Event | None:
    async with asyncio.timeout(timeout_s):
        return await stream.next_event()
