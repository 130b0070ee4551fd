"""How much history each tenant keeps: what the server keeps, or less where the tenant says so."""

from __future__ import annotations

from collections.abc import Callable

from .port import Retention

Own = Callable[[str], tuple[int | None, int | None]]
"""Tenant → (entries, seconds) of its own; None: the server's. Never waits; called on any thread."""


def _nothing(_: str) -> tuple[int | None, int | None]:
    return None, None


class Keeping:
    """`most`: the server's retention. A tenant never has more: whoever runs the server says how much memory
    its channels may take. `own` is set by the composition root."""

    __slots__ = ("most", "own")

    def __init__(self, most: Retention) -> None:
        self.most = most
        self.own: Own = _nothing

    def of(self, tenant: str) -> Retention:
        """What holds for `tenant` now."""
        entries, seconds = self.own(tenant)
        most = self.most
        if entries is None and seconds is None:
            return most
        return Retention(
            most.entries if entries is None else min(entries, most.entries),
            most.seconds if seconds is None else min(seconds, most.seconds),
            most.idempotency_s,
        )


def keeping(given: Retention | Keeping | None) -> Keeping:
    """`given`, or the same for every tenant."""
    return given if isinstance(given, Keeping) else Keeping(given or Retention())
