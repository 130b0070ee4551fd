"""`dualcast tenants`: making tenants, their quotas and signing keys, over REST. For operators."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click
from rich.markup import escape
from rich.table import Table

from dualcast.identity.keys import MIN_SECRET_BYTES
from dualcast_migration.stage import Stage

from .calls import call, echo_json, figure, json_option, operator_at, tenant_path
from .console import CommandFailed, stdout
from .migrate_views import tenants as tenant_table
from .remote import server_options

F = TypeVar("F", bound=Callable[..., Any])
_OFF = "off"


def _key_options(command: F) -> F:
    """Adds the options that describe a signing key."""
    for option in (
        click.option("--generate", is_flag=True, help="A new HS256 secret; it is printed this once."),
        click.option("--secret-file", type=click.Path(), help="HS256 secret; `-` reads standard input."),
        click.option("--public-key", type=click.Path(), help="PEM file; with --algorithm."),
        click.option("--jwks-url", help="Key set of an identity provider; with --algorithm."),
        click.option("--algorithm", type=click.Choice(["RS256", "ES256", "EdDSA"]), help="Of a public key."),
        click.option("--kid", default="", help="`kid` header of the tokens."),
        click.option("--issuer", default="", help="Demanded `iss`."),
        click.option("--audience", default="", help="Demanded `aud`."),
    ):
        command = option(command)
    return command


def _quota_options(command: F) -> F:
    """Adds the options that describe settings and quotas."""
    for option in (
        click.option("--public-channel", "public_channels", multiple=True, help="Pattern; repeatable."),
        click.option("--origin", "origins", multiple=True, help="Page that may connect; repeatable."),
        click.option("--rate", metavar="N", help="Publications per second; `off`: the server's default."),
        click.option("--burst", metavar="N", help="Publications at once; or `off`."),
        click.option("--connections", metavar="N", help="Connections on each node; or `off`."),
        click.option("--connections-per-user", metavar="N", help="Of one user on each node; or `off`."),
        click.option("--history", metavar="N", help="Publications kept of each channel; or `off`."),
        click.option("--history-age", metavar="SECONDS", help="How long they are given out; or `off`."),
    ):
        command = option(command)
    return command


_why = click.option("--why", default="", help="For the audit.")


@click.group()
def tenants() -> None:
    """Tenants: make, list, show; settings, quotas and signing keys at runtime. For operators."""


@tenants.command()
@click.argument("tenant")
@click.option("--stage", type=click.Choice([str(stage) for stage in Stage]), help="Where it begins.")
@_why
@_key_options
@_quota_options
@json_option
@server_options
def create(
    tenant: str, stage: str | None, why: str, as_json: bool, url: str, token: str | None, **options: Any
) -> None:
    """Make a tenant; its users can connect at once."""
    body: dict[str, Any] = {"id": tenant, "settings": _settings(options)}
    key, secret = _key(options, needed=False)
    if key:
        body["keys"] = [key]
    if stage:
        body["stage"] = stage
    if why:
        body["why"] = why
    answer = call(operator_at(url, token), "POST", "/v1/tenants", body=body)
    _shown(answer, as_json, secret)


@tenants.command("list")
@json_option
@server_options
def list_(as_json: bool, url: str, token: str | None) -> None:
    """List every tenant."""
    there = operator_at(url, token)
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        page = call(there, "GET", "/v1/tenants", query={"after": after})
        found += page["tenants"]
        if not (after := page["next"]):
            break
    if as_json:
        echo_json({"tenants": found})
    else:
        tenant_table(found)


@tenants.command()
@click.argument("tenant")
@json_option
@server_options
def show(tenant: str, as_json: bool, url: str, token: str | None) -> None:
    """Show a tenant's settings, quotas and keys; secrets are never shown."""
    _shown(call(operator_at(url, token), "GET", tenant_path(tenant)), as_json)


@tenants.command("set")
@click.argument("tenant")
@_quota_options
@_why
@json_option
@server_options
def set_(tenant: str, why: str, as_json: bool, url: str, token: str | None, **options: Any) -> None:
    """Change settings and quotas. What is not named stays; lists are replaced (`off`: empty)."""
    settings = _settings(options)
    if not settings:
        raise click.UsageError("name what shall be changed")
    body = {"settings": settings, **_said(why)}
    _shown(call(operator_at(url, token), "PATCH", tenant_path(tenant), body=body), as_json)


@tenants.group()
def keys() -> None:
    """The keys a tenant's tokens are signed with."""


@keys.command("list")
@click.argument("tenant")
@json_option
@server_options
def list_keys(tenant: str, as_json: bool, url: str, token: str | None) -> None:
    """List a tenant's keys."""
    answer = call(operator_at(url, token), "GET", tenant_path(tenant))
    if as_json:
        echo_json({"keys": answer["keys"], "version": answer["version"]})
    else:
        _key_table(answer["keys"])


