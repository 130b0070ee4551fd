"""What `dualcast migrate` prints: where a tenant is, what a change would change, who changed what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from rich.markup import escape
from rich.table import Table

from dualcast_migration.plan import Step
from dualcast_migration.stage import Stage

from .console import stdout

Json = Mapping[str, Any]
_MARKS = {True: "[green]yes[/]", False: "[yellow]not yet[/]"}


def moment(at_s: float) -> str:
    """Unix seconds as a time people read, "" for 0."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M UTC") if at_s else ""


def away(at_s: float, now_s: float) -> str:
    """How far a time is away: `in 3 days`, `2 hours ago`."""
    seconds = abs(at_s - now_s)
    for size, word in ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size or size == 1:
            count = round(seconds / size)
            text = f"{count} {word}" + ("" if count == 1 else "s")
            return f"in {text}" if at_s > now_s else f"{text} ago"
    return ""


def cohort(record: Json) -> str:
    """Who is in the stage."""
    found = record["cohort"]
    text = "everybody" if found["percent"] == 100 else f"{found['percent']:g} % of the users"
    for name, word in (("allow", "always in"), ("deny", "never in")):
        if found[name]:
            text += f", {len(found[name])} {word}"
    return text


def status(view: Json, now_s: float) -> None:
    """A tenant: its place on the way, cohort, schedule, hold, last change."""
    record = view["record"]
    way = " → ".join(
        f"[bold green]● {stage}[/]" if str(stage) == record["stage"] else f"[dim]{stage}[/]"
        for stage in Stage
    )
    table = _plain(("", "dim"), ("", None))
    table.add_row("tenant", f"[bold]{escape(view['tenant'])}[/]   [dim]version {view['version']}[/]")
    table.add_row("stage", way)
    table.add_row("cohort", cohort(record) + _outside(record))
    for name, text in _schedule(record, now_s):
        table.add_row(name, text)
    if record["held_until"] > now_s:
        until = away(record["held_until"], now_s)
        table.add_row("guard", f"[bold red]holds the tenant[/]: going on is refused, ends {until}")
    else:
        table.add_row("guard", "watches" if record["budgets"]["enabled"] else "[yellow]switched off[/]")
    if record["fallback_scope"] != "instance":
        table.add_row("scope", "one device at a time: a live WebSocket silences every stream of the user")
    if record["mirror"]:
        table.add_row("mirror", escape(record["mirror"]))
    if view["last"]:
        table.add_row("last change", _told(view["last"]))
    stdout.print(table)


def changes(entries: Iterable[Json]) -> None:
    """Audit entries, the newest first."""
    table = Table(box=None, pad_edge=False)
    for heading in ("#", "when", "who", "what", "from", "to", "why"):
        table.add_column(heading, header_style="dim")
    for entry in entries:
        before, after = entry["from"], entry["to"]
        # Where the stage was left alone, what was changed says more than it.
        stages = [] if before == after else [(_short(before) if before else "", _short(after))]
        rows = stages + [_field(change) for change in entry.get("changes", ())]
        table.add_row(
            str(entry["number"]),
            entry["at"][:19].replace("T", " "),
            escape(entry["who"]),
            entry["action"],
            "\n".join(old for old, _ in rows),
            "\n".join(new for _, new in rows),
            escape(entry["why"]),
        )
    stdout.print(table)


def tenants(found: Iterable[Json]) -> None:
    """A list of tenants."""
    table = Table(box=None, pad_edge=False)
    for heading in ("tenant", "stage", "cohort", "keys", "quota", "version"):
        table.add_column(heading, header_style="dim")
    for tenant in found:
        rate = tenant["settings"]["publish_rate_per_s"]
        percent = tenant["percent"]
        table.add_row(
            f"[bold]{escape(tenant['id'])}[/]",
            tenant["stage"],
            "everybody" if percent == 100 else f"{percent:g} %",
            str(len(tenant["keys"])),
            f"{rate:g}/s" if rate else "[dim]default[/]",
            str(tenant["version"]),
        )
    stdout.print(table)


def difference(before: Json, after: Json) -> bool:
    """Prints what differs between two records; False when nothing does."""
    table = _plain(("", "dim"), ("", "red"), ("", None), ("", "green"))
    for name, old, new in _differences(before, after):
        table.add_row(name, old, "→", new)
    if table.row_count:
        stdout.print(table)
        for line in moves(before, after):
            stdout.print(line, markup=False)
    return bool(table.row_count)


def moves(before: Json, after: Json) -> list[str]:
    """Which share of the users goes from where to where; [] when nobody moves. Users named in the lists are
    left aside."""
    shares: dict[tuple[Stage, Stage], float] = {}
    records = (before, after)
    cuts = sorted({0.0, 100.0, *(float(record["cohort"]["percent"]) for record in records)})
    for low, high in pairwise(cuts):
        was, will = (_stage_at(record, low) for record in records)
        shares[was, will] = shares.get((was, will), 0.0) + high - low
    if all(was is will for was, will in shares):
        return []
    return [
        f"{share:g} % of the users " + (f"stay in {was}" if was is will else f"go from {was} to {will}")
        for (was, will), share in shares.items()
    ]


