"""`dualcast serve`: settings from every source, then the composition root."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import rich_click as click
from msgspec.structs import replace
from rich.style import Style
from rich.text import Text

from dualcast.sections import Key
from dualcast.settings import Settings, load

from .console import CommandFailed, stderr
from .demo import DEMO, LIFE_S, USER, demo_key, is_loopback
from .sign import signed

PAGES = (
    ("Start page", "/", "what this is, links"),
    ("Console", "/console", "live events, tenants and their stages, connections, health"),
    ("Demo", "/demo", "one notification on two transports"),
    ("Test page", "/websocket-test", "each older contract: connect, send, look"),
    ("Documentation", "/docs", "every endpoint with its bodies and answers"),
)
"""Of `--dev`: name, path, what it shows."""


@click.command()
@click.option("--config", type=click.Path(), help="TOML file; DUALCAST_CONFIG.")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="[default: 8000]")
@click.option("--engine", type=click.Choice(["sqlite", "redis", "memory"]), help="Event bus.")
@click.option("--redis-url", help="Use this Redis (implies --engine redis).")
@click.option("--data-dir", help="Directory of the embedded engine.  [default: data]")
@click.option("--ephemeral", is_flag=True, help="Keep nothing: the same as --engine memory.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes on one port; needs Redis.")
@click.option("--dev", is_flag=True, help="Trying out: demo token and test page. Not for production.")
def serve(
    config: str | None,
    host: str | None,
    port: int | None,
    engine: str | None,
    redis_url: str | None,
    data_dir: str | None,
    ephemeral: bool,
    workers: int | None,
    dev: bool,
) -> None:
    """Start the server."""
    if ephemeral and (engine not in (None, "memory") or redis_url):
        raise click.UsageError("--ephemeral keeps nothing: leave --engine and --redis-url out")
    engine = "memory" if ephemeral else engine or ("redis" if redis_url else None)
    given: dict[str, object] = {
        "server.host": host,
        "server.port": port,
        "server.workers": workers,
        "server.dev": dev or None,
        "bus.engine": engine,
        "bus.data_dir": data_dir,
        "redis.url": redis_url,
    }
    overrides = {name: value for name, value in given.items() if value is not None}
    loaded = load(config, overrides=overrides)
    settings = loaded.settings
    for note in loaded.notes:
        stderr.print(note, markup=False)
    if settings.server.dev:
        settings = with_demo_key(settings)
        warn(settings)
    elif not settings.identity.keys and not settings.identity.jwks_url:
        raise CommandFailed(
            "no key to check tokens with: set DUALCAST_JWT_SECRET (32 bytes or more), identity.keys or "
            "identity.jwks_url. To try it out: dualcast serve --dev"
        )
    # The server's libraries are loaded only by the commands that need them.
    from dualcast.app import run
    from dualcast.transport.server import CannotListen

    try:
        run(settings)
    except CannotListen as error:
        where = f"{settings.server.host}:{settings.server.port}"
        raise CommandFailed(f"cannot listen on {where}: {error.strerror}") from None


def with_demo_key(settings: Settings) -> Settings:
    """`settings` with the demo key of the data directory behind the configured keys."""
    identity = settings.identity
    keys = (*identity.keys, Key(secret=demo_key(settings.bus.data_dir)))
    return replace(settings, identity=replace(identity, keys=keys))


def warn(settings: Settings) -> None:
    """The warning and the first steps, on standard error."""
    host = settings.server.host
    host = "127.0.0.1" if host in ("0.0.0.0", "") else f"[{host}]" if ":" in host else host  # noqa: S104
    base = f"http://{host}:{settings.server.port}"
    key = Key(secret=settings.identity.keys[-1].secret)
    token = signed(DEMO, key, settings.identity, tenant=settings.tenancy.legacy_tenant, life_s=LIFE_S)
    program = _program()
    warnings = ["DEVELOPMENT MODE: the demo token below opens this server. Never serve real users like this."]
    if not is_loopback(settings.server.host):
        warnings.append(
            f"Listening on {settings.server.host}: everybody who reaches this machine can use it."
        )
    for warning in warnings:
        stderr.print(f" {warning} ", style="bold white on red", markup=False)
    stderr.print()
    width = len(base) + max(len(path) for _, path, _ in PAGES)
    for name, path, about in PAGES:
        address = base + path
        # Where the terminal can, the address is a link that brings the token along.
        bare = path in ("/docs", "/console")  # the console takes no token from an address
        link = Style(link=address if bare else f"{address}#token={token}")
        space = " " * (width - len(address) + 2)
        stderr.print(Text.assemble("  ", (f"{name:<15}", "bold"), (address, link), space, (about, "dim")))
    for line in (
        "",
        f"With the demo token (user {USER}, may publish), which the start page hands on to its links:",
        f"  {base}/#token={token}",
        "",
        "In another terminal:",
        f"  {program} token --dev",
        f'  curl -N -H "Authorization: Bearer $({program} token --dev)" {base}/v1/stream',
        f"  {program} publish --user {USER} 'Hello'",
        "",
    ):
        stderr.print(line, markup=False)
    sys.stderr.flush()


def _program() -> str:
    """How this program was called, as short as it works in this directory."""
    if shutil.which("dualcast"):
        return "dualcast"
    path = Path(sys.argv[0])
    return os.path.relpath(path) if path.name == "dualcast" else "python -m dualcast"
