"""Tenants described in a file: TOML (`[[tenants]]`) or JSON (`{"tenants": […]}`)."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from .model import Tenant, decode_hook
from .validate import BadTenant, check_tenant_value


class TenantFile(Struct, frozen=True, forbid_unknown_fields=True):
    """The file as a whole."""

    tenants: tuple[Tenant, ...]


def load_tenants(path: Path) -> tuple[Tenant, ...]:
    """The checked tenants of `path` (`.toml` or `.json`).

    Raises BadTenant saying where the file is wrong, never with a secret in it; OSError when it cannot be
    read.
    """
    text = path.read_bytes()
    try:
        if path.suffix == ".toml":
            found = msgspec.toml.decode(text, type=TenantFile, dec_hook=decode_hook)
        elif path.suffix == ".json":
            found = msgspec.json.decode(text, type=TenantFile, dec_hook=decode_hook)
        else:
            raise BadTenant("a file of tenants ends in .toml or .json")
    except msgspec.ValidationError as error:
        raise BadTenant(f"{path.name}: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadTenant(f"{path.name}: not well-formed {path.suffix[1:].upper()}") from None
    ids = [tenant.id for tenant in found.tenants]
    if len(set(ids)) < len(ids):
        raise BadTenant(f"{path.name}: a tenant is described twice")
    for tenant in found.tenants:
        try:
            check_tenant_value(tenant)
        except BadTenant as error:
            raise BadTenant(f"{path.name}: tenant {tenant.id}: {error.reason}") from None
    return found.tenants
