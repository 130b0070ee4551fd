"""`dualcast tail`: prints what arrives, over SSE or WebSocket, and resumes by cursor when interrupted."""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Sequence

import msgspec
import rich_click as click
from rich.text import Text

from dualcast.model.channel import check_channel
from dualcast.model.cursor import parse_cursor
from dualcast.model.errors import DualcastError

from .console import note, stdout
from .follow import Dropped, Event, follow_sse, follow_ws
from .remote import Remote, remote, server_options

REMEMBERED_IDS = 10_000
FIRST_DELAY_MS, MAX_DELAY_MS = 500, 30_000


class Tail:
    """State over reconnects: cursor, ids seen, events left to print."""

    def __init__(self, *, cursor: str, count: int, as_json: bool) -> None:
        self.cursor = cursor
        self.left = count or -1
        self.as_json = as_json
        self._seen: OrderedDict[str, None] = OrderedDict()

    def take(self, event: Event) -> bool:
        """Prints `event` unless it is a duplicate; False when the wished count is reached."""
        if event.cursor:
            self.cursor = event.cursor
        if not event.publication:
            if event.name:
                self._signal(event)
            return True
        ident = str(event.body.get("id", ""))
        if ident in self._seen:
            return True
        self._seen[ident] = None
        if len(self._seen) > REMEMBERED_IDS:
            self._seen.popitem(last=False)
        self._publication(event)
        self.left -= 1
        return self.left != 0

    def _publication(self, event: Event) -> None:
        if self.as_json:
            click.echo(msgspec.json.encode({"cursor": event.cursor or None, **event.body}))
            return
        body = event.body
        line = Text(str(body.get("time", ""))[11:23] + "  ", style="dim")
        line.append(str(body.get("channel")), style="cyan").append("  ")
        line.append(event.name, style="bold").append("  ")
        line.append(msgspec.json.encode(body.get("data")).decode(), style="default")
        stdout.print(line)

    def _signal(self, event: Event) -> None:
        text = msgspec.json.encode(event.body).decode()
        if self.as_json and event.name == "gap":
            click.echo(msgspec.json.encode({"gap": event.body}))
        elif event.name == "gap":
            note(f"gap: publications are missing  {text}")
        elif event.name == "welcome":
            note(f"connected as {event.body.get('user')}: {', '.join(event.body.get('channels', ()))}")
        elif event.name != "pong":
            note(f"{event.name}  {text}")


async def run(there: Remote, channels: Sequence[str], tail: Tail, *, ws: bool) -> None:
    """Follows until the wished count is reached. Raises CommandFailed where coming back cannot help."""
    attempt = 0
    while True:
        try:
            async for event in (follow_ws if ws else follow_sse)(there, channels, tail.cursor):
                attempt = 0
                if not tail.take(event):
                    return
        except Dropped as drop:
            delay_ms = min(MAX_DELAY_MS, FIRST_DELAY_MS * 2**attempt) * random.uniform(0.5, 1.0)  # noqa: S311  (jitter)
            delay_ms = max(delay_ms, drop.retry_ms or 0)
            attempt = min(attempt + 1, 10)
            where = f"from {tail.cursor}" if tail.cursor else "from now on"
            note(f"{drop.reason}; again in {delay_ms / 1000:.1f} s, {where}")
            await asyncio.sleep(delay_ms / 1000)


@click.command()
@click.argument("channels", nargs=-1)
@click.option("--ws", is_flag=True, help="Over WebSocket instead of SSE.")
@click.option("--cursor", default="", help="Start after this cursor instead of now.")
@click.option("--count", type=click.IntRange(min=0), default=0, help="End after so many; 0: never.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@server_options
def tail(
    channels: Sequence[str],
    ws: bool,
    cursor: str,
    count: int,
    as_json: bool,
    url: str,
    token: str | None,
) -> None:
    """Follow CHANNELS (topic:x …) and print what arrives; the own user channel and `all` always.

    After an interruption it resumes by cursor: nothing is lost and nothing is printed twice.
    """
    try:
        names = [check_channel(name) for name in channels]
        if cursor:
            parse_cursor(cursor)
    except DualcastError as error:
        raise click.UsageError(error.reason) from None
    asyncio.run(run(remote(url, token), names, Tail(cursor=cursor, count=count, as_json=as_json), ws=ws))
