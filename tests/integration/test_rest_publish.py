"""POST /v1/notifications and /v1/publish: what goes in, what comes out, and that bad input changes
nothing.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from dualcast.gateway.limits import RateSettings
from dualcast.gateway.services import GatewaySettings
from dualcast.tenancy.model import Tenant
from support.rest_app import NOTE, TenantSettings, admin, auth, problem, publisher, rest, served

pytestmark = pytest.mark.anyio


async def test_notification_is_appended_in_the_canonical_shape() -> None:
    async with rest() as app:
        answer = await app.client.post(
            "/v1/notifications",
            headers=publisher(),
            json={
                "to": {"user": "alice"},
                "type": "analysis",
                "title": "分析完成",
                "content": "000001",
                "link": "/stocks/000001",
                "source": "analysis",
                "data": {"a": [1, 2]},
                "ttl_s": 60,
            },
        )
        assert answer.status_code == 201
        receipt = answer.json()
        assert receipt["duplicate"] is False
        (entry,) = await app.appended("user:alice")
        found = entry.publication
        assert receipt == {
            "id": found.id,
            "cursor": f"{found.epoch}-{found.offset}",
            "duplicate": False,
        }
        assert found.type == "notification"
        assert found.expires_ms == found.time_ms + 60_000
        data = json.loads(found.data)
        assert data.pop("created_at").endswith("000Z")
        assert data.pop("expires_at").endswith("000Z")
        assert data == {
            "id": found.id,
            "type": "analysis",
            "title": "分析完成",
            "content": "000001",
            "link": "/stocks/000001",
            "level": "info",
            "source": "analysis",
            "priority": "normal",
            "status": "unread",
            "data": {"a": [1, 2]},
        }


@pytest.mark.parametrize(
    ("to", "channels"),
    [
        ({"user": "a@example.com"}, ["user:a@example.com"]),
        ({"users": ["a", "b", "a"]}, ["user:a", "user:b"]),
        ({"channel": "topic:x/y"}, ["topic:x/y"]),
        ({"channels": ["topic:x", "room:中文"]}, ["topic:x", "room:中文"]),
        ({"all": True}, ["all"]),
    ],
)
async def test_every_kind_of_target(to: dict[str, Any], channels: list[str]) -> None:
    async with rest() as app:
        answer = await app.client.post("/v1/notifications", headers=publisher(), json={**NOTE, "to": to})
        assert answer.status_code == 201
        assert sorted(entry.channel for entry in await app.appended(*channels)) == sorted(channels)
        assert await app.offset() == 1


BAD_BODIES: list[tuple[bytes, int, str]] = [
    (b"", 400, "malformed-json"),
    (b"{", 400, "malformed-json"),
    (b"nul", 400, "malformed-json"),
    (b'{"to":{"user":"a"},"title":"x"} trailing', 400, "malformed-json"),
    (b'{"to":{"user":"a"},"title":"a\nb"}', 400, "malformed-json"),
    (b"[]", 422, "invalid-body"),
    (b"{}", 422, "invalid-body"),
    (b'{"to":{"user":"a"},"title":5}', 422, "invalid-body"),
    (b'{"to":{"user":"a"},"title":""}', 422, "invalid-body"),
    (b'{"to":{"user":"a"},"title":" "}', 422, "invalid-body"),
    (b'{"to":{"user":"a"},"title":"x","extra":1}', 422, "invalid-body"),
    (b'{"to":{"user":"a","uesr":"b"},"title":"x"}', 422, "invalid-body"),
    (b'{"to":{"user":"a"},"title":"x","data":[]}', 422, "invalid-body"),
    (b'{"to":{"user":"a"},"title":"x","data":{"a":1e999}}', 422, "invalid-body"),
    (b'{"to":{"user":"a"},"title":"x","data":{"a":NaN}}', 400, "malformed-json"),
    (b'{"to":{"user":"a"},"title":"x","data":{"a":"\\ud800"}}', 400, "malformed-json"),
    (b'{"to":{"user":"a"},"title":"x","ttl_s":0}', 422, "invalid-body"),
    (b'{"to":{"user":"a"},"title":"x","ttl_s":99999999999999999999}', 422, "invalid-body"),
    (b'{"to":{"user":"a"},"title":"x","level":"loud"}', 422, "invalid-body"),
    (b'{"to":{},"title":"x"}', 422, "bad-target"),
    (b'{"to":{"user":"a","all":true},"title":"x"}', 422, "bad-target"),
    (b'{"to":{"users":[]},"title":"x"}', 422, "invalid-body"),
    (b'{"to":{"channel":"nokind"},"title":"x"}', 422, "bad-channel"),
    (b'{"to":{"channel":"topic:a\\u0000"},"title":"x"}', 422, "bad-channel"),
    (b'{"to":{"user":"a\\r\\nb"},"title":"x"}', 422, "bad-channel"),
    (b'{"to":{"user":"a"},"title":"x","type":"a\\r\\nid: 1"}', 422, "bad-type"),
    (b'{"to":{"user":"a"},"title":"x","id":"a\\nb"}', 422, "bad-id"),
    (b'{"to":{"user":"a"},"title":"x","id":"a b"}', 422, "bad-id"),
    (b'{"to":{"user":"a"},"title":"x","idempotency_key":"a\\u0000"}', 422, "bad-idempotency-key"),
    (b'{"to":{"user":"a"},"title":"x","conflation_key":"\\n"}', 422, "bad-key"),
    (b'{"to":{"user":"a"},"title":"\xff"}', 400, "bad-utf8"),
    (b'{"to":{"user":"a"},"title":"x","data":{"a":"\xff"}}', 400, "bad-utf8"),
    (b'{"to":{"user":"a"},"title":"x","data":{"a":"\xed\xa0\x80"}}', 400, "bad-utf8"),
    (b'{"to":{"user":"a"},"title":"x","data":{"a":' + b"[" * 100 + b"]" * 100 + b"}}", 422, "too-deep"),
    (
        b'{"to":{"user":"a"},"title":"x","data":' + b'{"a":' * 9000 + b"1" + b"}" * 9000 + b"}",
        422,
        "too-deep",
    ),
    (b"[" * 60_000, 422, "invalid-body"),
    (b'{"to":{"user":"a"},"title":"' + b"x" * 65_536 + b'"}', 413, "payload-too-large"),
]


@pytest.mark.parametrize(("body", "status", "code"), BAD_BODIES, ids=range(len(BAD_BODIES)))
async def test_bad_bodies_are_refused_and_nothing_is_appended(body: bytes, status: int, code: str) -> None:
    async with rest() as app:
        headers = {**publisher(), "Content-Type": "application/json"}
        found = problem(
            await app.client.post("/v1/notifications", headers=headers, content=body), status, code
        )
        assert found["retryable"] is False
        assert "Traceback" not in found["detail"] and "msgspec" not in str(found)
        assert await app.offset() == 0
        fine = await app.client.post("/v1/notifications", headers=publisher(), json=NOTE)
        assert fine.status_code == 201


async def test_a_wrong_shape_names_its_path() -> None:
    async with rest() as app:
        answer = await app.client.post(
            "/v1/notifications", headers=publisher(), json={**NOTE, "audience": {"users": ["a", 3]}}
        )
        (error,) = problem(answer, 422, "invalid-body")["errors"]
        assert error["path"] == "$.audience.users[1]"
        assert "str" in error["message"]


BAD_EVENTS: list[tuple[dict[str, Any], str]] = [
    ({"type": "x"}, "bad-target"),
    ({"type": "x", "channel": "all", "channels": ["all"]}, "bad-target"),
    ({"type": "x", "channels": []}, "invalid-body"),
    ({"type": "", "channel": "all"}, "invalid-body"),
    ({"type": "a\rb", "channel": "all"}, "bad-type"),
    ({"type": "a\u2028b", "channel": "all"}, "bad-type"),
    ({"type": "é" * 65, "channel": "all"}, "bad-type"),
    *[
        ({"type": name, "channel": "all"}, "reserved-type")
        for name in ("message", "error", "gap", "open", "notification")
    ],
]


@pytest.mark.parametrize(("body", "code"), BAD_EVENTS, ids=range(len(BAD_EVENTS)))
async def test_bad_publications(body: dict[str, Any], code: str) -> None:
    async with rest() as app:
        problem(await app.client.post("/v1/publish", headers=publisher(), json=body), 422, code)
        assert await app.offset() == 0


async def test_data_is_one_line_and_otherwise_unchanged() -> None:
    async with rest() as app:
        data = b'{"a" :\r\n [1.50, 10000000000000000000001],\n"b":"\xe4\xb8\xad\\n"}'
        body = b'{"channel":"topic:x","type":"t","data": ' + data + b"}"
        headers = {**publisher(), "Content-Type": "application/json; charset=utf-8"}
        assert (await app.client.post("/v1/publish", headers=headers, content=body)).status_code == 201
        (entry,) = await app.appended("topic:x")
        assert entry.publication.data == '{"a":[1.50,10000000000000000000001],"b":"中\\n"}'.encode()


async def test_ephemeral_takes_no_offset() -> None:
    async with rest() as app:
        body = {"channel": "topic:x", "type": "typing", "ephemeral": True}
        answer = await app.client.post("/v1/publish", headers=publisher(), json=body)
        assert answer.status_code == 201
        assert answer.json()["cursor"] == ""
        assert await app.offset() == 0


async def test_idempotency_key_in_body_or_header() -> None:
    async with rest() as app:
        first = await app.client.post(
            "/v1/notifications", headers=publisher(), json={**NOTE, "idempotency_key": "k1"}
        )
        again = await app.client.post(
            "/v1/notifications", headers={**publisher(), "Idempotency-Key": "k1"}, json=NOTE
        )
        assert (first.status_code, again.status_code) == (201, 200)
        assert again.json() == {**first.json(), "duplicate": True}
        other = await app.client.post(
            "/v1/notifications",
            headers={**publisher(), "Idempotency-Key": "k1"},
            json={**NOTE, "title": "another"},
        )
        problem(other, 422, "idempotency-conflict")
        both = await app.client.post(
            "/v1/notifications",
            headers={**publisher(), "Idempotency-Key": "k2"},
            json={**NOTE, "idempotency_key": "k1"},
        )
        problem(both, 422, "bad-idempotency-key")
        assert await app.offset() == 1
        # The key belongs to one principal of one tenant.
        for headers in (auth("backend-2", "publisher"), publisher("other")):
            mine = await app.client.post(
                "/v1/notifications", headers={**headers, "Idempotency-Key": "k1"}, json=NOTE
            )
            assert mine.status_code == 201


async def test_the_same_id_is_published_once() -> None:
    async with rest() as app:
        body = {"channel": "topic:x", "type": "t", "data": 1, "id": "n1"}
        answers = [await app.client.post("/v1/publish", headers=publisher(), json=body) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [201, 200, 200]
        assert len({answer.json()["cursor"] for answer in answers}) == 1
        problem(
            await app.client.post("/v1/publish", headers=publisher(), json={**body, "data": 2}),
            422,
            "idempotency-conflict",
        )


@pytest.mark.parametrize("path", ["/v1/notifications", "/v1/notifications/batch", "/v1/publish"])
async def test_only_backends_publish(path: str) -> None:
    async with rest() as app:
        body = [NOTE] if path.endswith("batch") else NOTE
        bare = await app.client.post(path, json=body)
        problem(bare, 401, "unauthorized")
        assert bare.headers["www-authenticate"] == 'Bearer realm="dualcast"'
        problem(await app.client.post(path, headers=auth("alice"), json=body), 403, "publisher-only")
        expired = auth("backend", "publisher", exp=1)
        refused = await app.client.post(path, headers=expired, json=body)
        problem(refused, 401, "token-expired")
        assert 'error="invalid_token"' in refused.headers["www-authenticate"]
        forged = {"Authorization": publisher()["Authorization"][:-4] + "AAAA"}
        problem(await app.client.post(path, headers=forged, json=body), 401, "unauthorized")
        problem(await app.client.post(path + "?token=x", json=body), 401, "unauthorized")
        assert await app.offset() == 0


async def test_a_token_publishes_into_its_own_tenant_only() -> None:
    async with rest() as app:
        sent = await app.client.post("/v1/notifications", headers=publisher("other"), json=NOTE)
        assert sent.status_code == 201
        assert (await app.offset("default"), await app.offset("other")) == (0, 1)
        problem(
            await app.client.post("/v1/notifications", headers=publisher(), json={**NOTE, "tenant": "other"}),
            422,
            "invalid-body",
        )


@pytest.mark.parametrize("path", ["/v1/notifications", "/v1/notifications/batch", "/v1/publish"])
async def test_media_types_encodings_and_methods(path: str) -> None:
    async with rest() as app:
        kwargs: dict[str, Any] = {"content": json.dumps(NOTE).encode()}
        for kind in (
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/json; charset=latin-1",
            "",
        ):
            headers = {**publisher(), "Content-Type": kind}
            problem(await app.client.post(path, headers=headers, **kwargs), 415, "unsupported-media-type")
        headers = {**publisher(), "Content-Type": "application/json", "Content-Encoding": "gzip"}
        problem(await app.client.post(path, headers=headers, **kwargs), 415, "unsupported-encoding")
        wrong = await app.client.get(path, headers=publisher())
        problem(wrong, 405, "method-not-allowed")
        assert wrong.headers["allow"] == "POST, OPTIONS"
        options = await app.client.options(path)
        assert options.status_code == 204 and options.headers["allow"] == "POST, OPTIONS"
        assert await app.offset() == 0


async def test_quota_of_the_tenant() -> None:
    quota = TenantSettings(publish_rate_per_s=0.001, publish_burst=2)
    async with rest(tenants=[Tenant(id="default", settings=quota), Tenant(id="other")]) as app:
        codes = [
            (await app.client.post("/v1/notifications", headers=publisher(), json=NOTE)).status_code
            for _ in range(3)
        ]
        assert codes == [201, 201, 429]
        answer = await app.client.post("/v1/notifications", headers=publisher(), json=NOTE)
        assert problem(answer, 429, "rate-limited")["retryable"] is True
        assert int(answer.headers["retry-after"]) > 1
        assert (await app.client.post("/v1/notifications", headers=publisher("other"), json=NOTE)).is_success


async def test_rates_per_principal_and_address() -> None:
    rates = RateSettings(requests_per_principal_per_s=0.001, burst_s=1000)
    async with rest(rates=rates) as app:
        assert (await app.client.post("/v1/notifications", headers=publisher(), json=NOTE)).is_success
        answer = await app.client.post("/v1/notifications", headers=publisher(), json=NOTE)
        problem(answer, 429, "rate-limited")
        assert (await app.client.post("/v1/notifications", headers=admin(), json=NOTE)).is_success
    async with rest(rates=RateSettings(requests_per_ip_per_s=0.001, burst_s=1000)) as app:
        assert (await app.client.post("/v1/notifications", headers=publisher(), json=NOTE)).is_success
        refused = await app.client.post("/v1/notifications", headers=publisher(), json=NOTE)
        problem(refused, 429, "rate-limited")
        assert (await app.client.get("/healthz")).is_success


async def test_a_body_without_length_is_cut_off_at_the_limit() -> None:
    """Over a real socket: chunked, so that the server does not know the size before."""
    async with rest() as app, served(app.app) as base, httpx.AsyncClient(base_url=base) as client:
        sent = 0

        async def endless() -> Any:
            nonlocal sent
            while sent < 64 * 1024 * 1024:
                sent += 16_384
                yield b"x" * 16_384

        headers = {**publisher(), "Content-Type": "application/json"}
        try:
            answer = await client.post("/v1/publish", headers=headers, content=endless())
            problem(answer, 413, "payload-too-large")
        except (httpx.WriteError, httpx.ReadError):
            pass  # the server has answered and closed while we were still sending
        assert sent < 32 * 1024 * 1024
        fine = await client.post("/v1/notifications", headers=publisher(), json=NOTE)
        assert fine.status_code == 201


async def test_a_body_that_never_comes_is_timed_out() -> None:
    async with rest(settings=GatewaySettings(body_deadline_s=0.05)) as app, served(app.app) as base:
        port = int(base.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        token = publisher()["Authorization"]
        head = f"POST /v1/publish HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n"
        writer.write(head.encode() + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        try:
            answer = await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"request-timeout" in answer
        assert await app.offset() == 0
