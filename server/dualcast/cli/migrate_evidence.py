"""`dualcast migrate census | parity | audit`: what one looks at while a tenant is moved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import rich_click as click
from rich.markup import escape
from rich.table import Table

from . import migrate_views as views
from .calls import call, echo_json, json_option, operator_at, tenant_of, tenant_path
from .console import stdout
from .remote import server_options

Json = Mapping[str, Any]
_tenant = click.argument("tenant", required=False)


@click.command()
@_tenant
@click.option("--transport", type=click.Choice(["sse", "ws"]), help="Only of this one.")
@click.option(
    "--limit", type=click.IntRange(1, 2_000), default=20, show_default=True, help="Kinds of clients."
)
@json_option
@server_options
def census(
    tenant: str | None, transport: str | None, limit: int, as_json: bool, url: str, token: str | None
) -> None:
    """Show who connects how: transport, contract, browser, app version, page; and who is still on SSE."""
    there = operator_at(url, token)
    query = {"limit": limit} | ({"transport": transport} if transport else {})
    view = call(there, "GET", tenant_path(tenant_of(tenant, there), "/census"), query=query)
    if as_json:
        echo_json(view)
        return
    stdout.print(
        f"[bold]{escape(view['tenant'])}[/]: {view['live_sse']} live on SSE, {view['live_ws']} on WebSocket; "
        f"{view['live_left']} of the streams cannot have a WebSocket beside them"
    )
    table = _table("transport", "contract", "client", "app", "page", "live", "connects", "users", "last seen")
    for row in view["rows"]:
        table.add_row(
            row["transport"],
            row["dialect"],
            escape(row["agent"]),
            escape(row["app"]),
            escape(row["origin"]),
            str(row["live"]),
            str(row["connects"]),
            str(row["users"]),
            row["last_seen"][:19].replace("T", " "),
        )
    stdout.print(table)
    if view["kinds"] > len(view["rows"]):
        stdout.print(f"[dim]{view['kinds'] - len(view['rows'])} kinds more: --limit[/]")


@click.command()
@_tenant
@click.option("--limit", type=click.IntRange(1, 200), default=10, show_default=True, help="Mismatches.")
@json_option
@server_options
def parity(tenant: str | None, limit: int, as_json: bool, url: str, token: str | None) -> None:
    """Show how the two transports compare in stage shadow, and what did not match."""
    there = operator_at(url, token)
    path = tenant_path(tenant_of(tenant, there), "/parity")
    view = call(there, "GET", path, query={"limit": limit})
    if as_json:
        echo_json(view)
        return
    stdout.print(f"[bold]{escape(view['tenant'])}[/], stage {view['stage']}, the last {view['seconds']} s")
    table = _table("compared by", "publications", "mismatches", "p99 SSE", "p99 WebSocket")
    server, clients = view["server"], view["clients"]
    table.add_row("the server", str(server["compared"]), str(server["mismatches"]), "", "")
    lags = [clients[side] for side in ("sse", "websocket")]
    told = [f"{lag['p99_ms']:g} ms" if lag["samples"] else "" for lag in lags]
    table.add_row("clients", str(clients["compared"]), str(clients["mismatches"]), *told)
    stdout.print(table)
    if not view["mismatches"]:
        return
    kept = _table("#", "at", "found by", "user", "instance", "what", "publication")
    for one in view["mismatches"]:
        first = one["differences"][0] if one["differences"] else {"kind": "", "id": ""}
        more = one["mismatches"] - 1
        kept.add_row(
            str(one["number"]),
            one["at"][:19].replace("T", " "),
            one["source"],
            escape(one["user"]),
            escape(one["instance"]),
            first["kind"] + (f", {more} more" if more else ""),
            escape(first["id"]),
        )
    stdout.print(kept)


@click.command()
@_tenant
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="Changes.")
@click.option("--before", type=click.IntRange(0), default=0, help="Older than this number.")
@json_option
@server_options
def audit(tenant: str | None, limit: int, before: int, as_json: bool, url: str, token: str | None) -> None:
    """Show who changed the stage, settings, quotas or keys, when, from what to what, and why; the newest
    first."""
    there = operator_at(url, token)
    query = {"limit": limit} | ({"before": before} if before else {})
    view = call(there, "GET", tenant_path(tenant_of(tenant, there), "/audit"), query=query)
    if as_json:
        echo_json(view)
    else:
        views.changes(view["entries"])


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, header_style="dim")
    return table


COMMANDS = (census, parity, audit)
