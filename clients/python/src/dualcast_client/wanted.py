"""What a subscription asks for, and what it needs of the client it was made by."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal, TypedDict, TypeVar, cast
from urllib.parse import quote

import httpx
import msgspec
from msgspec import Struct

from .calls import encode
from .common import USER_AGENT
from .connections import Broken, Connection, SocketConnection, StreamConnection
from .cursors import CursorStore
from .errors import DualcastError
from .events import Status
from .flow import AGAIN, Call, Flow, Policy, Token, log, perform
from .ids import new_id
from .line import UNAUTHORIZED, Ended, Line, Mode, Reconnects, Refused, Unreached

T = TypeVar("T")
OnGap = Literal["raise", "event"]
Ack = Literal["auto", "manual"]
Auth = Literal["header", "ticket"]


class Options(TypedDict, total=False):
    """The keyword arguments of `wanted`."""

    cursor: str
    instance: str
    transport: Mode
    device: str
    device_id: str
    app: str
    store: CursorStore | None
    on_gap: OnGap
    backfill: bool
    ack: Ack
    max_unacked: int
    buffer: int
    auth: Auth
    on_status: Callable[[Status], None] | None
    open_timeout_s: float
    patience_s: float | None
    reconnects: Reconnects | None


class Wanted(Struct, frozen=True, kw_only=True):
    """A subscription's options."""

    channels: tuple[str, ...]
    cursor: str
    instance: str
    transport: Mode
    device: str
    device_id: str
    app: str
    store: CursorStore | None
    on_gap: OnGap
    backfill: bool
    ack: Ack
    max_unacked: int
    buffer: int
    auth: Auth
    on_status: Callable[[Status], None] | None
    open_timeout_s: float
    patience_s: float | None
    reconnects: Reconnects

    def query(self, line: Line) -> str:
        """Of the connect request; it never holds the token."""
        pairs = [("channel", name) for name in self.channels]
        pairs += [("cursor", line.cursor), ("instance", self.instance), ("device", self.device)]
        pairs += [("device_id", self.device_id), ("app", self.app)]
        if line.transport == "sse" and line.telling:
            pairs.append(("fallback_reason", line.fallen))
        return "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs if value)


def wanted(
    channels: Iterable[str] = (),
    *,
    cursor: str = "",
    instance: str = "",
    transport: Mode = "auto",
    device: str = "",
    device_id: str = "",
    app: str = "",
    store: CursorStore | None = None,
    on_gap: OnGap = "raise",
    backfill: bool = False,
    ack: Ack = "auto",
    max_unacked: int = 1000,
    buffer: int = 100,
    auth: Auth = "header",
    on_status: Callable[[Status], None] | None = None,
    open_timeout_s: float = 10.0,
    patience_s: float | None = None,
    reconnects: Reconnects | None = None,
) -> Wanted:
    """Checked options: of `subscribe`. Raises ValueError, TypeError.

    `channels`: beside the own `user:` channel and `all`, which are always there. `cursor`: begin behind it;
    else behind what `store` kept, else with what comes from now on. `instance`: names this program over all
    its connections. `transport`: `auto` is WebSocket, and SSE where that does not work. `device`: `mobile`,
    `desktop`, `tablet`, `web`; `device_id`: one in the user's registry; `app`: the program's version.
    `on_gap`: what cannot be delivered is raised as GapError, or given as an event (and logged); `backfill`:
    history is read first. `ack`: `auto` takes a publication for dealt with when the next one is asked for,
    `manual` when `ack` says so; after `max_unacked` of those that are not, the next one waits. `buffer`:
    events that are read before the program asks for them; then reading stops. `auth`: `ticket` where headers
    do not get through to a WebSocket. `on_status`: is told of every change of the connection, where the
    stream runs (for threads: in a thread of its own), and must not block.
    `open_timeout_s`: of one attempt to connect. `patience_s`: so long without a connection ends the
    subscription; None: never. `reconnects`: the waits between attempts.
    """
    if isinstance(channels, str):
        raise TypeError("channels is a list of names")
    names = tuple(dict.fromkeys(channels))
    if not all(names):
        raise ValueError("a channel is kind:id")
    if transport not in ("auto", "websocket", "sse"):
        raise ValueError("transport is auto, websocket or sse")
    if on_gap not in ("raise", "event"):
        raise ValueError("on_gap is raise or event")
    if ack not in ("auto", "manual"):
        raise ValueError("ack is auto or manual")
    if auth not in ("header", "ticket"):
        raise ValueError("auth is header or ticket")
    if buffer < 1 or max_unacked < 1:
        raise ValueError("buffer and max_unacked are 1 or more")
    if open_timeout_s <= 0 or (patience_s is not None and patience_s <= 0):
        raise ValueError("times are above 0")
    return Wanted(
        channels=names,
        cursor=cursor,
        instance=instance or new_id(),
        transport=transport,
        device=device,
        device_id=device_id,
        app=app,
        store=store,
        on_gap=on_gap,
        backfill=backfill,
        ack=ack,
        max_unacked=max_unacked,
        buffer=buffer,
        auth=auth,
        on_status=on_status,
        open_timeout_s=open_timeout_s,
        patience_s=patience_s,
        reconnects=reconnects or Reconnects(),
    )


