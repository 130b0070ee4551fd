"""Litestar reads the signature of every handler whenever an application is made. Most tests make one, with
the same handlers: what was read of a function is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from litestar.utils.signature import ParsedSignature

_read: WeakKeyDictionary[Callable[..., Any], ParsedSignature] = WeakKeyDictionary()
_from_fn = ParsedSignature.from_fn


def remember_signatures() -> None:
    """From now on, for this process. Handlers defined in a function are others each time, and read anew."""

    def from_fn(fn: Callable[..., Any], signature_namespace: dict[str, Any]) -> ParsedSignature:
        try:
            found = _read.get(fn)
        except TypeError:  # nothing can refer to it weakly
            return _from_fn(fn, signature_namespace)
        if found is None:
            found = _read[fn] = _from_fn(fn, signature_namespace)
        return found

    ParsedSignature.from_fn = staticmethod(from_fn)  # type: ignore[method-assign,assignment]
