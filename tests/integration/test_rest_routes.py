"""Every route: denied without a token unless listed, blind to other tenants, errors in one format, described
in /docs.
"""

from __future__ import annotations

import re
from typing import Any

import httpx
import msgspec
import pytest
import yaml
from litestar import get
from litestar.handlers.asgi_handlers import ASGIRouteHandler

from dualcast.bus.memory import MemoryBus
from dualcast.bus.port import Health
from dualcast.gateway.commands import SPACE, read_close
from dualcast.gateway.problems import CODES
from dualcast.gateway.services import ConnectionInfo, GatewaySettings
from dualcast.model.errors import BusUnavailable, DualcastError
from dualcast.model.publication import Draft, Quota, Receipt
from support.rest_app import Rest, admin, auth, code, publish, publisher, rest, served
from support.route_table import BACKENDS, PUBLIC, TENANT_SCOPED

pytestmark = pytest.mark.anyio


def filled(path: str) -> str:
    """`path` with values in place of its parameters."""
    values = {"channel": "topic:x", "number": "1"}
    return re.sub(r"{(\w+)}", lambda name: values.get(name[1], "c1"), path)


def routes(app: Rest) -> list[tuple[str, str]]:
    """(method, path) of every route of the application, parameters filled in."""
    found = []
    for route in app.app.routes:
        path = filled(route.path_format)
        handlers = getattr(route, "route_handlers", None) or [route.route_handler]  # type: ignore[union-attr]
        for handler in handlers:
            if isinstance(handler, ASGIRouteHandler):
                found.append(("POST", path))
            else:
                found += [(method, path) for method in handler.http_methods if method != "OPTIONS"]
    return found


async def test_every_route_denies_by_default() -> None:
    async with rest() as app:
        found = routes(app)
        assert {path for _, path in found if path in PUBLIC} == PUBLIC
        assert sorted(f"{method} {path}" for method, path in found if path not in PUBLIC) == sorted(
            TENANT_SCOPED
        )
        for method, path in found:
            answer = await app.client.request(method, path)
            if path in PUBLIC:
                assert answer.status_code == 200, path
                continue
            assert (answer.status_code, code(answer)) == (401, "unauthorized"), path
            assert answer.headers["www-authenticate"].startswith("Bearer")
            bad = await app.client.request(method, path, headers={"Authorization": "Bearer x.y.z"})
            assert (bad.status_code, code(bad)) == (401, "unauthorized"), path
            foreign = auth("alice", "admin", tenant="nobody")
            unknown = await app.client.request(method, path, headers=foreign)
            assert unknown.status_code == 401, path


async def test_a_new_route_is_denied_without_saying_so() -> None:
    @get("/v1/new")
    async def new() -> str:
        return "secret"

    async with rest(extra_handlers=[new]) as app:
        assert (await app.client.get("/v1/new")).status_code == 401
        assert (await app.client.get("/v1/new", headers=auth("alice"))).status_code == 200


async def test_roles() -> None:
    async with rest() as app:
        for entry in sorted(BACKENDS):
            method, path = entry.split()
            answer = await app.client.request(method, path, headers=auth("alice"), json={})
            assert (answer.status_code, code(answer)[-5:]) == (403, "-only"), entry
        for path in ("/v1/connections", "/v1/connections/c1"):
            answer = await app.client.delete(path, headers=publisher())
            assert code(answer) == "admin-only"


async def test_tenants_do_not_see_each_other() -> None:
    async with rest() as app:
        cursor = await publish(app, "topic:x", {"secret": 1})
        put = await app.client.put(
            "/v1/channels/topic:x/grants", headers=publisher(), json={"members": ["bob"]}
        )
        assert put.status_code == 200
        app.directory.rows["default"] = [
            ConnectionInfo(
                id="c1", user="bob", transport="ws", dialect="native", channels=(), connected_at="x"
            )
        ]
        await app.connect("c1", "bob")
        theirs = admin("other")
        page = (await app.client.get("/v1/channels/topic:x/history", headers=theirs)).json()
        assert page["publications"] == []
        foreign = await app.client.get(f"/v1/channels/topic:x/history?after={cursor}", headers=theirs)
        assert foreign.json()["gaps"][0]["reason"] == "unknown"
        assert (await app.client.get("/v1/channels/topic:x/grants", headers=theirs)).json()["members"] == []
        assert (await app.client.get("/v1/connections", headers=theirs)).json()["connections"] == []
        bob = auth("bob", tenant="other")
        assert code(await app.client.get("/v1/channels/topic:x/history", headers=bob)) == "forbidden"
        await app.client.delete("/v1/channels/topic:x/grants", headers=theirs)
        mine = await app.client.get("/v1/channels/topic:x/grants", headers=publisher())
        assert mine.json()["members"] == ["bob"]
        # A close command names its own tenant: the other's connection of the same id is not meant.
        await app.client.delete("/v1/connections/c1", headers=theirs)
        (value,) = await app.state.list(SPACE)
        command = await read_close(app.state, value.key)
        assert command is not None and (command.tenant, command.connection) == ("other", "c1")
        # Neither are users of the same name.
        await app.client.delete("/v1/connections?user=bob", headers=theirs)
        assert (await app.client.get("/v1/connections", headers=auth("bob"))).status_code == 200


