"""Parity: `POST /v1/parity` for clients that compare what arrived over both transports, and
`GET /v1/tenants/{t}/parity` for operators and the tenant's own admins.

The guard goes by what the server compared only: a client may say anything.
"""

from __future__ import annotations

import time
from typing import Annotated

from litestar import get, post
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta, Struct

from dualcast.model.errors import BadRequest
from dualcast.model.times import utc_text
from dualcast_migration.evidence.port import MAX_WINDOW_S
from dualcast_migration.evidence.since import staged_since
from dualcast_migration.figures import percentile_ms
from dualcast_migration.parity import (
    Difference,
    Mismatch,
    Report,
    compare_reports,
    decode_mismatch,
    mismatch_of,
)

from .services import Caller, Injected
from .tenant_access import TENANT_OPT, own_or_any

_TAGS = ["migration"]


class ReportBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What arrived of the same stretch of the log over each transport. The stretch ends where both have been
    read to: what only one has had time to bring is in neither."""

    instance: Annotated[str, Meta(min_length=1, max_length=256)]
    sse: Report
    websocket: Report


class ReportView(Struct, frozen=True):
    """What came of it."""

    compared: int
    mismatches: int
    recorded: bool
    """False: the user is not in stage `shadow`, or has reported often enough for now."""


class LatencyView(Struct, frozen=True):
    """From publication to arrival, by the clients' clocks, in ms; `samples` 0: nobody told."""

    samples: int
    p50_ms: float
    p99_ms: float


class SidesView(Struct, frozen=True):
    """One who compares."""

    compared: int
    mismatches: int


class ClientsView(Struct, frozen=True):
    """The clients' comparisons."""

    compared: int
    mismatches: int
    sse: LatencyView
    websocket: LatencyView


class MismatchView(Struct, frozen=True):
    """One comparison that found something."""

    number: int
    at: str
    """RFC 3339, UTC."""
    source: str
    """`server` or `client`."""
    user: str
    instance: str
    compared: int
    mismatches: int
    differences: tuple[Difference, ...]
    """The first of them. Kinds: `missing-on-websocket`, `missing-on-sse`, `order-on-websocket`,
    `order-on-sse`, `content`."""


class ParityView(Struct, frozen=True):
    """How the two transports compare since the stage or the cohort was changed, three days at most."""

    tenant: str
    stage: str
    seconds: int
    """The sums reach back so far."""
    server: SidesView
    clients: ClientsView
    mismatches: list[MismatchView]
    """Newest first, of all stages."""
    next: int
    """Send it as `before` for the next page; 0: there is none."""


@post(
    "/v1/parity",
    status_code=200,
    summary="Report what arrived over both transports",
    tags=_TAGS,
    operation_id="ParityReport",
)
async def report_parity(services: Injected, caller: Caller, data: JSONBody[ReportBody]) -> ReportView:
    """For clients in stage `shadow`. Latencies are as many as ids, or none."""
    for side in (data.sse, data.websocket):
        if len(side.latency_ms) not in (0, len(side.ids)):
            raise BadRequest("latency_ms has one entry per id, or none", code="bad-report")
    found = compare_reports(data.sse, data.websocket)
    tenant = services.tenants.current(caller.tenant)
    recorded = tenant is not None and tenant.decide(caller.sub, time.time()).compare
    if recorded:
        sides = {"sse": data.sse, "ws": data.websocket}
        lags = {name: [ms for ms in side.latency_ms if ms is not None] for name, side in sides.items()}
        recorded = services.noting.reported(caller.tenant, caller.sub, found.compared, found.mismatches, lags)
    record = mismatch_of(found, "client", caller.sub, data.instance, int(time.time() * 1000))
    if recorded and record is not None:
        services.noting.mismatch(caller.tenant, record, caller.sub)
    return ReportView(found.compared, found.mismatches, recorded)


@get(
    "/v1/tenants/{tenant:str}/parity",
    opt=TENANT_OPT,
    summary="How the two transports compare",
    tags=_TAGS,
    operation_id="MigrationParity",
)
async def read_parity(
    services: Injected,
    caller: Caller,
    tenant: FromPath[str],
    before: Annotated[int, QueryParameter(ge=0, le=2**53, description="0: from the newest on")] = 0,
    limit: Annotated[int, QueryParameter(ge=1, le=200)] = 50,
) -> ParityView:
    """What the server compared of what it wrote, what clients report of what arrived, and each mismatch with
    the ids of its publications."""
    name = own_or_any(services, caller, tenant)
    view = await services.stages.read(name)
    since = await staged_since(services.stages, name)
    seconds = max(1, min(MAX_WINDOW_S, int(time.time() - since.counted_s)))
    window = await services.evidence.window(name, seconds)
    kept = await services.evidence.mismatches(name, before, limit)
    return ParityView(
        tenant=name,
        stage=view.record.stage.value,
        seconds=window.seconds,
        server=SidesView(window.compared, window.mismatched),
        clients=ClientsView(
            window.client_compared,
            window.client_mismatched,
            _latency(window.client_sse_lag),
            _latency(window.client_ws_lag),
        ),
        mismatches=[_mismatch(one.number, decode_mismatch(one.record)) for one in kept],
        next=kept[-1].number if len(kept) == limit else 0,
    )


def _latency(buckets: tuple[int, ...]) -> LatencyView:
    return LatencyView(
        sum(buckets), round(percentile_ms(buckets, 0.5), 1), round(percentile_ms(buckets, 0.99), 1)
    )


def _mismatch(number: int, found: Mismatch) -> MismatchView:
    return MismatchView(
        number=number,
        at=utc_text(found.at_ms),
        source=found.source,
        user=found.user,
        instance=found.instance,
        compared=found.compared,
        mismatches=found.mismatches,
        differences=found.differences,
    )


ROUTES = (report_parity, read_parity)
