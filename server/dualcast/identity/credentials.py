"""Where the token is read in a request. Pure, over an ASGI scope.

One place decides, and what it says is not rescued by another:

| route | order |
|---|---|
| native WebSocket | `Authorization` header · subprotocol `bearer.<token>` · `?ticket=` · `?token=` · cookie |
| native SSE | `Authorization` header · `?ticket=` · `?token=` · cookie |
| native REST | `Authorization` header · cookie |
| legacy SSE and REST | `Authorization` header · `?token=` |
| legacy WebSocket | `?token=` · `Authorization` header (docs/contracts/legacy-wire.md section 1.2) |

A token in the query goes before a cookie: the page chose it for this request, while a cookie is sent along
with anything and may belong to another account. Native REST reads no query token, so that none is put into
URLs where a header can be set. The same parameter, cookie or header twice is refused: two readers could take
different ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote_to_bytes

from dualcast.model.errors import BadRequest, Unauthorized

Kind = Literal["http", "sse", "websocket"]
Source = Literal["header", "subprotocol", "ticket", "query", "cookie"]
Scope = MutableMapping[str, Any]

SUBPROTOCOL = "dualcast"
BEARER_PREFIX = "bearer."
MAX_QUERY_BYTES = 16_384
MAX_COOKIE_BYTES = 16_384
MAX_TOKEN_BYTES = 8192
MAX_PARAMETERS = 256
MAX_SUBPROTOCOLS = 16


class NoCredentials(Unauthorized):
    """The request has none; some legacy routes then serve an anonymous caller."""


class MalformedAuthorization(Unauthorized):
    """There is an Authorization header, but not `Bearer <token>`."""


class Credential(NamedTuple):
    """A token or ticket as the client sent it, not yet believed."""

    source: Source
    secret: str

    def __repr__(self) -> str:
        return f"Credential(source={self.source!r})"


def read_credential(scope: Scope, *, kind: Kind, native: bool, cookie_name: str = "") -> Credential:
    """The one credential that decides for this request; `cookie_name` "": cookies are not read.

    Raises NoCredentials, MalformedAuthorization, Unauthorized (not ASCII, too long), BadRequest (given twice,
    or a query, cookie header or subprotocol list beyond its limit).
    """
    headers = scope["headers"]
    if kind == "websocket" and not native:
        found = _query(scope, b"token") or _header(headers)
    elif not native:
        found = _header(headers) or _query(scope, b"token")
    else:
        found = _header(headers)
        if found is None and kind == "websocket":
            found = _subprotocol(scope)
        if found is None and kind != "http":
            found = _query(scope, b"ticket") or _query(scope, b"token")
        if found is None and cookie_name:
            found = _cookie(headers, cookie_name.encode())
    if found is None:
        raise NoCredentials("credentials required")
    return found


def chosen_subprotocol(scope: Scope) -> str | None:
    """What a WebSocket handshake answers: `dualcast` if it was offered, never the entry that carries the
    token.
    """
    return SUBPROTOCOL if SUBPROTOCOL in offered_subprotocols(scope) else None


def offered_subprotocols(scope: Scope) -> list[str]:
    """The entries of `Sec-WebSocket-Protocol` in order; raises BadRequest when there are too many."""
    offered = scope.get("subprotocols")
    if offered is None:
        lines = (value for name, value in scope["headers"] if name == b"sec-websocket-protocol")
        offered = [entry.strip() for line in lines for entry in line.decode("latin-1").split(",")]
    if len(offered) > MAX_SUBPROTOCOLS:
        raise BadRequest("too many subprotocols")
    return list(offered)


def header_once(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The value of header `name` (lower case), None when absent; raises BadRequest when there is more than
    one.
    """
    found: bytes | None = None
    for key, value in headers:
        if key == name:
            if found is not None:
                raise BadRequest(f"header {name.decode()} given twice")
            found = value
    return found


def has_parameter(scope: Scope, names: Mapping[str, object] | Iterable[str]) -> bool:
    """Whether the query has a non-empty parameter of one of `names`."""
    wanted = {name.encode() for name in names}
    return any(value for name, value in _parameters(scope) if name in wanted)


def _header(headers: Iterable[tuple[bytes, bytes]]) -> Credential | None:
    value = header_once(headers, b"authorization")
    if value is None:
        return None
    scheme, _, secret = value.strip().partition(b" ")
    secret = secret.strip()
    if scheme.lower() != b"bearer" or not secret or b" " in secret:
        raise MalformedAuthorization("the Authorization header must be: Bearer <token>")
    return Credential("header", _text(secret))


def _subprotocol(scope: Scope) -> Credential | None:
    offered = offered_subprotocols(scope)
    tokens = [entry for entry in offered if entry.lower().startswith(BEARER_PREFIX)]
    if not tokens:
        return None
    if len(tokens) > 1:
        raise BadRequest("more than one bearer subprotocol")
    if SUBPROTOCOL not in offered:  # a browser fails a handshake that answers none of what it offered
        raise BadRequest("offer the subprotocol dualcast beside bearer.<token>")
    return Credential("subprotocol", _text(tokens[0][len(BEARER_PREFIX) :].encode("latin-1", "replace")))


def _query(scope: Scope, name: bytes) -> Credential | None:
    found: bytes | None = None
    for key, value in _parameters(scope):
        if key == name:
            if found is not None:
                raise BadRequest(f"parameter {name.decode()} given twice")
            found = value
    if not found:
        return None
    return Credential("ticket" if name == b"ticket" else "query", _text(unquote_to_bytes(found)))


def _parameters(scope: Scope) -> list[tuple[bytes, bytes]]:
    """(decoded name, raw value) pairs."""
    query: bytes = scope.get("query_string", b"")
    if not query:
        return []
    if len(query) > MAX_QUERY_BYTES or query.count(b"&") >= MAX_PARAMETERS:
        raise BadRequest("query string too long")
    pairs = []
    for field in query.split(b"&"):
        name, _, value = field.partition(b"=")
        pairs.append((unquote_to_bytes(name) if b"%" in name else name, value))
    return pairs


def _cookie(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> Credential | None:
    lines = [value for key, value in headers if key == b"cookie"]
    if sum(map(len, lines)) > MAX_COOKIE_BYTES:
        raise BadRequest("cookies too long")
    found: bytes | None = None
    for line in lines:
        for pair in line.split(b";"):
            key, equals, value = pair.strip().partition(b"=")
            if key != name or not equals:
                continue
            if found is not None:  # a subdomain may have set a second one
                raise BadRequest("cookie given twice")
            found = value.strip().strip(b'"')
    return Credential("cookie", _text(found)) if found else None


def _text(secret: bytes) -> str:
    if len(secret) > MAX_TOKEN_BYTES or not secret.isascii():
        raise Unauthorized("bad token")
    return secret.decode("ascii")
