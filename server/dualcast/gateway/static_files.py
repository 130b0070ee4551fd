"""Files the server carries with it: read once, compressed when first asked for, each with a strong ETag (RFC
9110 section 8.8).

There is no path from a request to the file system: what is served was found when the server started.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from litestar import Request, Response
from litestar.datastructures import Headers

MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "json": "application/json"}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # asked for again with If-None-Match: a new release is seen at once
    "vary": "Accept-Encoding",
}


@dataclass(frozen=True)
class StaticFile:
    """A file as it goes out. `tag`: of `content`."""

    content: bytes
    media_type: str
    tag: str

    @cached_property
    def packed(self) -> bytes:
        """Its gzip form, b"" where that is no shorter. A start does not wait for it."""
        packed = gzip.compress(self.content, mtime=0)
        return packed if len(packed) < len(self.content) else b""


def static_file(name: str, content: bytes) -> StaticFile:
    """`name` says the media type by its ending; raises KeyError for one that is not known."""
    return StaticFile(content, MEDIA_TYPES[name.rpartition(".")[2]], sha256(content).hexdigest()[:32])


@cache
def page_files() -> Mapping[str, StaticFile]:
    """What the server's pages are made of, by file name."""
    return _below(files("dualcast.gateway") / "static")


@cache
def client_files() -> Mapping[str, StaticFile]:
    """The modules of `@dualcast/client` by path below its `src`: `index.js`, `transports/port.js`.

    A wheel has them inside the package, an editable install in the work tree beside it; {} where there is
    neither.
    """
    packaged = files("dualcast.gateway") / "client"
    if packaged.is_dir():
        return _below(packaged)
    source = Path(__file__).parents[3] / "clients" / "core" / "src"
    return _below(source) if source.is_dir() else {}


def answer(request: Request[Any, Any, Any], file: StaticFile) -> Response[bytes]:
    """200 with the file in an encoding the caller takes, or 304 when it has that already."""
    packed = _takes_gzip(request.headers) and bool(file.packed)
    tag = f'"{file.tag}-gzip"' if packed else f'"{file.tag}"'
    headers = {**HEADERS, "etag": tag}
    if _has(request.headers.get("if-none-match", ""), tag):
        return Response(b"", status_code=304, media_type=file.media_type, headers=headers)
    if packed:
        headers["content-encoding"] = "gzip"
    return Response(file.packed if packed else file.content, media_type=file.media_type, headers=headers)


def _below(folder: Traversable, prefix: str = "") -> dict[str, StaticFile]:
    found: dict[str, StaticFile] = {}
    for item in folder.iterdir():
        if item.is_dir():
            found |= _below(item, f"{prefix}{item.name}/")
        elif item.name.rpartition(".")[2] in MEDIA_TYPES:
            found[prefix + item.name] = static_file(item.name, item.read_bytes())
    return found


def _takes_gzip(headers: Headers | Mapping[str, str]) -> bool:
    """RFC 9110 section 12.5.3. Who says nothing gets the file as it is."""
    for part in headers.get("accept-encoding", "").split(","):
        coding, _, weight = part.partition(";")
        if coding.strip().lower() in ("gzip", "x-gzip"):
            value = weight.strip().lower().removeprefix("q=")
            return not value or value.rstrip("0") not in ("", ".", "0.")
    return False


def _has(if_none_match: str, tag: str) -> bool:
    """RFC 9110 section 13.1.2: the weak comparison."""
    given = [one.strip().removeprefix("W/") for one in if_none_match.split(",")]
    return "*" in given or tag in given
