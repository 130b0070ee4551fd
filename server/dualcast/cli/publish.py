"""`dualcast publish`: one publication over REST."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import httpx
import msgspec
import rich_click as click

from .console import CommandFailed, stdout
from .remote import refusal, remote, server_options, unreachable

TIMEOUT_S = 10.0


@click.command()
@click.argument("data", required=False)
@click.option("--user", "users", multiple=True, help="Notify this user; repeatable.")
@click.option(
    "--channel", "channels", multiple=True, help="Publish to this channel (topic:x, all); repeatable."
)
@click.option("--title", help="Title of a notification.")
@click.option("--type", "type_", help="Event type, or kind of notification.")
@click.option("--id", "ident", help="Publication id; the same id is published once.")
@click.option("--ephemeral", is_flag=True, help="Live only: not kept, never recovered (with --channel).")
@click.option("--json", "as_json", is_flag=True, help="Print the server's answer as JSON.")
@server_options
def publish(
    data: str | None,
    users: Sequence[str],
    channels: Sequence[str],
    title: str | None,
    type_: str | None,
    ident: str | None,
    ephemeral: bool,
    as_json: bool,
    url: str,
    token: str | None,
) -> None:
    """Publish to users (--user, a notification with a title) or to channels (--channel).

    DATA is JSON, or `-` to read JSON from standard input; text that is no JSON is sent as a string
    (to users: as the notification's content).
    """
    if bool(users) == bool(channels):
        raise click.UsageError("give --user or --channel")
    if users and ephemeral:
        raise click.UsageError("--ephemeral goes with --channel")
    value = _value(sys.stdin.read() if data == "-" else data)
    body: dict[str, Any]
    if users:
        path, body = "/v1/notifications", _notification(users, title, value)
    else:
        path, body = "/v1/publish", {"channels": list(channels), "data": value}
        if title is not None:
            raise click.UsageError("--title goes with --user")
        body["type"] = type_ or "event"
        if ephemeral:
            body["ephemeral"] = True
    if type_:
        body["type"] = type_
    if ident:
        body["id"] = ident
    there = remote(url, token)
    try:
        response = httpx.post(there.url + path, json=body, headers=there.headers, timeout=TIMEOUT_S)
    except httpx.HTTPError as error:
        raise unreachable(there.url, error) from None
    if not response.is_success:
        raise CommandFailed(f"the server refused it: {refusal(response)}")
    answer = response.json()
    if as_json:
        click.echo(msgspec.json.encode(answer))
        return
    extra = " (known already: published before)" if answer.get("duplicate") else ""
    where = f"cursor {answer['cursor']}" if answer.get("cursor") else "ephemeral"
    stdout.print(f"published {answer.get('id', '')} · {where}{extra}", markup=False)


def _notification(users: Sequence[str], title: str | None, value: object) -> dict[str, Any]:
    if title is None and not isinstance(value, str):
        raise click.UsageError("a notification needs --title")
    body: dict[str, Any] = {"to": {"user": users[0]} if len(users) == 1 else {"users": list(users)}}
    if isinstance(value, str):
        return body | ({"title": value} if title is None else {"title": title, "content": value})
    if value is not None and not isinstance(value, dict):
        raise click.UsageError("the data of a notification is a JSON object")
    return body | {"title": title} | ({"data": value} if value else {})


def _value(text: str | None) -> object:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
