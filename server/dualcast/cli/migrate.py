"""`dualcast migrate`: where a tenant is on its way from SSE to WebSocket, and moving it, over REST."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import rich_click as click

from dualcast_migration.plan import LADDER, NOTICE_DAYS, plan
from dualcast_migration.policy import StageRecord
from dualcast_migration.stage import Stage

from . import migrate_views as views
from .calls import call, echo_json, figure, json_option, operator_at, share, tenant_of, tenant_path, when
from .console import CommandFailed, note, stdout
from .remote import Remote, server_options

STAGES = click.Choice([str(stage) for stage in Stage])
_tenant = click.argument("tenant", required=False)
_why = click.option("--why", required=True, help="The reason; it goes into the audit.")
_force = click.option("--force", is_flag=True, help="Although the guard holds, or the sunset has passed.")
_yes = click.option("--yes", is_flag=True, help="Do not ask.")


@click.group()
def migrate() -> None:
    """Move a tenant from SSE to WebSocket: sse → shadow → fallback → websocket.

    TENANT is the token's own when it is left out. For operators, and admins of the tenant.
    """


@migrate.command()
@_tenant
@click.option("--all", "everybody", is_flag=True, help="Every tenant (operators).")
@click.option("--history", type=click.IntRange(0, 100), default=5, show_default=True, help="Last changes.")
@json_option
@server_options
def status(
    tenant: str | None, everybody: bool, history: int, as_json: bool, url: str, token: str | None
) -> None:
    """Show stage, cohort, schedule and the last changes."""
    there = operator_at(url, token)
    if everybody:
        found = list(_tenants(there))
        if as_json:
            echo_json({"tenants": found})
        else:
            views.tenants(found)
        return
    name = tenant_of(tenant, there)
    view = call(there, "GET", tenant_path(name, "/migration"))
    entries = []
    if history:
        page = call(there, "GET", tenant_path(name, "/audit"), query={"limit": history})
        entries = page["entries"]
    if as_json:
        echo_json({**view, "history": entries})
        return
    views.status(view, time.time())
    if entries:
        stdout.print()
        views.changes(entries)


@migrate.command("plan")
@_tenant
@click.option("--to", "wanted", type=STAGES, default="websocket", show_default=True, help="Where to.")
@click.option("--percent", "ladder", multiple=True, type=float, help="A rung, ascending; the last is 100.")
@click.option("--notice-days", type=click.IntRange(1, 3_650), default=NOTICE_DAYS, show_default=True)
@json_option
@server_options
def plan_(
    tenant: str | None,
    wanted: str,
    ladder: Sequence[float],
    notice_days: int,
    as_json: bool,
    url: str,
    token: str | None,
) -> None:
    """Print the steps from here to a stage: what to look at before each, and its command."""
    there = operator_at(url, token)
    name = tenant_of(tenant, there)
    view = call(there, "GET", tenant_path(name, "/migration"))
    record = msgspec.convert(view["record"], StageRecord)
    try:
        steps = plan(
            name, record, Stage(wanted), time.time(), ladder=ladder or LADDER, notice_days=notice_days
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        echo_json({"tenant": name, "version": view["version"], "stage": str(record.stage), "steps": steps})
    else:
        views.steps(name, f"{record.stage} for {views.cohort(view['record'])}", Stage(wanted), steps)


@migrate.command("set")
@_tenant
@click.option("--stage", type=STAGES, help="On by one stage, or back by any.")
@click.option("--percent", type=share, metavar="NUMBER", help="Of the users; the others are a stage back.")
@click.option("--allow", multiple=True, help="User who is always in; repeatable, replaces the list.")
@click.option("--deny", multiple=True, help="User who is never in; repeatable, replaces the list.")
@click.option("--no-names", is_flag=True, help="Empty both lists.")
@click.option("--scope", type=click.Choice(["instance", "user"]), help="Whose streams a WebSocket silences.")
@click.option("--mirror", type=click.Choice(["off", "fallback", "always", "server"]), help="To old servers.")
@click.option(
    "--budget", multiple=True, metavar="NAME=VALUE", help="Of the guard; `off` for none; repeatable."
)
@click.option("--guard/--no-guard", default=None, help="Whether the guard may step back.")
@_why
@_force
@_yes
@json_option
@server_options
def set_(
    tenant: str | None,
    stage: str | None,
    percent: float | None,
    allow: Sequence[str],
    deny: Sequence[str],
    no_names: bool,
    scope: str | None,
    mirror: str | None,
    budget: Sequence[str],
    guard: bool | None,
    why: str,
    force: bool,
    yes: bool,
    as_json: bool,
    url: str,
    token: str | None,
) -> None:
    """Change stage, cohort or budgets. What is not named stays as it is.

    The difference is shown first, and on a terminal it is asked for. Every node acts on it within a second.
    """
    there = operator_at(url, token)
    name = tenant_of(tenant, there)
    view = call(there, "GET", tenant_path(name, "/migration"))
    record = msgspec.to_builtins(view["record"])
    wanted: dict[str, Any] = {**record, "cohort": dict(record["cohort"]), "budgets": dict(record["budgets"])}
    if stage:
        wanted["stage"] = stage
    if percent is not None:
        wanted["cohort"]["percent"] = percent
    for field, users in (("allow", allow), ("deny", deny)):
        if users or no_names:
            wanted["cohort"][field] = list(users)
    if scope:
        wanted["fallback_scope"] = scope
    if mirror:
        wanted["mirror"] = None if mirror == "server" else mirror
    for pair in budget:
        field, figure = _budget(pair, wanted["budgets"])
        wanted["budgets"][field] = figure
    if guard is not None:
        wanted["budgets"]["enabled"] = guard
    _put(there, name, view, wanted, why, force=force, yes=yes, as_json=as_json)


@migrate.command()
@_tenant
@click.option("--deprecated", metavar="TIME", help="Since when SSE is deprecated.")
@click.option("--sunset", metavar="TIME", help="From when SSE connects are answered 204.")
@click.option("--link", help="Page that describes the move; `off` for none.")
@click.option(
    "--brownout",
    "brownouts",
    multiple=True,
    metavar="TIME=PERCENT",
    help="From TIME on this share of SSE connects is sent away for a while; repeatable, replaces the list.",
)
@click.option("--no-brownouts", is_flag=True, help="Empty the list.")
@_why
@_force
@_yes
@json_option
@server_options
def schedule(
    tenant: str | None,
    deprecated: str | None,
    sunset: str | None,
    link: str | None,
    brownouts: Sequence[str],
    no_brownouts: bool,
    why: str,
    force: bool,
    yes: bool,
    as_json: bool,
    url: str,
    token: str | None,
) -> None:
    """Set the end of SSE: deprecation, brownouts, sunset. It counts in stage websocket.

    TIME is 2027-03-01, 2027-03-01T06:00Z, now, +30d, or off.
    """
    there = operator_at(url, token)
    name = tenant_of(tenant, there)
    view = call(there, "GET", tenant_path(name, "/migration"))
    wanted = dict(view["record"])
    now_s = time.time()
    if deprecated is not None:
        wanted["deprecated_at"] = when(deprecated, now_s)
    if sunset is not None:
        wanted["sunset_at"] = when(sunset, now_s)
    if link is not None:
        wanted["link"] = "" if link == "off" else link
    if brownouts or no_brownouts:
        wanted["brownouts"] = [_brownout(text, now_s) for text in brownouts]
    _put(there, name, view, wanted, why, force=force, yes=yes, as_json=as_json)


@migrate.command()
@_tenant
@_why
@_force
@_yes
@json_option
@server_options
def rollback(
    tenant: str | None, why: str, force: bool, yes: bool, as_json: bool, url: str, token: str | None
) -> None:
    """Undo the last change. Rolling back twice is where it began."""
    there = operator_at(url, token)
    name = tenant_of(tenant, there)
    view = call(there, "GET", tenant_path(name, "/migration"))
    last = view["last"]
    if last is None or last["from"] is None:
        raise CommandFailed("there is nothing to roll back: the stage was never changed")
    if not as_json:
        note(f"undoes #{last['number']} of {last['who']}: {last['why']}")
        views.difference(view["record"], {**last["from"], "held_until": view["record"]["held_until"]})
    _confirm(yes)
    body = {"why": why, "force": force}
    path = tenant_path(name, "/migration/rollback")
    _done(call(there, "POST", path, body=body, version=view["version"]), as_json)


@migrate.command()
@_tenant
@json_option
@server_options
def readiness(tenant: str | None, as_json: bool, url: str, token: str | None) -> None:
    """May the tenant go on to its next stage, and each reason why not. Exits with 1 when it may not."""
    there = operator_at(url, token)
    name = tenant_of(tenant, there)
    view = call(there, "GET", tenant_path(name, "/readiness"))
    if as_json:
        echo_json(view)
    else:
        views.readiness(view)
    if not view["ready"]:
        raise CommandFailed(f"{name} is not ready to go on")


def _put(
    there: Remote,
    name: str,
    view: dict[str, Any],
    wanted: dict[str, Any],
    why: str,
    *,
    force: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Shows the difference, asks, and replaces the record, if it is still the one that was shown."""
    before = view["record"]
    if wanted == before:
        raise CommandFailed("this changes nothing")
    if not as_json:
        views.difference(before, wanted)
    _confirm(yes)
    body = {key: value for key, value in wanted.items() if key != "held_until"}
    body |= {"why": why, "force": force}
    _done(call(there, "PUT", tenant_path(name, "/migration"), body=body, version=view["version"]), as_json)


