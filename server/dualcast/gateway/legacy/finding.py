"""Contracts by name: those of this package, and entry points of installed packages.

A package adds one by an entry point in the group `dualcast.dialects`: a callable that takes
`dialects.legacy.LegacySettings` and returns its endpoints (docs/guides/write-a-dialect.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from dualcast.dialects.legacy import GROUP, Contract, Endpoint, LegacySettings
from dualcast.model.errors import DualcastError

OURS = ("notifications", "rooms", "topics", "conversations", "progress")
"""Each is `endpoints` in the module of its name under `dualcast.dialects`."""


class ContractUnusable(DualcastError):
    """A contract cannot be served as it is configured: the server must not start. The text says why."""


def contract_endpoints(settings: LegacySettings, names: Sequence[str] = OURS) -> list[Endpoint]:
    """The endpoints of the contracts `names`, in that order. Raises ContractUnusable for an unknown name, a
    contract that cannot be loaded, and two endpoints on one path."""
    found: list[Endpoint] = []
    for name in dict.fromkeys(names):
        contract = _ours(name) if name in OURS else _installed(name)
        try:
            made = list(contract(settings))
        except Exception as error:
            # Anybody's code.
            raise ContractUnusable(
                f"contract {name}: its endpoints cannot be made ({type(error).__name__})"
            ) from error
        if not all(isinstance(endpoint, Endpoint) for endpoint in made):
            raise ContractUnusable(f"contract {name}: something it made is no Endpoint")
        found.extend(made)
    taken: set[str] = set()
    for endpoint in found:
        if endpoint.path in taken:
            raise ContractUnusable(f"contract {endpoint.dialect}: {endpoint.path} is taken")
        taken.add(endpoint.path)
    return found


def _ours(name: str) -> Contract:
    return cast(Contract, import_module(f"dualcast.dialects.{name}").endpoints)


def _installed(name: str) -> Contract:
    found: list[EntryPoint] = sorted(entry_points(group=GROUP))
    named = [point for point in found if point.name == name]
    if not named:
        known = ", ".join(sorted({*OURS, *(point.name for point in found)}))
        raise ContractUnusable(f"there is no contract {name!r}; there are: {known}")
    if len(named) > 1:
        raise ContractUnusable(f"contract {name}: {len(named)} installed packages offer it")
    try:
        contract: Contract = named[0].load()
    except Exception as error:
        # Anybody's code.
        raise ContractUnusable(f"contract {name}: it cannot be loaded ({type(error).__name__})") from error
    return contract
