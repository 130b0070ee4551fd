"""Pages of the server itself: `/`, the try-out page `/demo`, `/console` for operators and admins, and
`/websocket-test` with a tab for each older contract (docs/contracts/legacy-wire.md section 1.10); `/client/`,
the modules of the JavaScript client that these pages, and any other, may load.

They are static and hold no secret: what a page may see and do, its token decides at the REST interface.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from string import Template
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from .authentication import PUBLIC
from .static_files import StaticFile, answer, client_files, page_files, static_file

Files = Mapping[str, StaticFile]
Asked = Request[Any, Any, Any]
_OPTIONS: dict[str, Any] = {"opt": {PUBLIC: True}, "include_in_schema": False, "sync_to_thread": False}
_LINKS = (
    ("/docs", "REST interface", "Every endpoint with its bodies and answers"),
    ("/asyncapi.yaml", "AsyncAPI", "Sockets and streams: frames and their meaning"),
    ("/healthz", "Health", "Whether this server is alive"),
)
_CONSOLE = ("/console", "Console", "Live events, tenants and their stages, connections, health")
_DEMO = ("/demo", "Demo", "One notification on two transports")
_TEST = ("/websocket-test", "Test page", "Each older contract: connect, send, look")


def page_routes(
    *, version: str = "", dev: bool = True, test_page: bool = True, console: bool = True
) -> list[Any]:
    """`/` and `/client/…` always; `/demo` with `dev`; `/websocket-test` with `dev` or `test_page`, `/console`
    with `dev` or `console` (elsewhere they are a 404)."""
    found = page_files()
    links, names = list(_LINKS), {"demo.css", "landing.css", "landing.js"}
    routes: list[Any] = [_client(client_files())]
    if dev or console:
        links.append(_CONSOLE)
        names |= {name for name in found if name.startswith(("console.", "console-"))} - {"console.html"}
        routes.append(_page("/console", found["console.html"]))
    if dev:
        links.append(_DEMO)
        routes += _demo(found)
    if dev or test_page:
        links.append(_TEST)
        names |= {name for name in found if name.startswith(("test-", "websocket-test."))}
        routes += _test_page(found, version, dev=dev)
    return [
        _landing(found, version, links),
        _served("/pages", {name: found[name] for name in names}),
        *routes,
    ]


def _landing(found: Files, version: str, links: Sequence[tuple[str, str, str]]) -> Any:
    page = Template(found["landing.html"].content.decode())
    text = page.substitute(version=escape(version), links=_cards(links))
    return _page("/", static_file("landing.html", text.encode()))


def _cards(links: Sequence[tuple[str, str, str]]) -> str:
    return "\n".join(
        f'        <li><a href="{path}"><b>{name}</b> <span>{about}</span></a></li>'
        for path, name, about in links
    )


def _demo(found: Files) -> list[Any]:
    names = [name for name in found if name.startswith("demo.")]
    return [_page("/demo", found["demo.html"]), _served("/demo", {name: found[name] for name in names})]


def _test_page(found: Files, version: str, *, dev: bool) -> list[Any]:
    facts = static_file("facts.json", msgspec.json.encode({"dev": dev, "version": version}))
    return [
        _page("/websocket-test", found["websocket-test.html"]),
        _page("/websocket-test/facts.json", facts),
    ]


def _page(path: str, file: StaticFile) -> Any:
    @get(path, name=f"page:{path}", **_OPTIONS)
    def page(request: Asked) -> Response[bytes]:
        return answer(request, file)

    return page


def _served(path: str, found: Files) -> Any:
    """Files by name below `path`."""

    @get(path + "/{name:str}", name=f"files:{path}", **_OPTIONS)
    def one(request: Asked, name: FromPath[str]) -> Response[bytes]:
        if name not in found:
            raise NotFoundException
        return answer(request, found[name])

    return one


def _client(found: Files) -> Any:
    """The client's modules import one another by relative paths, so they keep their folders."""

    @get("/client/{path:path}", name="files:/client", **_OPTIONS)
    def module(request: Asked, path: FromPath[str]) -> Response[bytes]:
        file = found.get(path.removeprefix("/"))
        if file is None:
            raise NotFoundException
        return answer(request, file)

    return module
