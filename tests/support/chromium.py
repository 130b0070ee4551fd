"""Pages in a headless Chromium: open one, run JavaScript in it, take a picture.

Playwright drives the Chromium of the system; every `Chromium` is a browser context of its own (cookies,
storage, workers, cache), and all of a process share one browser (`support.playwright_thread`).
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from support.playwright_thread import SHARED

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, CDPSession, Page

T = TypeVar("T")
ANSWER_S = 30.0
POLL_MS = 20
_AWAY = ("context was destroyed", "navigated or closed", "Cannot find context", "Promise was collected")
"""How Chromium says that a page is being replaced by the next one."""


class PageError(AssertionError):
    """JavaScript in the page failed."""


class Tab:
    """One page. `console` and `failures` are those of all pages of its browser."""

    def __init__(self, console: list[str], failures: list[str]) -> None:
        self._page: Page | None = None
        self._session: CDPSession | None = None
        self.console = console
        """What the pages complained about in the console, and errors nobody caught."""
        self.failures = failures
        """Network errors the browser reported."""

    async def open(self, url: str) -> None:
        """Loads a page. Raises PageError where nobody answers."""
        await self.on_page(lambda page: page.goto(url, timeout=ANSWER_S * 1000))

    async def reload(self) -> None:
        """Loads it again."""
        await self.on_page(lambda page: page.reload(timeout=ANSWER_S * 1000))

    async def close(self) -> None:
        """Closes it as a person does: without a question."""
        await self.on_page(lambda page: page.close())

    async def run(self, script: str) -> Any:
        """The JSON value of a JavaScript expression; a promise is awaited."""
        return await self._run(script, ANSWER_S)

    async def until(self, condition: str, seconds: float = ANSWER_S) -> None:
        """Waits until a JavaScript expression is true. Raises PageError."""
        # Asked in the page: a question from here costs four processes a millisecond each.
        script = (
            f"new Promise((done, failed) => {{ const end = performance.now() + {seconds * 1000};"
            f"const look = () => {{ try {{ if ({condition}) done(true);"
            f"else if (performance.now() < end) setTimeout(look, {POLL_MS});"
            "} catch (error) { failed(error); } }; look(); })"
        )
        try:
            async with asyncio.timeout(seconds):
                while not await self._holds(script, seconds + 1):
                    await asyncio.sleep(POLL_MS / 1000)
        except TimeoutError:
            text = await self.run("document.body?.innerText")
            raise PageError(f"never true: {condition}\nthe page says:\n{text}\n{self.console}") from None

    async def viewport(self, width: int, height: int) -> None:
        """Sets the size in CSS pixels; below 600 it is laid out as on a phone."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    async def picture(self, file: Path) -> None:
        """Saves a PNG of the viewport; its folder exists."""
        found = await self.call("Page.captureScreenshot", format="png")
        await asyncio.to_thread(file.write_bytes, base64.b64decode(found["data"]))

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One DevTools command. Raises PageError where the browser refuses it."""
        return await self._call(method, params, ANSWER_S)

    async def on_page(self, work: Callable[[Page], Awaitable[T]]) -> T:
        """What Playwright's page answers, as in `await b.on_page(lambda page: page.keyboard.press("Tab"))`.
        `work` runs on the browser's loop: it must use nothing of the test's. Raises PageError."""

        async def working() -> T:
            assert self._page is not None
            return await work(self._page)

        return await _raising(working())

    async def _attach(self, page: Page) -> None:
        """Only on the browser's loop, as everything below that takes Playwright's objects."""
        self._page = page
        self._session = await page.context.new_cdp_session(page)
        for event, told in (
            ("Runtime.consoleAPICalled", self._said),
            ("Runtime.exceptionThrown", self._threw),
            ("Log.entryAdded", self._logged),
        ):
            self._session.on(event, told)
        for domain in ("Page", "Runtime", "Log"):
            await self._session.send(f"{domain}.enable")

    def _said(self, params: dict[str, Any]) -> None:
        if params["type"] in ("error", "warning", "assert"):
            self.console.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))

    def _threw(self, params: dict[str, Any]) -> None:
        details = params["exceptionDetails"]
        self.console.append(details.get("exception", {}).get("description") or details["text"])

    def _logged(self, params: dict[str, Any]) -> None:
        entry = params["entry"]
        if entry["level"] in ("error", "warning"):
            (self.failures if entry["source"] == "network" else self.console).append(entry["text"])

    async def _run(self, script: str, seconds: float) -> Any:
        found = await self._call(
            "Runtime.evaluate",
            {"expression": script, "returnByValue": True, "awaitPromise": True, "userGesture": True},
            seconds,
        )
        if "exceptionDetails" in found:
            raise PageError(f"{script}: {found['exceptionDetails']}")
        return found["result"].get("value")

    async def _holds(self, script: str, seconds: float) -> bool:
        try:
            return bool(await self._run(script, seconds))
        except PageError as error:
            if any(words in str(error) for words in _AWAY):
                return False
            raise

    async def _call(self, method: str, params: dict[str, Any], seconds: float) -> dict[str, Any]:
        async def calling() -> dict[str, Any]:
            assert self._session is not None
            async with asyncio.timeout(seconds):
                found: dict[str, Any] = await self._session.send(method, params)
                return found

        return await _raising(calling())


class Chromium(Tab):
    """A browser of its own with one page. Use as an async context manager.

    `options`: those of Playwright's `new_context`, as `has_touch=True`, `color_scheme="dark"`, `locale="ar"`.
    `alone`: in a process of its own that has none of Playwright's settings, for a page that is to freeze: it
    keeps all others in focus.
    """

    def __init__(self, *, alone: bool = False, **options: Any) -> None:
        super().__init__([], [])
        self._alone = alone
        self._options = options
        self._process: Browser | None = None
        self._context: BrowserContext | None = None
        self._known: dict[Page, Tab] = {}
        self._attaching: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await SHARED.run(self._enter())
        return self

    async def __aexit__(self, *_: object) -> None:
        await SHARED.run(self._leave())

    async def tab(self) -> Tab:
        """Another page of this browser."""
        return await SHARED.run(self._new_tab())

    async def offline(self, off: bool) -> None:
        """Takes the network from all its pages, or gives it back; open sockets stay open."""
        assert self._context is not None
        await SHARED.run(self._context.set_offline(off))

    async def _enter(self) -> None:
        if self._alone:
            self._process, self._context = await SHARED.alone()
        else:
            self._context = await (await SHARED.browser()).new_context(**self._options)
        page = await self._context.new_page()
        await self._attach(page)
        self._known[page] = self
        self._context.on("page", self._opened)

    async def _leave(self) -> None:
        for task in self._attaching:
            task.cancel()
        if self._context is not None:
            with suppress(Exception):  # a crash shows in the test, not here
                await self._context.close()
        if self._process is not None:
            await self._process.close()

    async def _new_tab(self) -> Tab:
        assert self._context is not None
        page = await self._context.new_page()
        if page not in self._known:
            self._know(page)
        tab = self._known[page]
        await asyncio.gather(*self._attaching, return_exceptions=True)
        return tab

    def _opened(self, page: Page) -> None:
        if page not in self._known:
            self._know(page)

    def _know(self, page: Page) -> None:
        tab = self._known[page] = Tab(self.console, self.failures)
        task = asyncio.create_task(self._attach_quietly(tab, page))
        self._attaching.add(task)
        task.add_done_callback(self._attaching.discard)

    @staticmethod
    async def _attach_quietly(tab: Tab, page: Page) -> None:
        with suppress(Exception):  # it closed meanwhile
            await tab._attach(page)


async def _raising(work: Coroutine[Any, Any, T]) -> T:
    """Awaits it on the browser's loop; what Playwright raises becomes a PageError."""
    from playwright.async_api import Error

    try:
        return await SHARED.run(work)
    except Error as error:
        raise PageError(str(error)) from None