@keys.command()
@click.argument("tenant")
@_key_options
@_why
@json_option
@server_options
def add(tenant: str, why: str, as_json: bool, url: str, token: str | None, **options: Any) -> None:
    """Add a key; tokens it signs are good at once."""
    key, secret = _key(options, needed=True)
    body = {**key, **_said(why)}
    _shown(call(operator_at(url, token), "POST", tenant_path(tenant, "/keys"), body=body), as_json, secret)


@keys.command()
@click.argument("tenant")
@click.option("--kid", help="The key of this `kid`.")
@click.option("--position", type=click.IntRange(min=0), help="The key at this place of `keys list`.")
@_why
@json_option
@server_options
def remove(
    tenant: str, kid: str | None, position: int | None, why: str, as_json: bool, url: str, token: str | None
) -> None:
    """Remove a key: its tokens are refused, and who came with one is sent away."""
    if bool(kid) == (position is not None):
        raise click.UsageError("give --kid or --position")
    there = operator_at(url, token)
    version = None
    query: dict[str, str | int] = {"kid": kid} if kid else {}
    if position is not None:
        version = call(there, "GET", tenant_path(tenant))["version"]
        query = {"position": position}
    query |= _said(why)
    _shown(call(there, "DELETE", tenant_path(tenant, "/keys"), query=query, version=version), as_json)


def _key(options: dict[str, Any], *, needed: bool) -> tuple[dict[str, Any], str]:
    """The key the options describe ({}: none), and the secret that was made for it."""
    kinds = [options["generate"], options["secret_file"], options["public_key"], options["jwks_url"]]
    if sum(map(bool, kinds)) != 1:
        if not any(kinds) and not needed:
            return {}, ""
        raise click.UsageError("give one of --generate, --secret-file, --public-key and --jwks-url")
    key = {name: options[name] for name in ("kid", "issuer", "audience") if options[name]}
    if options["generate"] or options["secret_file"]:
        secret = secrets.token_urlsafe(MIN_SECRET_BYTES) if options["generate"] else ""
        text = secret or _read(options["secret_file"]).strip()
        return {**key, "algorithm": "HS256", "secret": text}, secret
    if not options["algorithm"]:
        raise click.UsageError("--public-key and --jwks-url need --algorithm")
    key["algorithm"] = options["algorithm"]
    if options["public_key"]:
        return {**key, "public_key": _read(options["public_key"])}, ""
    return {**key, "jwks_url": options["jwks_url"]}, ""


def _said(why: str) -> dict[str, str]:
    return {"why": why} if why else {}


def _read(path: str) -> str:
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text()
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CommandFailed(f"{path}: not text") from None


def _settings(options: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("public_channels", "origins"):
        if options[name]:
            found[name] = [] if options[name] == (_OFF,) else list(options[name])
    for option, name in (
        ("rate", "publish_rate_per_s"),
        ("burst", "publish_burst"),
        ("connections", "max_connections"),
        ("connections_per_user", "max_connections_per_user"),
        ("history", "history_entries"),
        ("history_age", "history_s"),
    ):
        text = options[option]
        if text is not None:
            found[name] = None if text == _OFF else _number(text, option)
    return found


def _number(text: str, option: str) -> float:
    try:
        return figure(text)
    except ValueError:
        hint = "--" + option.replace("_", "-")
        raise click.BadParameter(f"{text!r} is no number, and not off", param_hint=hint) from None


def _shown(tenant: dict[str, Any], as_json: bool, secret: str = "") -> None:
    if as_json:
        echo_json({**tenant, "secret": secret} if secret else tenant)
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_row("tenant", f"[bold]{escape(tenant['id'])}[/]   [dim]version {tenant['version']}[/]")
    percent = tenant["percent"]
    table.add_row("stage", tenant["stage"] + ("" if percent == 100 else f" for {percent:g} % of the users"))
    for name, value in tenant["settings"].items():
        shown = (", ".join(value) or "none") if isinstance(value, list) else value
        shown = f"{shown:g}" if isinstance(shown, float) else shown
        table.add_row(name.replace("_", " "), escape(str(shown)) if shown else "[dim]default[/]")
    stdout.print(table)
    _key_table(tenant["keys"])
    if secret:
        stdout.print("secret, shown this once: ", end="")
        click.echo(secret)


def _key_table(keys: Sequence[dict[str, Any]]) -> None:
    if not keys:
        stdout.print("[dim]no keys[/]")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("key", "kid", "algorithm", "source", "issuer", "audience"):
        table.add_column(heading, header_style="dim")
    for place, key in enumerate(keys):
        source = key["jwks_url"] or (
            f"public key {key['fingerprint']}" if key["fingerprint"] else key["source"]
        )
        texts = (key["kid"], key["algorithm"], source, key["issuer"], key["audience"])
        table.add_row(str(place), *map(escape, texts))
    stdout.print(table)
