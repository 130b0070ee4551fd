"""The routes do what the OpenAPI document says: answers that are documented, refusals that have a code, and
a path that names what the caller wrote.
"""

from __future__ import annotations

import json
import random
from typing import Any

import httpx
import pytest

from dualcast.gateway.problems import CODES
from support.rest_app import NOTE, Rest, admin, auth, problem, publisher, rest

pytestmark = pytest.mark.anyio

SEGMENTS = (
    *(
        "a",
        "T1",
        "c1",
        "alice",
        "1",
        "%00",
        "a%0Db",
        "%ff",
        "%C3%A9",
        "%ED%A0%80",
        "a%2Fb",
        "%25",
        "%",
        "%zz",
    ),
    *("%2e%2e", "x" * 300, "all", "task:T1", "conversation:c1", "topic:*", "-1", "9" * 30, "9" * 4400, "1e3"),
    *("%F0%9F%98%80", "a;b", "%e2%80%a8", "%20", "+", "read", "%D9%A1"),
)
TEXTS = (
    *(
        "",
        "a",
        "x" * 129,
        "x" * 257,
        "x" * 5000,
        "é" * 129,
        "\0",
        "a\nb",
        "a\u2028b",
        "a/b",
        "%",
        "all",
        "1e400",
    ),
    *("user:alice", "\ud800", " ", '"', "-1", "null", "alice", "c1", "T1"),
)
NUMBERS = (0, 1, -1, 2**31, 2**53, 2**63, 2**64, -(2**63) - 1, 10**400, 0.5, 1e308, -0.0, True, None)
BODIES = (
    *(b"", b"null", b"[]", b'"x"', b"{", b"\xff", b"{} {}", b"NaN", b"1e400", b"[" * 5000, b'{"a":' * 5000),
    *(b'{"data":' + b"[" * 70 + b"]" * 70 + b"}", b'{"data":{"x":1e400}}', b'{"owner":"\\ud800"}'),
    *(b'{"x":"' + b"y" * 70_000 + b'"}', b'{"data":{"\\ud800":1}}', b'\xef\xbb\xbf{"a":1}'),
)


class Shapes:
    """Values for the schemas of a document, mostly right ones."""

    def __init__(self, document: Any, seed: int) -> None:
        self._schemas = document["components"]["schemas"]
        self._random = random.Random(seed)
        self.choice = self._random.choice
        self.chance = lambda part: self._random.random() < part

    def right(self, schema: Any) -> Any:
        while "$ref" in schema:
            schema = self._schemas[schema["$ref"].rpartition("/")[2]]
        for key in ("oneOf", "anyOf"):
            if key in schema:
                return self.right(self.choice(schema[key]))
        if "enum" in schema:
            return self.choice(schema["enum"])
        kind = schema.get("type")
        kind = self.choice(kind) if isinstance(kind, list) else kind
        if kind == "object":
            members = schema.get("properties", {}).items()
            needed = schema.get("required", ())
            return {key: self.right(one) for key, one in members if key in needed or self.chance(0.4)}
        if kind == "array":
            return [self.right(schema.get("items", {})) for _ in range(self.choice((0, 1, 2)))]
        plain = {"integer": (0, 1, 2), "number": (0, 1.5), "boolean": (True, False), "null": (None,)}
        return self.choice(plain.get(str(kind), ("alice", "bob", "c1", "T1", "mobile", "task:T1")))

    def wrong(self, value: Any) -> Any:
        if isinstance(value, dict) and value and self.chance(0.85):
            key = self.choice(list(value))
            return {**value, key: self.wrong(value[key])}
        if isinstance(value, list) and value and self.chance(0.7):
            return [*value[1:], self.wrong(value[0])]
        deep: Any = 1
        for _ in range(self.choice((1, 63, 65, 200))):
            deep = {"a": deep} if self.chance(0.5) else [deep]
        return self.choice((self.choice(TEXTS), self.choice(NUMBERS), deep, {"a": "x" * 17_000}, {}, []))


async def furnished(app: Rest) -> None:
    """Things the routes can find."""
    for path, body in (
        ("/v1/tasks/T1", {"owner": "alice", "batch": "T1"}),
        ("/v1/conversations/c1/participants", {"participants": ["alice", "bob"]}),
    ):
        answer = await app.client.put(path, headers=publisher(), json=body)
        assert answer.status_code in (200, 201), answer.text
    message = {"content": "x", "id": "c1"}
    await app.client.post("/v1/conversations/c1/messages", headers=auth("alice"), json=message)
    note = {**NOTE, "id": "c1"}
    assert (await app.client.post("/v1/notifications", headers=publisher(), json=note)).status_code == 201
    await app.connect("c1", "alice")