def _confirm(yes: bool) -> None:
    if not yes and sys.stdin.isatty() and sys.stdout.isatty():
        click.confirm("Change it?", abort=True)


def _done(view: dict[str, Any], as_json: bool) -> None:
    if as_json:
        echo_json(view)
        return
    record = view["record"]
    text = f"{view['tenant']}: {record['stage']} for {views.cohort(record)} · version {view['version']}"
    stdout.print(text, markup=False)


def _tenants(there: Remote) -> Any:
    after = ""
    while True:
        page = call(there, "GET", "/v1/tenants", query={"after": after})
        yield from page["tenants"]
        if not (after := page["next"]):
            return


def _budget(pair: str, known: dict[str, Any]) -> tuple[str, float | None]:
    name, equals, text = pair.partition("=")
    if not equals or name not in known or name == "enabled":
        names = ", ".join(sorted(set(known) - {"enabled"}))
        raise click.BadParameter(f"{pair!r} is not NAME=VALUE with a name of {names}", param_hint="--budget")
    if text == "off":
        return name, None
    try:
        return name, figure(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no number, and not off", param_hint="--budget") from None


def _brownout(text: str, now_s: float) -> dict[str, Any]:
    at, equals, percent = text.rpartition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} is not TIME=PERCENT", param_hint="--brownout")
    return {"at": when(at, now_s), "percent": share(percent)}
