"""`dualcast doctor`: would this server run well here, and does what it depends on keep its promises?"""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Literal

import msgspec
import rich_click as click
from msgspec import Struct
from rich.table import Table

from dualcast.bus.sqlite_file import SCHEMA_VERSION as BUS_SCHEMA
from dualcast.model.errors import DualcastError
from dualcast.settings import Loaded, Settings, load
from dualcast.state.sqlite import FORMAT as STATE_FORMAT

from .console import CommandFailed, stdout
from .demo import is_loopback
from .redis_checks import redis_checks

State = Literal["ok", "warning", "failed"]
FILES = 16_384
"""Fewer open files than this are a warning."""
MIN_FREE_BYTES = 1 << 30
PROBE_BYTES = 1 << 20
"""What is written to see whether there is room at all; taken away at once."""


class Check(Struct, frozen=True):
    """One finding. `advice`: what to do, empty when there is nothing to do."""

    name: str
    state: State
    detail: str
    advice: str = ""


def local_checks(loaded: Loaded) -> Iterator[Check]:
    """Everything that needs no other server."""
    settings = loaded.settings
    sources = ", ".join(sorted(set(loaded.sources.values()))) or "defaults only"
    yield Check("settings", "ok", f"engine {settings.engine}; from {sources}")
    yield _keys(settings)
    yield _origins(settings)
    if os.geteuid() == 0:
        yield Check("user", "warning", "root", "may read and write everything: ask as the user of the server")
    yield _files()
    yield _port(settings)
    yield _clock()
    if settings.engine == "sqlite":
        yield from _embedded(Path(settings.bus.data_dir))
    if settings.engine == "memory":
        yield Check("history", "warning", "engine memory keeps nothing over a restart", "use sqlite or redis")


def _keys(settings: Settings) -> Check:
    identity = settings.identity
    if settings.server.dev:
        return Check("keys", "warning", "server.dev accepts demo tokens", "leave --dev out in production")
    if not identity.keys and not identity.jwks_url:
        return Check(
            "keys", "failed", "no key to check tokens with", "set DUALCAST_JWT_SECRET or identity.keys"
        )
    from dualcast.mapping import verification_keys  # the server's libraries are loaded only where needed

    try:
        verification_keys(settings)
    except DualcastError as error:
        return Check("keys", "failed", error.reason, "see identity.keys")
    for key in identity.keys:
        if key.private_key_file and not os.access(key.private_key_file, os.R_OK):
            return Check("keys", "failed", f"{key.private_key_file} cannot be read", "see identity.keys")
    if identity.allow_short_secrets:
        return Check("keys", "warning", "allow_short_secrets is on", "replace keys shorter than 32 bytes")
    kinds = ", ".join(key.algorithm for key in identity.keys) + (" + JWKS" if identity.jwks_url else "")
    return Check("keys", "ok", kinds.removeprefix(" + "))


def _origins(settings: Settings) -> Check:
    if "*" in settings.identity.origins:
        return Check("origins", "failed", "* lets every site in", "list the origins of your pages")
    text = ", ".join(settings.identity.origins) or "only the server's own"
    return Check("origins", "ok", text)


def _files() -> Check:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # the server raises its own limit that far
    if hard == resource.RLIM_INFINITY or hard >= FILES:
        return Check("file limit", "ok", "none" if hard == resource.RLIM_INFINITY else f"{hard} open files")
    return Check("file limit", "warning", f"{hard} open files", f"each client takes one: LimitNOFILE={FILES}")


def _port(settings: Settings) -> Check:
    host, port = settings.server.host, settings.server.port
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = error.strerror or "cannot be resolved"
        return Check(
            "port", "warning", f"{host}:{port}: {reason}", "fine if it is this server that runs there"
        )
    if not is_loopback(host):
        return Check("port", "warning", f"{host}:{port} is free; no TLS", "let only a TLS proxy reach it")
    return Check("port", "ok", f"{host}:{port} is free")


