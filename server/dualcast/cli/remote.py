"""Requests to a running server: address, token, errors in words."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import rich_click as click
from msgspec import Struct

from dualcast.sections import Key
from dualcast.settings import Settings

from .console import CommandFailed, note
from .demo import DEMO, LIFE_S, Claims, existing_demo_key, is_loopback
from .sign import signed

DEFAULT_URL = "http://127.0.0.1:8000"
DISTRUSTED = "its certificate is not trusted: SSL_CERT_FILE names a file with the one that signed it"
F = TypeVar("F", bound=Callable[..., Any])


class Remote(Struct, frozen=True):
    """A server's base URL (no trailing slash) and the token to show it."""

    url: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    @property
    def socket_url(self) -> str:
        """The base URL with the scheme ws or wss."""
        return "ws" + self.url.removeprefix("http")


def server_options(command: F) -> F:
    """Adds --url and --token."""
    command = click.option(
        "--token",
        envvar="DUALCAST_TOKEN",
        help="Bearer token; DUALCAST_TOKEN.  [default: the demo token here]",
    )(command)
    return click.option(
        "--url", envvar="DUALCAST_URL", default=DEFAULT_URL, show_default=True, help="Server; DUALCAST_URL."
    )(command)


def remote(url: str, token: str | None, claims: Claims = DEMO) -> Remote:
    """The server at `url`. Raises CommandFailed.

    Without a token, the demo key of this directory signs one with `claims`, but only for a server on this
    machine.
    """
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise CommandFailed(f"--url is an address such as {DEFAULT_URL}")
    if not token:
        settings = Settings()
        secret = existing_demo_key(settings.bus.data_dir) if is_loopback(url) else None
        if secret is None:
            raise CommandFailed("no token: give --token or DUALCAST_TOKEN (`dualcast token` makes one)")
        tenant = settings.tenancy.legacy_tenant
        token = signed(claims, Key(secret=secret), settings.identity, tenant=tenant, life_s=LIFE_S)
        note("Using the demo token of this directory.")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise CommandFailed("the token holds characters no token has")
    return Remote(url.rstrip("/"), token)


def refusal(response: httpx.Response) -> str:
    """A refused request in one line: status, code, reason, and which fields it is about (RFC 9457)."""
    try:
        body = response.json()
        words = [str(body[name]) for name in ("code", "detail", "title") if body.get(name)]
        wrong = [_field(error) for error in body.get("errors") or ()]
    except (ValueError, AttributeError, TypeError, KeyError):
        words, wrong = [], []
    text = ": ".join(dict.fromkeys(words[:2])) or response.reason_phrase
    if wrong:
        text += " (" + "; ".join(wrong) + ")"
    retry = response.headers.get("Retry-After")
    return f"{response.status_code} {text}" + (f" (retry after {retry} s)" if retry else "")


def _field(error: Any) -> str:
    path = str(error["path"]).removeprefix("$").removeprefix(".")
    return (f"{path}: " if path else "") + str(error["message"]).replace("`", "")


def distrusted(error: BaseException | None) -> bool:
    """Whether `error` came from a certificate that nobody here trusts."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def unreachable(url: str, error: Exception) -> CommandFailed:
    """The failure to reach `url`, in words."""
    if isinstance(error, httpx.TimeoutException):
        return CommandFailed(f"{url} did not answer in time")
    if distrusted(error):
        return CommandFailed(f"{url}: {DISTRUSTED}")
    if isinstance(error, httpx.ConnectError | OSError):
        return CommandFailed(f"cannot reach {url}: is the server running?")
    return CommandFailed(f"{url}: the connection broke ({type(error).__name__})")