def checked(answer: httpx.Response, operation: Any, sent: object) -> None:
    """Documented, or a problem with a known code; never the server's fault."""
    assert answer.status_code < 500, (sent, answer.text)
    if answer.status_code < 400:
        assert str(answer.status_code) in operation["responses"], (sent, answer.status_code)
        return
    assert answer.headers["content-type"] == "application/problem+json", (sent, answer.text)
    assert answer.json()["code"] in CODES, sent


@pytest.mark.parametrize("seed", [1, 2])
async def test_no_request_is_the_servers_fault_and_every_answer_is_documented(seed: int) -> None:
    async with rest() as app:
        document = (await app.client.get("/docs/openapi.json")).json()
        shapes = Shapes(document, seed)
        await furnished(app)
        callers = (admin(), admin(), publisher(), auth("alice"), auth("bob"), {})
        routes = [
            (method.upper(), path, operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
            if path.startswith("/v1/") and path not in ("/v1/stream", "/v1/socket")
        ]
        for method, template, operation in routes * 25:
            path, query = template, []
            for parameter in operation.get("parameters", ()):
                value = shapes.choice(
                    SEGMENTS if shapes.chance(0.4) else ("T1", "c1", "alice", "1", "task:T1")
                )
                if parameter["in"] == "path":
                    path = path.replace("{" + parameter["name"] + "}", value)
                elif shapes.chance(0.4):
                    query.append(f"{parameter['name']}={value}")
            headers, body = dict(shapes.choice(callers)), None
            found = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if found is not None:
                body = shapes.right(found["schema"])
                body = shapes.wrong(body) if shapes.chance(0.6) else body
                body = shapes.choice(BODIES) if shapes.chance(0.1) else json.dumps(body).encode()
                headers["Content-Type"] = shapes.choice(("application/json",) * 9 + ("text/plain",))
            request = app.client.build_request(method, "/", headers=headers, content=body)
            target = path + ("?" + "&".join(query) if query else "")
            request.url = httpx.URL(scheme="http", host="dualcast.test", raw_path=target.encode())
            checked(await app.client.send(request), operation, (method, target, body))


async def test_a_field_called_data_is_blamed_by_its_own_path() -> None:
    async with rest() as app:
        for method, path, body, blamed in (
            ("PUT", "/v1/tasks/T1", {"owner": "a", "data": 5}, "$.data"),
            ("POST", "/v1/tasks/T1", {"data": []}, "$.data"),
            ("POST", "/v1/direct-messages", {"user": "a", "data": "x"}, "$.data"),
            ("POST", "/v1/direct-messages", {"user": "a"}, "$"),
            ("POST", "/v1/direct-messages", {"user": "a", "data": {}, "data.x": 1}, "$"),
            ("PUT", "/v1/tasks/T1", [], "$"),
        ):
            answer = await app.client.request(method, path, headers=publisher(), json=body)
            errors = problem(answer, 422, "invalid-body")["errors"]
            assert [error["path"] for error in errors] == [blamed], body


async def test_the_stream_is_described_with_all_its_parameters() -> None:
    """PROTO-7, PROTO-10, PROTO-11, PROTO-13; and a repeated publication is an answer of its own."""
    async with rest() as app:
        paths = (await app.client.get("/docs/openapi.json")).json()["paths"]
        names = {parameter["name"] for parameter in paths["/v1/stream"]["get"]["parameters"]}
        assert names == {
            *("channel", "channels", "cursor", "device", "device_id", "instance", "ticket", "token"),
        }
        for path in ("/v1/notifications", "/v1/publish"):
            assert {"200", "201"} <= set(paths[path]["post"]["responses"])


async def test_a_wrong_method_on_a_path_that_is_none_is_not_found() -> None:
    async with rest() as app:
        for path in ("/v1/push/dead/x/retry", "/v1/push/dead/x"):
            problem(await app.client.get(path, headers=admin()), 404, "not-found")
        answer = await app.client.get("/v1/push/dead/1/retry", headers=admin())
        problem(answer, 405, "method-not-allowed")
        assert "POST" in answer.headers["allow"]


async def test_a_parameter_is_blamed_by_the_name_it_has_in_the_url() -> None:
    async with rest() as app:
        for path, blamed in (
            ("/v1/tasks?state=x", ["state"]),
            ("/v1/tasks?state=x&limit=y", ["state", "limit"]),
            ("/v1/users/alice/notifications?state=x", ["state"]),
        ):
            errors = problem(await app.client.get(path, headers=auth("alice")), 422, "invalid-query")[
                "errors"
            ]
            assert [error["path"].partition("[")[0] for error in errors] == blamed, errors
