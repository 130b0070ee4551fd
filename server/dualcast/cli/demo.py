"""The demo key of `serve --dev`: random, kept in the data directory, so that tokens outlive a restart."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

from dualcast.identity.keys import MIN_SECRET_BYTES

from .console import CommandFailed

USER = "demo"
LIFE_S = 7 * 86_400
_FILE = "demo.key"


class Claims(Struct, frozen=True, kw_only=True):
    """What a token says about a user."""

    sub: str
    roles: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    """Patterns."""


DEMO = Claims(sub=USER, roles=("publisher",), channels=("topic:*", "room:*", "presence:*"))
"""The demo user: may publish, and subscribe to every topic and room."""


def demo_key(data_dir: str) -> str:
    """The secret in `data_dir`, made on first use and readable by its owner only. Raises CommandFailed."""
    file = Path(data_dir, _FILE)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return _checked(file)
        with os.fdopen(descriptor, "w") as handle:
            handle.write(secrets.token_urlsafe(MIN_SECRET_BYTES) + "\n")
        return _checked(file)
    except OSError as error:
        raise CommandFailed(f"{file}: {error.strerror}") from None


def existing_demo_key(data_dir: str) -> str | None:
    """The secret in `data_dir`, or None where `serve --dev` never ran."""
    file = Path(data_dir, _FILE)
    return _checked(file) if file.is_file() else None


def is_loopback(url_or_host: str) -> bool:
    """Whether the host is this machine by name or address."""
    host = urlsplit(url_or_host if "//" in url_or_host else f"//{url_or_host}").hostname or ""
    return host == "localhost" or host == "::1" or host.startswith("127.")


def _checked(file: Path) -> str:
    secret = file.read_text(encoding="ascii").strip()
    if len(secret) < MIN_SECRET_BYTES:
        raise CommandFailed(f"{file} holds no key: delete it, and `dualcast serve --dev` makes a new one")
    return secret
