"""`dualcast token`: signs a token with the configured key, or the demo key."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import jwt
import rich_click as click

from dualcast.identity.dev import DevKey, issue
from dualcast.model.channel import check_id, check_tenant
from dualcast.model.errors import DualcastError
from dualcast.sections import Identity, Key
from dualcast.settings import Loaded, load

from .console import CommandFailed
from .demo import DEMO, LIFE_S, USER, Claims, demo_key

_SPAN = re.compile(r"(\d{1,9})([smhd]?)\Z")
_UNIT_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def span_s(text: str) -> int:
    """`90`, `90s`, `15m`, `2h`, `7d` as seconds; raises click.BadParameter."""
    match = _SPAN.match(text)
    if match is None or int(match[1]) == 0:
        raise click.BadParameter("a time is a number with s, m, h or d, such as 15m")
    return int(match[1]) * _UNIT_S[match[2]]


def signed(claims: Claims, key: Key, identity: Identity, *, tenant: str, life_s: int) -> str:
    """A token of `tenant` that `key` verifies. Raises CommandFailed where `key` cannot sign."""
    wanted = {name: value for name, value in (("iss", identity.issuer), ("aud", identity.audience)) if value}
    try:
        material = key.secret.encode() if key.secret else Path(key.private_key_file).read_bytes()
        signer = DevKey(algorithm=key.algorithm, material=material, tenant=tenant, kid=key.id)
        return issue(
            signer, claims.sub, roles=claims.roles, channels=claims.channels, life_s=life_s, extra=wanted
        )
    except OSError as error:
        raise CommandFailed(f"{key.private_key_file}: {error.strerror}") from None
    except (jwt.PyJWTError, ValueError, TypeError):
        raise CommandFailed(f"{key.private_key_file} is not a private key for {key.algorithm}") from None


def signing_key(loaded: Loaded, tenant: str, data_dir: str | None) -> Key:
    """The first key of `tenant` that can sign; with `data_dir`, its demo key. Raises CommandFailed."""
    if data_dir is not None:
        return Key(secret=demo_key(data_dir))
    own = loaded.settings.tenancy.legacy_tenant
    for key in loaded.settings.identity.keys:
        if (key.secret or key.private_key_file) and (key.tenant or own) == tenant:
            return key
    raise CommandFailed(
        f"no key to sign with for tenant {tenant}: set DUALCAST_JWT_SECRET, or a private_key_file in "
        "identity.keys; for a server started with --dev, use --dev"
    )


@click.command()
@click.option("--sub", help="User id.  [default: demo with --dev]")
@click.option("--tenant", help="Tenant id.  [default: the legacy tenant]")
@click.option("--role", "roles", multiple=True, help="publisher, admin, operator or your own; repeatable.")
@click.option("--channel", "channels", multiple=True, help="Pattern such as 'topic:*'; repeatable.")
@click.option("--ttl", default=None, metavar="TIME", help="Life: 90s, 15m, 2h, 7d.  [default: 1h; --dev: 7d]")
@click.option("--config", type=click.Path(), help="TOML file.")
@click.option("--dev", is_flag=True, help="Sign with the demo key of `dualcast serve --dev`.")
@click.option("--data-dir", help="Where the demo key is.  [default: as the server's]")
def token(
    sub: str | None,
    tenant: str | None,
    roles: Sequence[str],
    channels: Sequence[str],
    ttl: str | None,
    config: str | None,
    dev: bool,
    data_dir: str | None,
) -> None:
    """Print a token signed with the server's key.

    Without --sub, --role and --channel, --dev makes the demo token: user `demo`, may publish and subscribe to
    every topic and room.
    """
    loaded = load(config)
    settings = loaded.settings
    tenant = tenant or settings.tenancy.legacy_tenant
    if dev and not (sub or roles or channels):
        claims = DEMO
    elif sub or dev:
        claims = Claims(sub=sub or USER, roles=tuple(roles), channels=tuple(channels))
    else:
        raise click.UsageError("--sub names the user the token is for")
    try:
        check_tenant(tenant)
        check_id(claims.sub)
    except DualcastError as error:
        raise click.UsageError(error.reason) from None
    life_s = span_s(ttl) if ttl else LIFE_S if dev else 3600
    key = signing_key(loaded, tenant, (data_dir or settings.bus.data_dir) if dev else None)
    click.echo(signed(claims, key, settings.identity, tenant=tenant, life_s=life_s))