@pytest.mark.parametrize(
    ("path", "status", "wanted"),
    [
        ("/v1/channels/topic:x/history?after=nonsense", 422, "bad-cursor"),
        ("/v1/channels/topic:x/history?after=e-99999999999999999999", 422, "bad-cursor"),
        ("/v1/channels/topic:x/history?limit=0", 422, "invalid-query"),
        ("/v1/channels/topic:x/history?limit=many", 422, "invalid-query"),
        ("/v1/channels/nokind/history", 422, "bad-channel"),
        ("/v1/channels/topic:%00/history", 422, "bad-channel"),
        ("/v1/channels/topic:%ff/history", 422, "bad-channel"),
        ("/v1/channels/topic:%0d%0a/history", 422, "bad-channel"),
        ("/v1/nothing", 404, "not-found"),
    ],
)
async def test_bad_paths_and_queries(path: str, status: int, wanted: str) -> None:
    async with rest() as app, served(app.app) as base, httpx.AsyncClient(base_url=base) as client:
        answer = await client.get(path, headers=admin())
        assert (answer.status_code, code(answer)) == (status, wanted)


@pytest.mark.parametrize(
    ("body", "kind", "status", "wanted"),
    [
        (b"{", "application/json", 400, "malformed-json"),
        (b"{}", "text/plain", 415, "unsupported-media-type"),
        (b"owner=a", "application/x-www-form-urlencoded", 415, "unsupported-media-type"),
        (b"", "application/json", 422, "invalid-body"),
        (b'{"members":[1]}', "application/json", 422, "invalid-body"),
        (b'{"who":1}', "application/json", 422, "invalid-body"),
        (b'{"members":["\xff"]}', "application/json", 400, "bad-utf8"),
        (b'{"members":["a\\nb"]}', "application/json", 422, "bad-channel"),
        (b'{"members":' + b"[" * 20_000, "application/json", 422, "too-deep"),
        (b'{"members":["' + b"x" * 70_000 + b'"]}', "application/json", 413, "payload-too-large"),
    ],
)
async def test_bad_bodies_of_the_other_routes(body: bytes, kind: str, status: int, wanted: str) -> None:
    async with rest() as app:
        answer = await app.client.put(
            "/v1/channels/topic:x/grants", headers={**publisher(), "Content-Type": kind}, content=body
        )
        assert (answer.status_code, code(answer)) == (status, wanted), answer.text
        assert (await app.client.get("/v1/channels/topic:x/grants", headers=publisher())).json()[
            "version"
        ] == 0


class BrokenBus(MemoryBus):
    """A bus that is away."""

    async def append(self, draft: Draft, quota: Quota | None = None) -> Receipt:
        raise BusUnavailable("the event bus cannot be reached", retry_after_s=2)

    async def append_many(self, drafts: Any, quota: Quota | None = None) -> list[Receipt | DualcastError]:
        return [BusUnavailable("the event bus cannot be reached", retry_after_s=2) for _ in drafts]

    async def probe(self) -> Health:
        return Health(False, "redis", command_s=0.001, detail="the live path does not echo")


async def test_a_bus_that_is_away() -> None:
    async with rest(bus=BrokenBus()) as app:
        note = {"to": {"all": True}, "title": "x"}
        for path, body in (("/v1/notifications", note), ("/v1/notifications/batch", [note, note])):
            answer = await app.client.post(path, headers=publisher(), json=body)
            assert (answer.status_code, code(answer)) == (503, "bus-unavailable")
            assert answer.headers["retry-after"] == "2" and answer.json()["retryable"] is True
        ready = await app.client.get("/readyz")
        assert (ready.status_code, code(ready)) == (503, "not-ready")
        assert "echo" in ready.json()["detail"]
        assert (await app.client.get("/healthz")).status_code == 200


async def test_not_ready_while_draining() -> None:
    async with rest(draining=True) as app:
        assert code(await app.client.get("/readyz")) == "draining"
        assert (await app.client.get("/healthz")).status_code == 200


async def test_unforeseen_errors_do_not_show_their_text() -> None:
    @get("/v1/broken", opt={"public": True})
    async def broken() -> None:
        raise RuntimeError("secret text")

    async with rest(extra_handlers=[broken]) as app:
        answer = await app.client.get("/v1/broken")
        assert (answer.status_code, code(answer)) == (500, "internal")
        assert "secret" not in answer.text