def _stage_at(record: Json, place: float) -> Stage:
    """The stage of the users at a place of the cohort's order, 0 to 100."""
    stage = Stage(record["stage"])
    return stage if place < record["cohort"]["percent"] else stage.previous


def steps(tenant: str, here: str, wanted: Stage, found: Sequence[Step]) -> None:
    """A plan."""
    if not found:
        stdout.print(f"{tenant} is in {wanted} already.", markup=False)
        return
    stdout.print(f"From [bold]{escape(here)}[/] to [bold]{wanted} for everybody[/], {len(found)} steps:\n")
    for step in found:
        stdout.print(f"[bold]{step.number}. {escape(step.title)}[/]")
        for check in step.checks:
            stdout.print(f"   [dim]☐[/] {escape(check)}")
        if step.command:
            stdout.print(f"   [cyan]{escape(step.command)}[/]")
        stdout.print()
    stdout.print("[dim]Back at any time, nobody loses a message:[/] ", end="")
    stdout.print(f"[cyan]dualcast migrate rollback {escape(tenant)} --why …[/]")


def readiness(view: Json) -> None:
    """May the tenant go on, and why not."""
    table = _plain(("", "dim"), ("", None))
    table.add_row("tenant", f"[bold]{escape(view['tenant'])}[/]")
    table.add_row("stage", f"{view['stage']} → {view['next'] or 'none: it is the last'}")
    table.add_row("ready", _MARKS[bool(view["ready"])])
    stdout.print(table)
    for name, mark in (("reasons", "[red]✗[/]"), ("warnings", "[yellow]![/]")):
        for reason in view[name]:
            stdout.print(f"  {mark} {escape(reason['text'])}  [dim]{escape(reason['code'])}[/]")
    totals = view["totals"]
    if totals["seconds"]:
        figures = _plain(("", "dim"), ("", None))
        figures.add_row("since", view["since"][:19].replace("T", " "))
        figures.add_row(
            "WebSocket opens",
            f"{totals['websocket_opens']}, {totals['websocket_open_failure_percent']:g} % failed",
        )
        figures.add_row(
            "WebSocket ends",
            f"{totals['websocket_closes']}, {totals['abnormal_close_percent']:g} % abnormal",
        )
        figures.add_row("compared", f"{totals['compared']}, {totals['mismatched']} mismatches")
        figures.add_row("p99 lag", f"{totals['lag_p99_ms']:g} ms")
        stdout.print(figures)


def _plain(*columns: tuple[str, str | None]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for heading, style in columns:
        table.add_column(heading, style=style or "")
    return table


def _outside(record: Json) -> str:
    if record["cohort"]["percent"] == 100 and not record["cohort"]["deny"]:
        return ""
    return f"   [dim]the others: {Stage(record['stage']).previous}[/]"


def _schedule(record: Json, now_s: float) -> Iterator[tuple[str, str]]:
    idle = "" if record["stage"] == "websocket" else "   [dim]counts in stage websocket[/]"
    for name, word in (("deprecated_at", "deprecated"), ("sunset_at", "sunset")):
        if record[name]:
            yield word, f"{moment(record[name])} ({away(record[name], now_s)}){idle}"
    for brownout in record["brownouts"]:
        text = f"{moment(brownout['at'])} ({away(brownout['at'], now_s)}){idle}"
        yield f"brownout {brownout['percent']:g} %", text
    if record["link"]:
        yield "link", escape(record["link"])


def _told(entry: Json) -> str:
    when = entry["at"][:16].replace("T", " ")
    return (
        f"#{entry['number']} {entry['action']} by {escape(entry['who'])}, {when} UTC: {escape(entry['why'])}"
    )


def _short(record: Json) -> str:
    percent = record["cohort"]["percent"]
    return f"{record['stage']}" + ("" if percent == 100 else f" {percent:g} %")


def _field(change: Json) -> tuple[str, str]:
    """Both sides of a changed setting or key, each with its name."""
    name = change["field"].replace("_", " ").removesuffix("s" if change["field"] == "keys" else "")
    return tuple(escape(f"{name}: {_plainly(change[side])}") for side in ("from", "to"))  # type: ignore[return-value]


def _plainly(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return " ".join(filter(None, (value["algorithm"], value["kid"], value["fingerprint"])))
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _differences(before: Json, after: Json, at: str = "") -> Iterator[tuple[str, str, str]]:
    for name in before:
        old, new = before[name], after.get(name)
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, f"{at}{name}.")
        else:
            yield at + name, _value(name, old), _value(name, new)


def _value(name: str, value: Any) -> str:
    if value is None:
        return "the server's" if name == "mirror" else "off"
    if name in ("deprecated_at", "sunset_at", "held_until"):
        return moment(value) or "not set"
    if name == "brownouts":
        return ", ".join(f"{moment(item['at'])} {item['percent']:g} %" for item in value) or "none"
    if name == "link":
        return str(escape(value)) or "none"
    if isinstance(value, list):
        shown = ", ".join(map(str, value[:5]))
        return escape(shown + (f" and {len(value) - 5} more" if len(value) > 5 else "")) or "nobody"
    return str(escape(f"{value:g}" if isinstance(value, float) else str(value)))
