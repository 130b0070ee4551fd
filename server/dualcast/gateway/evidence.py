"""`/v1/tenants/{t}/census` and `/v1/tenants/{t}/readiness`: who connects how, and whether a tenant may go on.

For operators, and the tenant's own admins.
"""

from __future__ import annotations

import time
from typing import Annotated, Literal

from litestar import get
from litestar.params import FromPath, QueryParameter
from msgspec import Struct

from dualcast.model.times import utc_text
from dualcast_migration.census import CensusRow
from dualcast_migration.evidence.port import MAX_WINDOW_S
from dualcast_migration.evidence.since import staged_since
from dualcast_migration.figures import Window
from dualcast_migration.guard import window_s
from dualcast_migration.readiness import Evidence, Reason, readiness

from .services import Caller, Injected
from .tenant_access import own_or_any

_TAGS = ["migration"]


class CensusRowView(Struct, frozen=True):
    """A kind of client, over all nodes."""

    transport: str
    """`sse` or `ws`."""
    dialect: str
    """`native`, one of the older contracts, or `other`: all kinds beyond the first 1,000, and beyond the
    first 20 that came with one user."""
    agent: str
    """Family and major version of the user agent."""
    app: str
    """The version the client gave (`app`); "": none."""
    origin: str
    """Of the page; "": none was told."""
    instance: bool
    """It names its instance, so it can have a WebSocket beside its stream. False for streams: a client that
    stays on SSE."""
    connects: int
    live: int
    users: int
    """Approximate."""
    first_seen: str
    """RFC 3339, UTC."""
    last_seen: str


class CensusView(Struct, frozen=True):
    """Who connects how: of the last 30 days, those with most live connections first."""

    tenant: str
    at: str
    """RFC 3339, UTC."""
    live_sse: int
    live_ws: int
    live_left: int
    """Of `live_sse`: of clients that cannot have a WebSocket beside it."""
    kinds: int
    """How many there are; `rows` may hold fewer."""
    rows: list[CensusRowView]


class FiguresView(Struct, frozen=True):
    """Sums over all nodes."""

    seconds: int
    """The window reaches back so far."""
    websocket_opens: int
    """Attempts."""
    websocket_open_failures: int
    refused: int
    """Of the failures: by the server."""
    fell_back: int
    """Of the failures: told by clients that opened SSE (`fallback_reason`)."""
    ended_at_once: int
    """Of the failures: ended abnormally within 5 s."""
    websocket_open_failure_percent: float
    websocket_closes: int
    abnormal_closes: int
    abnormal_close_percent: float
    reconnects: int
    users: int
    """Approximate; 0 where the window is longer than an hour."""
    reconnects_per_user: float
    compared: int
    mismatched: int
    lag_p99_ms: float
    sse_opens: int


class ReadinessView(Struct, frozen=True):
    """May the tenant go on to its next stage?"""

    tenant: str
    version: int
    """What a change has to expect."""
    stage: str
    next: str
    """"": it is in the last stage."""
    ready: bool
    """There is no reason against it."""
    reasons: tuple[Reason, ...]
    warnings: tuple[Reason, ...]
    """They do not stand in the way."""
    since: str
    """Since when it is in this stage with this cohort (RFC 3339, UTC); "": always."""
    window: FiguresView
    """What the guard goes by now."""
    totals: FiguresView
    """Since the stage or the cohort was changed, three days at most."""


@get(
    "/v1/tenants/{tenant:str}/census",
    summary="Who connects how",
    tags=_TAGS,
    operation_id="MigrationCensus",
)
async def read_census(
    services: Injected,
    caller: Caller,
    tenant: FromPath[str],
    transport: Annotated[Literal["", "sse", "ws"], QueryParameter(description='"": both')] = "",
    limit: Annotated[int, QueryParameter(ge=1, le=2000)] = 200,
) -> CensusView:
    """Kinds of clients of a tenant by transport, contract, user agent family, app version and page origin. Of
    nobody more than that is kept."""
    name = own_or_any(services, caller, tenant)
    await services.stages.read(name)
    census = await services.evidence.census(name)
    rows = [row for row in census.rows if transport in ("", row.row.transport)]
    return CensusView(
        tenant=name,
        at=utc_text(census.now_ms),
        live_sse=census.live("sse"),
        live_ws=census.live("ws"),
        live_left=sum(row.live for row in census.behind),
        kinds=len(rows),
        rows=[_row(row) for row in rows[:limit]],
    )


@get(
    "/v1/tenants/{tenant:str}/readiness",
    summary="May a tenant go on, and why not",
    tags=_TAGS,
    operation_id="MigrationReadiness",
)
async def read_readiness(services: Injected, caller: Caller, tenant: FromPath[str]) -> ReadinessView:
    """Every reason against going on to the next stage, with its code and figure; and what one should know."""
    name = own_or_any(services, caller, tenant)
    view = await services.stages.read(name)
    since = await staged_since(services.stages, name)
    now_s = time.time()
    reach = window_s(view.record, since.counted_s, now_s)
    whole = max(0, min(MAX_WINDOW_S, int(now_s - since.counted_s)))
    store = services.evidence
    window = await store.window(name, reach) if reach else Window(seconds=0)
    totals = await store.window(name, whole) if whole else Window(seconds=0)
    evidence = Evidence(window=window, totals=totals, census=await store.census(name), changed_s=since.at_s)
    found = readiness(view.record, evidence, now_s)
    return ReadinessView(
        tenant=name,
        version=view.version,
        stage=found.stage,
        next=found.next,
        ready=found.ready,
        reasons=found.reasons,
        warnings=found.warnings,
        since=utc_text(int(since.at_s * 1000)) if since.at_s else "",
        window=_figures(window),
        totals=_figures(totals),
    )


def _row(found: CensusRow) -> CensusRowView:
    row = found.row
    return CensusRowView(
        transport=row.transport,
        dialect=row.dialect,
        agent=row.agent,
        app=row.app,
        origin=row.origin,
        instance=row.instance,
        connects=found.connects,
        live=found.live,
        users=found.users,
        first_seen=utc_text(found.first_ms),
        last_seen=utc_text(found.last_ms),
    )


def _figures(w: Window) -> FiguresView:
    return FiguresView(
        seconds=w.seconds,
        websocket_opens=w.attempts,
        websocket_open_failures=w.failed,
        refused=w.ws_refused,
        fell_back=w.ws_fell_back,
        ended_at_once=w.ws_short,
        websocket_open_failure_percent=round(w.open_failure_percent, 2),
        websocket_closes=w.ws_closed,
        abnormal_closes=w.ws_abnormal,
        abnormal_close_percent=round(w.abnormal_close_percent, 2),
        reconnects=w.ws_reconnects,
        users=w.users,
        reconnects_per_user=round(w.reconnects_per_user, 2),
        compared=w.compared,
        mismatched=w.mismatched,
        lag_p99_ms=round(w.lag_p99_ms, 1),
        sse_opens=w.sse_opened,
    )


ROUTES = (read_census, read_readiness)
