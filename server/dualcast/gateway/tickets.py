"""`POST /v1/tickets`: permission to open one stream, so that no token has to stand in a URL."""

from __future__ import annotations

from typing import Literal

from litestar import post
from litestar.params import JSONBody
from msgspec import Struct

from .services import Caller, Injected


class TicketBody(Struct, frozen=True, forbid_unknown_fields=True):
    """What the ticket is for."""

    transport: Literal["sse", "websocket"] = "websocket"


class TicketView(Struct, frozen=True):
    """Use it as `?ticket=` on `/v1/stream` or `/v1/socket`."""

    ticket: str
    transport: str
    expires_in_s: float
    """To its first use. A WebSocket ticket opens one connection; an SSE ticket also the reconnects of its
    stream.
    """


@post("/v1/tickets", summary="Get a connect ticket", tags=["connections"], operation_id="IssueTicket")
async def issue_ticket(services: Injected, caller: Caller, data: JSONBody[TicketBody]) -> TicketView:
    """A short-lived ticket with the caller's own rights."""
    ticket = await services.tickets.issue(caller, data.transport)
    return TicketView(ticket, data.transport, services.settings.ticket_s)
