"""The Origin allow-list (RFC 6454, Fetch standard): which pages may open sockets and use cookies. Pure.

Entries: an exact origin (`https://app.example.com`, `http://localhost:5173`), `https://*.example.com` for any
depth of subdomain but not the domain itself, `*` for every page. `*` never covers requests that carry a
cookie.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from dualcast.model.errors import BadRequest

ANY = "*"
OPAQUE = "null"
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*)"
    r"(?::(?P<port>[0-9]{1,5}))?\Z"
)
_MAX_BYTES = 512


class BadOrigin(BadRequest):
    """A configured entry that is not an origin."""

    code = "bad-origin"
    status = 422


class Origins:
    """A parsed allow-list."""

    __slots__ = ("_any", "_exact", "_opaque", "_suffixes")

    def __init__(self, entries: Iterable[str] = ()) -> None:
        """Raises BadOrigin for an entry that could never match what a browser sends, or that is wider than it
        looks.
        """
        self._any = False
        self._opaque = False
        self._exact: set[tuple[str, str, int]] = set()
        self._suffixes: set[tuple[str, str, int]] = set()
        for entry in entries:
            self._add(entry.strip())

    def allows(
        self, origin: str | None, *, host: str = "", secure: bool = False, cookie: bool = False
    ) -> bool:
        """Whether a request with header `Origin: origin` may be served.

        `host` is its Host header: a page of the same host is always allowed (over TLS, `secure`, only an
        https page). None: no browser page asks; allowed unless `cookie`. `cookie`: the request is judged by a
        cookie, so the page must be named by an entry or be of the same host; `*` and `null` do not do.
        """
        if origin is None:
            return not cookie
        if origin == OPAQUE:
            return not cookie and (self._any or self._opaque)
        page = parse(origin)
        if page is None:
            return False
        if (self._any and not cookie) or page in self._exact:
            return True
        scheme, name, port = page
        if any(
            scheme == wanted and port == wanted_port and name.endswith(suffix)
            for wanted, suffix, wanted_port in self._suffixes
        ):
            return True
        return bool(host) and same_host(page, host, secure)

    def _add(self, entry: str) -> None:
        if entry == ANY:
            self._any = True
            return
        if entry == OPAQUE:
            self._opaque = True
            return
        scheme, _, rest = entry.partition("://")
        wildcard = rest.startswith("*.")
        page = parse(f"{scheme}://{_ascii(rest.removeprefix('*.'))}")
        if page is None:
            raise BadOrigin("an allowed origin is scheme://host[:port], scheme://*.domain[:port], * or null")
        if not wildcard:
            self._exact.add(page)
            return
        if page[1].startswith("[") or ("." not in page[1] and page[1] != "localhost") or _is_ipv4(page[1]):
            raise BadOrigin("a wildcard needs a domain of at least two labels")
        self._suffixes.add((page[0], "." + page[1], page[2]))


def parse(origin: str) -> tuple[str, str, int] | None:
    """(scheme, host, port; 0 where the scheme has no default) in lower case; None when it is not a serialised
    origin.

    A path, user info, a trailing dot or slash, white space or any non-ASCII letter makes it none.
    """
    if len(origin) > _MAX_BYTES or not origin.isascii():
        return None
    match = _ORIGIN.match(origin.lower())
    if match is None:
        return None
    port = int(match["port"]) if match["port"] else _DEFAULT_PORTS.get(match["scheme"], 0)
    return (match["scheme"], match["host"], port) if port < 65_536 else None


def same_host(page: tuple[str, str, int], host: str, secure: bool) -> bool:
    """Whether `page` was served by the host and port of Host header `host`. `secure`: this request came over
    TLS.
    """
    scheme, name, port = page
    if scheme not in ("http", "https") or (secure and scheme != "https"):
        return False
    # The Host header leaves out the default port of the page's scheme, also where a proxy ends TLS before us.
    return parse(f"{scheme}://{host}") == (scheme, name, port)


def _ascii(authority: str) -> str:
    """`authority` with a Unicode host as punycode, which is what browsers send."""
    if authority.isascii():
        return authority
    parts = urlsplit("//" + authority)
    try:
        host = (parts.hostname or "").encode("idna").decode()
        port = f":{parts.port}" if parts.port is not None else ""
    except (UnicodeError, ValueError):
        return ""
    return host + port if "@" not in authority and "/" not in authority else ""


def _is_ipv4(host: str) -> bool:
    return host.replace(".", "").isdigit()