async def test_head_options_and_wrong_methods() -> None:
    async with rest() as app, served(app.app) as base, httpx.AsyncClient(base_url=base) as client:
        head = await client.head("/healthz")
        assert (head.status_code, head.content) == (200, b"")
        assert (await client.head("/v1/connections")).status_code == 401
        wrong = await client.patch("/v1/channels/topic:x/grants", headers=publisher())
        assert (wrong.status_code, code(wrong)) == (405, "method-not-allowed")
        assert {"GET", "PUT", "POST", "DELETE"} <= set(wrong.headers["allow"].split(", "))


async def test_cors_denies_by_default() -> None:
    async with rest() as app:
        for origin, allowed in (("https://app.example.com", True), ("https://evil.example.com", False)):
            preflight = await app.client.options(
                "/v1/publish", headers={"Origin": origin, "Access-Control-Request-Method": "POST"}
            )
            answer = await app.client.get("/nothing", headers={"Origin": origin})
            for found in (preflight, answer):
                assert found.headers.get("access-control-allow-origin") == (origin if allowed else None)
                assert found.headers["vary"] == "Origin"
            cookie = {"Cookie": "dualcast_token=" + auth("alice")["Authorization"][7:]}
            mine = await app.client.get("/v1/connections", headers={"Origin": origin, **cookie})
            assert mine.status_code == (200 if allowed else 403)


async def test_metrics() -> None:
    async with rest() as app:
        await publish(app, "topic:x")
        await app.client.post("/v1/publish", headers=publisher(), json={"type": "x"})
        counters = app.services.counters.delivery("default", "sse")
        counters.connections, counters.delivered = 3, 7
        counters.latency(0, 2)
        text = (await app.client.get("/metrics")).text
        for line in (
            'dualcast_published_total{tenant="default"} 1.0',
            'dualcast_publish_failures_total{code="bad-target",tenant="default"} 1.0',
            'dualcast_connections{tenant="default",transport="sse"} 3.0',
            'dualcast_deliveries_total{tenant="default",transport="sse"} 7.0',
            'dualcast_delivery_latency_seconds_bucket{le="+Inf",tenant="default",transport="sse"} 2.0',
            "dualcast_bus_appended_total 1.0",
        ):
            assert line in text.splitlines(), line
        assert "process_resident_memory_bytes" in text
    async with rest(settings=GatewaySettings(metrics_token="m")) as app:
        assert (await app.client.get("/metrics")).status_code == 401
        assert (await app.client.get("/metrics", headers={"Authorization": "Bearer m"})).status_code == 200


async def test_docs_are_complete_and_need_no_other_host() -> None:
    async with rest() as app:
        document = (await app.client.get("/docs/openapi.json")).json()
        assert yaml.safe_load((await app.client.get("/docs/openapi.yaml")).text) == document
        described = {
            (method.upper(), filled(path))
            for path, methods in document["paths"].items()
            for method in methods
        }
        wanted = {entry for entry in routes(app) if not entry[1].startswith(("/docs", "/asyncapi"))}
        assert wanted <= described
        for page in ("/docs", "/docs/errors"):
            text = (await app.client.get(page)).text
            assert "http://" not in text and "https://" not in text and "<script" not in text
        errors = (await app.client.get("/docs/errors")).text
        assert all(f'id="{name}"' in errors for name in CODES)
        refs(document)


async def test_asyncapi_is_an_asyncapi_document() -> None:
    async with rest() as app:
        document = yaml.safe_load((await app.client.get("/asyncapi.yaml")).text)
        assert document["asyncapi"] == "3.0.0"
        assert {"title", "version"} <= set(document["info"])
        assert document["channels"]["socket"]["address"] == "/v1/socket"
        assert {"subscribe", "welcome", "publication", "bye"} <= set(
            document["channels"]["socket"]["messages"]
        )
        for operation in document["operations"].values():
            assert operation["action"] in ("send", "receive")
        refs(document)


def refs(document: dict[str, Any]) -> None:
    """Every `$ref` of a document points at something in it."""

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(target := value.get("$ref"), str):
                found: Any = document
                for part in target.removeprefix("#/").split("/"):
                    found = found[part]
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(document)


def test_every_error_class_has_a_documented_code() -> None:
    import dualcast.gateway.routes  # noqa: F401  (everything REST can raise is imported by it)

    pending, missing = [DualcastError], set()
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        if kind.__module__.startswith("dualcast.") and not kind.__module__.startswith(
            ("dualcast.settings", "dualcast.cli", "dualcast.session", "dualcast.transport", "dualcast.bus")
        ):
            missing |= {kind.code} - set(CODES)
    assert not missing
    assert msgspec.json.encode(CODES)
