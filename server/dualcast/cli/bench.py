"""`dualcast bench`: a quick load check of a running server."""

from __future__ import annotations

import asyncio

import rich_click as click
from click.core import ParameterSource
from msgspec.structs import replace
from rich.table import Table

from dualcast.settings import load

from .console import CommandFailed, note, stdout
from .demo import DEMO, LIFE_S, existing_demo_key, is_loopback
from .load import Result, measure
from .remote import Remote, remote, server_options
from .sign import signed, signing_key

MAX_SECONDS = 20
"""Shorter than a WebSocket heartbeat: the listeners answer no ping."""
USER_LIMIT = 20


@click.command()
@click.option("--connections", type=click.IntRange(1, 20_000), default=100, show_default=True)
@click.option(
    "--rate", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Publications per second."
)
@click.option("--seconds", type=click.IntRange(1, MAX_SECONDS), default=5, show_default=True)
@click.option(
    "--size", type=click.IntRange(0, 60_000), default=100, show_default=True, help="Bytes of padding each."
)
@click.option("--ws", is_flag=True, help="WebSocket instead of SSE.")
@server_options
@click.pass_context
def bench(
    context: click.Context,
    connections: int,
    rate: int,
    seconds: int,
    size: int,
    ws: bool,
    url: str,
    token: str | None,
) -> None:
    """Connect, publish to all, and print deliveries, loss and latency.

    Each connection is a user of its own, so a key to sign with is needed (or a server started here with
    --dev); with --token all connections are one user, who may have 20. To compare servers, use `make bench`.
    """
    if context.get_parameter_source("token") is not ParameterSource.COMMANDLINE:
        token = None  # DUALCAST_TOKEN is one user's; a quick check should not end at that user's limit
    there, tokens = _tokens(url, token, connections)
    result = asyncio.run(
        measure(there.url, tokens, there.token, ws=ws, rate_per_s=rate, seconds=seconds, size=size)
    )
    _print(result, "WebSocket" if ws else "SSE")
    if result.lost:
        raise CommandFailed(f"{result.lost} of {result.expected} deliveries did not arrive in time")


def _tokens(url: str, token: str | None, connections: int) -> tuple[Remote, list[str]]:
    if token:
        if connections > USER_LIMIT:
            note(f"All {connections} connections are one user: the server's limit per user may close some.")
        return remote(url, token), [token] * connections
    loaded = load()
    settings = loaded.settings
    tenant = settings.tenancy.legacy_tenant
    demo = is_loopback(url) and not settings.identity.keys and existing_demo_key(settings.bus.data_dir)
    key = signing_key(loaded, tenant, settings.bus.data_dir if demo else None)

    def make(user: str) -> str:
        return signed(replace(DEMO, sub=user), key, settings.identity, tenant=tenant, life_s=LIFE_S)

    return remote(url, make("bench")), [make(f"bench-{number}") for number in range(connections)]


def _print(result: Result, transport: str) -> None:
    table = Table(box=None, pad_edge=False)
    columns = {
        "transport": transport,
        "connections": str(result.connections),
        "connects/s": f"{result.connections / max(result.connect_s, 1e-9):,.0f}",
        "published": f"{result.published:,}",
        "delivered": f"{result.delivered:,}",
        "lost": f"{result.lost:,}",
        "deliveries/s": f"{result.delivered / max(result.elapsed_s, 1e-9):,.0f}",
        "p50 ms": f"{result.quantile(0.5):.1f}",
        "p99 ms": f"{result.quantile(0.99):.1f}",
    }
    for name in columns:
        table.add_column(name, justify="right")
    table.add_row(*columns.values())
    stdout.print(table)
