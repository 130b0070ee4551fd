"""Pages of the server itself: `/`, the try-out page `/demo`, and `/websocket-test` with a tab for each older
contract (docs/contracts/legacy-wire.md section 1.10). Their files are read once: there is no path from a
request to the file system.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import msgspec
from litestar import Response, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from .authentication import PUBLIC

MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_OPTIONS: dict[str, Any] = {"opt": {PUBLIC: True}, "include_in_schema": False, "sync_to_thread": False}
_LINKS = (
    ("/docs", "REST interface", "Every endpoint with its bodies and answers"),
    ("/asyncapi.yaml", "AsyncAPI", "Sockets and streams: frames and their meaning"),
    ("/healthz", "Health", "Whether this server is alive"),
)
_DEMO = ("/demo", "Demo", "One notification on two transports")
_TEST = ("/websocket-test", "Test page", "Each older contract: connect, send, look")


def _files() -> dict[str, bytes]:
    folder = files("dualcast.gateway") / "static"
    return {item.name: item.read_bytes() for item in folder.iterdir() if item.is_file()}


def page_routes(*, version: str = "", dev: bool = True, test_page: bool = True) -> list[Any]:
    """`/` always; `/demo` with `dev`; `/websocket-test` with `dev` or `test_page` (elsewhere it is a 404)."""
    found = _files()
    with_test = dev or test_page
    routes = [_landing(found, version, dev=dev, with_test=with_test), _assets(found, with_test=with_test)]
    if dev:
        routes += _demo(found)
    if with_test:
        routes += _test_page(found, version, dev=dev)
    return routes


def _landing(found: dict[str, bytes], version: str, *, dev: bool, with_test: bool) -> Any:
    links = [*_LINKS, *((_DEMO,) if dev else ()), *((_TEST,) if with_test else ())]
    page = Template(found["landing.html"].decode()).substitute(version=escape(version), links=_cards(links))

    @get("/", name="landing", **_OPTIONS)
    def landing() -> Response[bytes]:
        return _answer(page.encode(), "landing.html")

    return landing


def _cards(links: Sequence[tuple[str, str, str]]) -> str:
    return "\n".join(
        f'        <li><a href="{path}"><b>{name}</b> <span>{about}</span></a></li>'
        for path, name, about in links
    )


def _assets(found: dict[str, bytes], *, with_test: bool) -> Any:
    names = {"demo.css", "landing.css", "landing.js"}
    if with_test:
        names |= {name for name in found if name.startswith(("test-", "websocket-test."))}

    @get("/pages/{name:str}", name="page-files", **_OPTIONS)
    def page_file(name: FromPath[str]) -> Response[bytes]:
        if name not in names:
            raise NotFoundException
        return _answer(found[name], name)

    return page_file


def _demo(found: dict[str, bytes]) -> list[Any]:
    @get("/demo", **_OPTIONS)
    def demo() -> Response[bytes]:
        return _answer(found["demo.html"], "demo.html")

    @get("/demo/{name:str}", **_OPTIONS)
    def demo_file(name: FromPath[str]) -> Response[bytes]:
        if name not in found or not name.startswith("demo."):
            raise NotFoundException
        return _answer(found[name], name)

    return [demo, demo_file]


def _test_page(found: dict[str, bytes], version: str, *, dev: bool) -> list[Any]:
    facts = msgspec.json.encode({"dev": dev, "version": version})

    @get("/websocket-test", name="websocket-test", **_OPTIONS)
    def test_page() -> Response[bytes]:
        return _answer(found["websocket-test.html"], "websocket-test.html")

    @get("/websocket-test/facts.json", name="websocket-test-facts", **_OPTIONS)
    def test_page_facts() -> Response[bytes]:
        return Response(facts, media_type="application/json", headers=HEADERS)

    return [test_page, test_page_facts]


def _answer(content: bytes, name: str) -> Response[bytes]:
    return Response(content, media_type=MEDIA_TYPES[name.rpartition(".")[2]], headers=HEADERS)