class Backend:
    """What a subscription takes from its client. `run`: awaits a flow of the client's."""

    def __init__(
        self,
        base_url: str,
        policy: Policy,
        run: Callable[[Flow[Any]], Awaitable[Any]],
        use_token: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.base_url = base_url
        self.renewable = policy.renewable
        self.use_token = use_token
        """Gives the client another token."""
        self._policy = policy
        self._run = run
        self._tls: ssl.SSLContext | None = None

    async def token(self, refused: str) -> str:
        """A token; not `refused`, where there are others."""
        found: str = await self._run(_token(refused))
        return found

    async def take_token(self, refused: str, timeout_s: float) -> str:
        """`token`, where whoever gives tokens may be away for a while. Raises Broken."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self.token(refused)
        except (OSError, httpx.HTTPError) as error:  # TimeoutError is an OSError
            log.warning("no token: %s", type(error).__name__)
        except DualcastError as error:
            if error.code not in ("unreachable", "timeout"):
                raise
            log.warning("no token: %s", error.code)
        raise Broken(Unreached("no-token"))

    async def call(self, call: Call[T]) -> T:
        """One call of the REST interface. Raises DualcastError."""
        found: T = await self._run(perform(self._policy, call))
        return found

    async def _ticket(self, timeout_s: float) -> str:
        """Opens one WebSocket, within 30 s. Raises Broken."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self.call(_TICKET)
        except TimeoutError:
            raise Broken(Unreached("timeout")) from None
        except DualcastError as error:
            if error.status == 401:
                raise Broken(Ended(UNAUTHORIZED, error.code)) from None
            if error.status in AGAIN:
                raise Broken(Ended(4101, error.code)) from None
            if error.status:
                raise Broken(Refused(error.status, error.retry_after_s, error.code)) from None
            raise Broken(Unreached(error.code)) from None

    def streaming(self, timeout_s: float) -> httpx.AsyncClient:
        """For SSE: connections of its own, so that streams do not use up those of other calls."""
        return httpx.AsyncClient(
            timeout=httpx.Timeout(timeout_s, read=None),
            limits=httpx.Limits(max_connections=4, max_keepalive_connections=0),
            headers={"User-Agent": USER_AGENT},
            follow_redirects=False,
        )

    async def connect(
        self, wanted: Wanted, line: Line, token: str, http: httpx.AsyncClient | None
    ) -> Connection:
        """Opens what `line` says; the welcome comes by the connection. Raises Broken."""
        headers = {"Authorization": "Bearer " + token}
        query = wanted.query(line)
        if line.transport == "websocket" and wanted.auth == "ticket":
            headers = {}
            query += "&ticket=" + quote(await self._ticket(wanted.open_timeout_s), safe="")
        if line.transport == "sse":
            assert http is not None
            headers |= {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
            url = f"{self.base_url}/v1/stream?{query}"
            return await StreamConnection.open(http, url, headers, wanted.open_timeout_s)
        secure = self.base_url.startswith("https:")
        if secure and self._tls is None:
            self._tls = httpx.create_ssl_context()
        url = f"{'wss' if secure else 'ws'}{self.base_url[self.base_url.index(':') :]}/v1/socket?{query}"
        return await SocketConnection.open(url, headers, wanted.open_timeout_s, self._tls)


class _Ticket(Struct):
    ticket: str


_TICKET = Call(
    "POST",
    "/v1/tickets",
    lambda body: msgspec.json.decode(body, type=_Ticket).ticket,
    encode({"transport": "websocket"}),
    repeatable=False,
)


def _token(refused: str) -> Flow[str]:
    return cast(str, (yield Token(refused)))
