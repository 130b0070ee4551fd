"""REST calls of the commands for operators: one request, its JSON, refusals in words."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import msgspec
import rich_click as click

from dualcast.model.channel import check_tenant
from dualcast.model.errors import DualcastError
from dualcast.model.principal import OPERATOR
from dualcast.settings import Settings
from dualcast_migration.policy import MAX_AT_S

from .console import CommandFailed
from .demo import USER, Claims
from .remote import Remote, refusal, remote, unreachable
from .sign import span_s

TIMEOUT_S = 10.0
DEMO_OPERATOR = Claims(sub=USER, roles=(OPERATOR,))
"""Whom the demo key signs for where no token is given."""
F = TypeVar("F", bound=Callable[..., Any])


def operator_at(url: str, token: str | None) -> Remote:
    """The server at `url`, as `remote`; with the demo key its token is an operator's."""
    return remote(url, token, DEMO_OPERATOR)


def call(
    there: Remote,
    method: str,
    path: str,
    *,
    body: Any = None,
    query: Mapping[str, str | int] | None = None,
    version: int | None = None,
) -> dict[str, Any]:
    """The JSON object a request is answered with. `version`: sent as If-Match. Raises CommandFailed."""
    headers = dict(there.headers)
    if version is not None:
        headers["If-Match"] = f'"{version}"'
    try:
        response = httpx.request(
            method, there.url + path, json=body, params=query, headers=headers, timeout=TIMEOUT_S
        )
    except httpx.HTTPError as error:
        raise unreachable(there.url, error) from None
    except UnicodeEncodeError:
        raise CommandFailed("what was given is not valid UTF-8") from None
    if response.status_code in (409, 412) and refusal(response).split()[1:2] == ["version-conflict:"]:
        raise CommandFailed("somebody else changed it meanwhile: look at it again")
    if not response.is_success:
        raise CommandFailed(f"the server refused it: {refusal(response)}")
    try:
        found = response.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CommandFailed(f"{there.url} did not answer with a JSON object: is it a dualcast server?")
    return found


def tenant_path(tenant: str, rest: str = "") -> str:
    """The path of a tenant. Raises CommandFailed for what is no tenant id."""
    try:
        return f"/v1/tenants/{quote(check_tenant(tenant), safe='')}{rest}"
    except DualcastError as error:
        raise CommandFailed(error.reason) from None


def tenant_of(tenant: str | None, there: Remote) -> str:
    """`tenant`, or the one the token belongs to."""
    return tenant or _claimed(there.token) or Settings().tenancy.legacy_tenant


def _claimed(token: str) -> str:
    """The claim `tenant`, unverified: the server decides what the token is good for."""
    part = token.split(".")[1] if token.count(".") == 2 else ""
    try:
        claims = msgspec.json.decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return str(claims.get("tenant") or "")
    except (binascii.Error, ValueError, AttributeError):
        return ""


def when(text: str, now_s: float) -> int:
    """`now`, `+30d` (from now), or ISO 8601 (UTC unless it says otherwise) as Unix seconds; `off`: 0.

    Raises click.BadParameter.
    """
    if text in ("off", "none"):
        return 0
    if text == "now":
        return int(now_s)
    if text.startswith("+"):
        at_s = int(now_s) + span_s(text[1:])
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise click.BadParameter(
                f"{text!r} is no time: 2027-03-01, 2027-03-01T06:00Z, now, +30d or off"
            ) from None
        at_s = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    if not 0 < at_s <= MAX_AT_S:
        raise click.BadParameter(f"{text!r} lies before 1970 or after 9999")
    return at_s


def figure(text: str) -> float:
    """A finite number, an int where it is whole. Raises ValueError."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return int(number) if number.is_integer() else number


def share(text: str) -> float:
    """A percentage as an option's type. Raises click.BadParameter."""
    try:
        number = figure(text.removesuffix("%"))
    except ValueError:
        number = -1
    if not 0 <= number <= 100:
        raise click.BadParameter(f"{text!r} is not 0 to 100")
    return number


def json_option(command: F) -> F:
    """Adds --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print the server's answer as JSON.")(command)


def echo_json(value: Any) -> None:
    """Prints `value` as one line of JSON."""
    click.echo(msgspec.json.encode(value))
