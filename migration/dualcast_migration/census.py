"""Who connects how: kinds of clients, told by what they say of themselves. Pure.

Nothing of a person is kept: of the user agent the family and the major version, of the page its origin only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

MAX_ROWS = 1_000
"""Kinds of clients of one tenant; the rest is summed up as `other`."""
MAX_ROWS_PER_USER = 20
"""Kinds that are there because of one user: what clients say of themselves is not to be believed, and one
that says another thing each time must not push the others out. What is beyond is `other`, too."""
MAX_APP = 64
_MAX_AGENT = 512
_MAX_ORIGIN = 128
OTHER = "other"

# In this order: a user agent names others' tokens before and behind its own.
_FAMILIES = (
    ("Edge", re.compile(r"\b(?:Edg|EdgA|EdgiOS|Edge)/(\d+)")),
    ("Opera", re.compile(r"\b(?:OPR|OPiOS)/(\d+)")),
    ("Samsung Internet", re.compile(r"\bSamsungBrowser/(\d+)")),
    ("Firefox", re.compile(r"\b(?:Firefox|FxiOS)/(\d+)")),
    ("Chrome", re.compile(r"\b(?:Chrome|CriOS|Chromium|HeadlessChrome)/(\d+)")),
    ("Safari", re.compile(r"\bVersion/(\d+)[\d.]*(?: Mobile/\w+)? Safari/")),
    ("okhttp", re.compile(r"\bokhttp/(\d+)")),
    ("curl", re.compile(r"^curl/(\d+)")),
    ("Dart", re.compile(r"^Dart/(\d+)")),
    ("Go", re.compile(r"^Go-http-client/(\d+)")),
    ("Node.js", re.compile(r"^(?:node|undici|axios)(?:/(\d+))?")),
    ("Java", re.compile(r"^(?:Java|Apache-HttpClient|Java-http-client)/(\d+)")),
    ("Python", re.compile(r"^(?:[Pp]ython\b|aiohttp|httpx|websockets|dualcast-client)[^\d]*(\d+)?")),
)
_MOBILE = re.compile(r"\b(?:CFNetwork|Darwin|iOS|iPhone|iPad|Android|okhttp)\b")
_PRODUCT = re.compile(r"([A-Za-z][\w.-]{0,31})/v?(\d+)")
_LIBRARIES = frozenset({"mozilla", "okhttp", "curl", "dart", "go-http-client", "dalvik", "python"})


class Visitor(Struct, frozen=True):
    """What a connect request says of its client."""

    agent: str = OTHER
    """Family and major version: `Chrome 130`, `okhttp 4`, `app:Acme 7`."""
    app: str = ""
    """The version the client gave itself (`app`)."""
    origin: str = ""
    """Of the page; "": not a page."""
    resumed: bool = False
    """It came with a cursor."""


class Row(Struct, frozen=True, array_like=True):
    """A kind of client: what the census counts by."""

    transport: str
    """`sse` or `ws`."""
    dialect: str
    agent: str = OTHER
    app: str = ""
    origin: str = ""
    instance: bool = False
    """It names its instance: such a client may have a WebSocket beside its stream."""


class CensusRow(Struct, frozen=True, kw_only=True):
    """A kind of client, counted over all nodes. Times in Unix milliseconds."""

    row: Row
    connects: int
    live: int
    users: int
    """Approximate: exact up to 63, then to about 13 %."""
    first_ms: int
    last_ms: int


UNKNOWN = Visitor()


def rest_row(row: Row) -> Row:
    """The row that `row` is counted in when there are too many."""
    return Row(row.transport, OTHER)


def visitor(user_agent: str, app: str, origin: str, referer: str, *, resumed: bool = False) -> Visitor:
    """From the headers of a connect request and its parameter `app`. Nothing is refused: what is not what it
    should be is left out."""
    page = page_origin(origin) or page_origin(referer)
    return Visitor(family(user_agent[:_MAX_AGENT]), app_version(app), page, resumed)


def app_version(text: str) -> str:
    """`text` if it is 1 to 64 printable characters, else ""."""
    return text if 0 < len(text) <= MAX_APP and text.isprintable() else ""


@lru_cache(maxsize=4096)
def family(user_agent: str) -> str:
    """Family and major version of a User-Agent header; `other` when it is none of those known."""
    first = _PRODUCT.match(user_agent)
    if first and first.group(1).lower() not in _LIBRARIES and _MOBILE.search(user_agent):
        return f"app:{first.group(1)} {first.group(2)[:4]}"
    for name, pattern in _FAMILIES:
        found = pattern.search(user_agent)
        if found:
            major = found.group(1)
            return f"{name} {major[:4]}" if major else name
    return OTHER


def page_origin(url: str) -> str:
    """Scheme, host and port of an Origin or Referer header, never more; "" of anything else."""
    if len(url) > 8192:
        return ""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not host or not host.isprintable():
        return ""
    host = f"[{host}]" if ":" in host else host
    origin = f"{parts.scheme}://{host}" + (f":{port}" if port else "")
    return origin if len(origin) <= _MAX_ORIGIN else ""


class Census(Struct, frozen=True):
    """All rows of a tenant, those with most live connections first."""

    rows: tuple[CensusRow, ...]
    now_ms: int

    def live(self, transport: str) -> int:
        """Live connections."""
        return sum(row.live for row in self.rows if row.row.transport == transport)

    @property
    def behind(self) -> tuple[CensusRow, ...]:
        """Kinds of clients that have a live stream and cannot have a WebSocket beside it: they name no
        instance."""
        return tuple(r for r in self.rows if r.row.transport == "sse" and r.live and not r.row.instance)


def make_census(rows: Sequence[CensusRow], now_ms: int) -> Census:
    """In their order."""
    return Census(tuple(sorted(rows, key=lambda one: (-one.live, -one.last_ms, one.row.agent))), now_ms)


encode_row = msgspec.json.Encoder().encode
decode_row = msgspec.json.Decoder(Row).decode
