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

from .events import Event, Gap, Published, Welcome
from .flow import Flow, Policy
from .stream import Stream, log
from .wanted import Backend, Wanted

T = TypeVar("T")
END_S = 15.0


class SyncStream:
    """Made by `Client.subscribe`; `with` opens it, `for` gives publications, `events()` all there is. One
    thread reads; `close` may be called from any."""

    def __init__(
        self, base_url: str, policy: Policy, run: Callable[[Flow[Any]], Any], wanted: Wanted
    ) -> None:
        self._make = (base_url, policy, run, wanted)
        self._stream: Stream | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._closing = threading.Lock()
        self._closed = False

    def __repr__(self) -> str:
        return f"Sync{self._stream!r}" if self._stream else f"SyncStream({', '.join(self._make[3].channels)})"

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
        if self._thread is not None:
            raise RuntimeError("a stream is entered once")
        ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._live(ready)), name="dualcast-subscription", daemon=True
        )
        self._thread.start()
        ready.wait()
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
        """Ends it; a thread that waits for the next event gets the end of the iteration."""
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
            if isinstance(event, Gap) and not event.filled:
                log.warning("publications of %s are missing: %s", event.channel, event.reason)

    def events(self) -> Iterator[Event]:
        """Publications and everything else the server says, and breaks of the line, in order."""
        while (event := self.next_event()) is not None:
            yield event

    def next_event(self, timeout_s: float | None = None) -> Event | None:
        """The next of `events()`; None: the stream was closed. Raises TimeoutError when there is none in
        time, after which it may be asked again; GapError, DualcastError as `Stream` does."""
        if self._stream is None:
            raise RuntimeError("enter the stream first: with client.subscribe(…) as stream")
        if self._closed:
            return None
        return self._do(_within(self._stream, timeout_s))

    # ── the thread ──

    async def _live(self, ready: threading.Event) -> None:
        base_url, policy, run, wanted = self._make

        async def in_thread(flow: Flow[Any]) -> Any:
            return await asyncio.to_thread(run, flow)

        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self._stream = Stream(Backend(base_url, policy, in_thread), wanted)
        ready.set()
        await self._end.wait()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()
            raise
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise RuntimeError("the stream was closed") from None
        except BaseException:
            future.cancel()  # a signal came while it was waited for
            raise

    def _shut(self, kind: type[BaseException] | None) -> None:
        with self._closing:
            if self._closed or self._thread is None:
                return
            self._closed = True
            assert self._loop is not None and self._end is not None and self._stream is not None
            try:
                self._do(self._stream.__aexit__(kind, None, None))
            finally:
                self._loop.call_soon_threadsafe(self._end.set)
                if threading.current_thread() is not self._thread:
                    self._thread.join(END_S)


async def _within(stream: Stream, timeout_s: float | None) -> Event | None:
    async with asyncio.timeout(timeout_s):
        return await stream.next_event()
