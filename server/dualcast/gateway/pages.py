"""The try-out page of `serve --dev`: an EventSource and a WebSocket side by side."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from litestar import Response, get
from litestar.exceptions import NotFoundException

from .authentication import PUBLIC

MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def _files() -> dict[str, bytes]:
    folder = files("dualcast.gateway") / "static"
    return {item.name: item.read_bytes() for item in folder.iterdir() if item.is_file()}


def page_routes() -> list[Any]:
    """`/demo` and its files, read once: there is no path from a request to the file system."""
    found = _files()

    def answer(name: str) -> Response[bytes]:
        if name not in found:
            raise NotFoundException
        media_type = MEDIA_TYPES[name.rpartition(".")[2]]
        return Response(found[name], media_type=f"{media_type}; charset=utf-8", headers=HEADERS)

    @get("/demo", opt={PUBLIC: True}, include_in_schema=False, sync_to_thread=False)
    def demo() -> Response[bytes]:
        return answer("demo.html")

    @get("/demo/{name:str}", opt={PUBLIC: True}, include_in_schema=False, sync_to_thread=False)
    def demo_file(name: str) -> Response[bytes]:
        return answer(name)

    return [demo, demo_file]
