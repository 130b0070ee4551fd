"""Which endpoint a path belongs to.

Litestar routes them as well (and documents them); this way is taken first, since a contract may have a socket
and an HTTP endpoint under one pattern (`/api/v1/ws/{user_id}` and `/api/v1/ws/stats`), which one router
cannot tell apart, and since ids are read from the path as it was sent: they may hold `/` and `%`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from litestar.handlers.asgi_handlers import ASGIRouteHandler
from litestar.types import ASGIApp

from dualcast.gateway.body import Scope

LEGACY = "legacy"
"""Key of a handler's `opt`: `ws` or `sse`."""


class Paths:
    """Patterns of endpoints with parameters."""

    def __init__(self, handlers: Iterable[Any], plain: Iterable[str] = ()) -> None:
        """`handlers`: any; those of legacy endpoints are taken. `plain`: the application's paths without
        parameters."""
        self._plain = frozenset(plain)
        self._exact: dict[tuple[str, str], ASGIApp] = {}
        self._patterns: dict[tuple[str, int], list[tuple[tuple[str, ...], ASGIApp]]] = {}
        for handler in handlers:
            if not isinstance(handler, ASGIRouteHandler) or LEGACY not in handler.opt:
                continue
            for path in handler.paths:
                transport, segments = handler.opt[LEGACY], tuple(path.strip("/").split("/"))
                if "{" not in path:
                    self._exact[transport, path] = handler.fn
                else:
                    self._patterns.setdefault((transport, len(segments)), []).append((segments, handler.fn))

    def find(self, scope: Scope) -> ASGIApp | None:
        """The handler of a WebSocket handshake or of a GET for a stream, its parameters put into the scope;
        None: the path is none of a legacy endpoint."""
        if scope["type"] == "websocket":
            return self._find("ws", scope)
        found = self._find("sse", scope)
        if found is None and (scope["path"].rstrip("/") or "/") not in self._plain:
            # A socket's path asked for without a handshake: its handler says so. Litestar's router fails on
            # an HTTP request to a raw handler with parameters (KeyError).
            found = self._find("ws", scope)
        return found

    def _find(self, transport: str, scope: Scope) -> ASGIApp | None:
        found = self._exact.get((transport, scope["path"]))
        if found is not None:
            return found
        raw = scope.get("raw_path") or scope["path"].encode()
        sent = raw.partition(b"?")[0].decode("latin-1").strip("/").split("/")
        for segments, handler in self._patterns.get((transport, len(sent)), ()):
            parameters = _matched(segments, sent)
            if parameters is not None:
                scope["path_params"] = parameters
                return handler
        return None


def _matched(segments: tuple[str, ...], sent: list[str]) -> dict[str, str] | None:
    parameters: dict[str, str] = {}
    for segment, part in zip(segments, sent, strict=True):
        if segment.startswith("{"):
            value = unquote(part, errors="replace")
            if not value:
                return None
            parameters[segment.strip("{}").partition(":")[0]] = value
        elif segment != part:
            return None
    return parameters
