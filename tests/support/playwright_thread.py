"""One Chromium for all tests of a process, driven by Playwright on a thread of its own.

Playwright belongs to one event loop, and every test has its own: so it gets a loop that outlives them. Its
driver and a browser cost two seconds of CPU, a context half a second.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from support.ports import free_port

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Playwright

T = TypeVar("T")
BINARY = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--disable-gpu", "--disable-quic")
AWAKE = (
    "--disable-back-forward-cache",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
)
"""What Playwright starts a browser with so that no page sleeps."""
START_S = 60.0
_DONE = 10.0


class PlaywrightThread:
    """The thread, its loop and the browser. Starts when it is first asked for a browser."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._playwright: Playwright | None = None
        self._browser: Browser | None = None
        self._starting: asyncio.Lock | None = None

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits `work` on the browser's loop, from the caller's."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._ready_loop()))

    async def browser(self) -> Browser:
        """The browser, started if it is not running. Only on the browser's loop."""
        assert self._starting is not None
        async with self._starting:
            if self._browser is None or not self._browser.is_connected():
                self._browser = await self._launch()
        return self._browser

    async def alone(self) -> tuple[Browser, BrowserContext]:
        """A browser to close, and its context, which has none of Playwright's settings. Only on the browser's
        loop."""
        port = free_port()
        process = await self._launch(f"--remote-debugging-port={port}", without=AWAKE)
        assert self._playwright is not None
        connected = await self._playwright.chromium.connect_over_cdp(
            f"http://127.0.0.1:{port}", no_defaults=True
        )
        return process, connected.contexts[0]

    async def _launch(self, *flags: str, without: Sequence[str] = ()) -> Browser:
        from playwright.async_api import async_playwright  # slow to import, and most workers never need it

        assert BINARY, "chromium is not installed"
        if self._playwright is None:
            self._playwright = await async_playwright().start()
        return await self._playwright.chromium.launch(
            executable_path=BINARY,
            args=[*FLAGS, *flags],
            ignore_default_args=without,
            chromium_sandbox=False,
            timeout=START_S * 1000,
        )

    def close(self) -> None:
        """Ends the browser, the driver and the thread, if they ever started."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._close(), loop).result(_DONE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_DONE)
        loop.close()
        self._loop = self._thread = None

    async def _close(self) -> None:
        if self._browser is not None:
            with suppress(Exception):  # it may have crashed
                await self._browser.close()
        if self._playwright is not None:
            await self._playwright.stop()
        self._browser = self._playwright = None

    def _ready_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._starting = asyncio.Lock()
                self._thread = threading.Thread(target=self._loop.run_forever, name="playwright", daemon=True)
                self._thread.start()
            return self._loop


SHARED = PlaywrightThread()
