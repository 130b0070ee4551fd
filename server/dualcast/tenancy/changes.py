"""What differs between two values of a tenant beside its stage, field by field and without secrets: pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from .model import SigningKey, Tenant, TenantSettings, key_view

MAX_CHANGES_BYTES = 8 * 1024
"""Of one change as JSON: beyond it lists and keys are told in a few words."""
_MAX_WORDS = 80


class FieldChange(Struct, frozen=True, rename={"before": "from", "after": "to"}):
    """One field, as plain JSON. `keys`: one signing key as a `KeyView`, null before it was added and after it
    was removed; equal on both sides when only what is shown nowhere was replaced, its secret. Other fields:
    as in `TenantSettings`, null is the server's default."""

    field: str
    before: Any
    after: Any


def changes_between(old: Tenant | None, new: Tenant) -> tuple[FieldChange, ...]:
    """Settings first, then keys. `old` None: `new` was made."""
    before, after = old.settings if old else TenantSettings(), new.settings
    found = [
        _change(name, getattr(before, name), getattr(after, name))
        for name in TenantSettings.__struct_fields__
        if getattr(before, name) != getattr(after, name)
    ]
    found += _keys(old.keys if old else (), new.keys)
    if len(msgspec.json.encode(found)) > MAX_CHANGES_BYTES:
        found = [FieldChange(one.field, _words(one.before), _words(one.after)) for one in found]
    return tuple(found)


def _keys(before: Sequence[SigningKey], after: Sequence[SigningKey]) -> list[FieldChange]:
    gone = [key for key in before if key not in after]
    come = [key for key in after if key not in before]
    found: list[FieldChange] = []
    for key in gone:
        # Put in the place of another under the same name: one change, not two.
        heir = next((one for one in come if one.kid == key.kid), None)
        if heir is not None:
            come.remove(heir)
        found.append(_change("keys", key_view(key), key_view(heir) if heir else None))
    return found + [_change("keys", None, key_view(key)) for key in come]


def _change(field: str, before: Any, after: Any) -> FieldChange:
    return FieldChange(field, msgspec.to_builtins(before), msgspec.to_builtins(after))


def _words(value: Any) -> Any:
    if isinstance(value, dict):
        return f"{value['algorithm']} {value['kid']}".strip()[:_MAX_WORDS]
    return f"{len(value)} entries" if isinstance(value, list) else value
