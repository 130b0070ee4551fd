"""`/docs`: the REST interface as a page without script and without any other host, the document as JSON and
YAML, and the list of error codes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import msgspec
import yaml
from litestar import Response, get

from .authentication import PUBLIC
from .openapi import cached_document
from .problems import CODES

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
}
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1b1f24; background: #fff }
code, pre { font: 13px/1.5 ui-monospace, monospace }
code { overflow-wrap: anywhere }
pre { background: #f4f5f7; padding: .8rem; overflow: auto; border-radius: 6px }
summary { cursor: pointer; padding: .3rem 0 }
b.m { display: inline-block; width: 4.5rem }
td, th { text-align: left; padding: .2rem .8rem .2rem 0; vertical-align: top }
@media (prefers-color-scheme: dark) {
  body { color: #e6e8eb; background: #14171a }
  pre { background: #1f2327 }
  a { color: #8ab4f8 }
}
"""
_LINKS = """<p><a href="/docs/openapi.json">OpenAPI JSON</a> · <a href="/docs/openapi.yaml">YAML</a> ·
<a href="/asyncapi.yaml">AsyncAPI (sockets and streams)</a> · <a href="/docs/errors">Error codes</a></p>"""


def docs_routes(handlers: Sequence[Any], version: str) -> list[Any]:
    """The four pages about `handlers`."""
    options: dict[str, Any] = {"opt": {PUBLIC: True}, "include_in_schema": False, "sync_to_thread": False}

    @get("/docs", name="docs", **options)
    def page() -> Response[bytes]:
        return _html(_document_page(cached_document(handlers, version)))

    @get("/docs/openapi.json", name="openapi-json", **options)
    def as_json() -> Response[bytes]:
        return Response(
            msgspec.json.encode(cached_document(handlers, version)), media_type="application/json"
        )

    @get("/docs/openapi.yaml", name="openapi-yaml", **options)
    def as_yaml() -> Response[bytes]:
        # Through JSON: shared parts would become YAML anchors, which not every reader knows.
        plain = json.loads(msgspec.json.encode(cached_document(handlers, version)))
        text: str = yaml.dump(plain, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=110)
        return Response(text.encode(), media_type="application/yaml")

    @get("/docs/errors", name="docs-errors", **options)
    def errors() -> Response[bytes]:
        rows = "".join(
            f'<tr id="{code}"><td><code>{code}</code></td><td>{escape(title)}</td></tr>'
            for code, title in sorted(CODES.items())
        )
        return _html(
            "<h1>Error codes</h1><p>Every error is <code>application/problem+json</code> (RFC 9457); compare "
            "<code>code</code>.</p><table>" + rows + "</table>"
        )

    return [page, as_json, as_yaml, errors]


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _html(content: str) -> Response[bytes]:
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    text = (
        f'<!doctype html><html lang="en">{head}<title>dualcast</title><style>{_STYLE}</style>{content}</html>'
    )
    return Response(text.encode(), media_type="text/html", headers=_HEADERS)


def _document_page(document: Mapping[str, Any]) -> str:
    info = document["info"]
    title = escape(f"{info['title']} {info['version']}")
    parts = [f"<h1>{title}</h1><p>{escape(info.get('description', ''))}</p>", _LINKS]
    for tag, operations in _by_tag(document).items():
        parts.append(f"<h2>{escape(tag)}</h2>")
        parts += [_operation(*found) for found in operations]
    parts.append("<h2>Schemas</h2>")
    for name, schema in sorted(document["components"]["schemas"].items()):
        text = f"<summary><code>{escape(name)}</code></summary>{_pre(schema)}"
        parts.append(f'<details id="schema-{escape(name)}">{text}</details>')
    return "".join(parts)


def _by_tag(document: Mapping[str, Any]) -> dict[str, list[tuple[str, str, Mapping[str, Any]]]]:
    found: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
    for path, method, operation in _operations(document):
        found.setdefault((operation.get("tags") or ["other"])[0], []).append((path, method, operation))
    return found


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if isinstance(operation, Mapping):
                yield path, method, operation


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(found['name'])}</code></td><td>{escape(found['in'])}</td>"
        f"<td>{escape(found.get('description') or '')}</td></tr>"
        for found in operation.get("parameters") or ()
    )
    body = operation.get("requestBody")
    name = f'<b class="m">{escape(method.upper())}</b> <code>{escape(path)}</code>'
    return (
        f"<details><summary>{name} {escape(operation.get('summary') or '')}</summary>"
        f"<p>{escape(operation.get('description') or '')}</p>"
        + (f"<table>{rows}</table>" if rows else "")
        + (f"<p>Body</p>{_pre(body['content'])}" if body else "")
        + f"<p>Answers</p>{_pre(operation['responses'])}</details>"
    )


def _pre(value: Any) -> str:
    return f"<pre>{escape(json.dumps(value, indent=2, ensure_ascii=False))}</pre>"