def _clock() -> Check:
    if time.time() < 1_700_000_000:
        return Check("clock", "failed", "the clock is years behind", "tokens will not verify: run NTP")
    return Check("clock", "ok", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))


def _embedded(folder: Path) -> Iterator[Check]:
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder, prefix=".doctor-") as probe:
            probe.write(bytes(PROBE_BYTES))
            probe.flush()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        yield Check("data directory", "failed", f"{folder}: {error.strerror}", "see bus.data_dir")
        return
    finally:
        # What is made here would be its maker's, and the server may be somebody else.
        with suppress(OSError):
            for place in missing:
                place.rmdir()
    if _locked(folder / "bus.db.lock"):
        yield Check(
            "embedded engine", "warning", "a server uses this directory now", "one server per directory"
        )
    for name, newest in (("bus.db", BUS_SCHEMA), ("state.db", STATE_FORMAT)):
        if wrong := _file_trouble(folder / name, newest):
            yield Check("data files", "failed", f"{folder / name}: {wrong}", "the server would not start")
    state: State = "ok" if free >= MIN_FREE_BYTES else "warning"
    advice = "" if state == "ok" else "the log needs room"
    yield Check("data directory", state, f"{folder.resolve()}, {free / 1e9:.1f} GB free", advice)


def _file_trouble(file: Path, newest: int) -> str:
    """What is wrong with a database file, "" for one that is fine or not there yet. Only its header is read
    (https://www.sqlite.org/fileformat.html, 1.3), so a running server notices nothing.
    """
    try:
        with file.open("rb+") as handle:
            header = handle.read(100)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return error.strerror or "cannot be opened"
    if not header:
        return ""
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
        return "this is no SQLite database: put back a backup"
    version = int.from_bytes(header[60:64], "big")
    return "written by a newer version of dualcast" if version > newest else ""


def _locked(file: Path) -> bool:
    """Whether a running server holds the bus file's lock; a free lock is let go at once."""
    if not file.is_file():
        return False
    with file.open("rb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


async def start_check(settings: Settings) -> Check:
    """Whether the server could be put together: tenants, contracts, push provider."""
    from dualcast.app import rehearse

    try:
        await rehearse(settings)
    except DualcastError as error:
        return Check("start", "failed", error.reason, "the server would not start")
    return Check("start", "ok", "tenants, contracts and push provider can be used")


async def all_checks(loaded: Loaded) -> list[Check]:
    """Local checks, then those of the engine."""
    found = list(local_checks(loaded))
    if all(check.state != "failed" for check in found if check.name == "keys"):
        found.append(await start_check(loaded.settings))
    if loaded.settings.engine == "redis":
        from dualcast.mapping import redis_settings  # the whole server: not for every command

        for name, ok, detail in await redis_checks(redis_settings(loaded.settings)):
            found.append(Check(f"redis {name}", "ok" if ok else "failed", detail))
    return found


@click.command()
@click.option("--config", type=click.Path(), help="TOML file; DUALCAST_CONFIG.")
@click.option("--redis-url", help="Check this Redis.")
@click.option("--data-dir", help="Directory of the embedded engine.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(config: str | None, redis_url: str | None, data_dir: str | None, as_json: bool) -> None:
    """Check settings, machine and engine. Exits with 1 when something has to be mended."""
    given = {"redis.url": redis_url, "bus.data_dir": data_dir}
    loaded = load(config, overrides={name: value for name, value in given.items() if value})
    checks = asyncio.run(all_checks(loaded))
    failed = sum(check.state == "failed" for check in checks)
    if as_json:
        click.echo(msgspec.json.encode({"ok": not failed, "checks": checks}))
    else:
        _print(checks)
    if failed:
        raise CommandFailed(f"{failed} of {len(checks)} checks failed")


def _print(checks: list[Check]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    marks = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "failed": "[bold red]failed[/]"}
    for check in checks:
        advice = f"\n[dim]→ {check.advice}[/]" if check.advice else ""
        table.add_row(marks[check.state], check.name, check.detail.replace("[", "\\[") + advice)
    stdout.print(table)
