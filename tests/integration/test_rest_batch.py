"""POST /v1/notifications/batch: NDJSON and arrays, a result per item, bounded work for hostile bodies."""

from __future__ import annotations

import json

import httpx
import msgspec
import pytest

from dualcast.gateway.services import GatewaySettings
from support.rest_app import NOTE, Rest, problem, publisher, rest

pytestmark = pytest.mark.anyio


async def post_ndjson(app: Rest, body: bytes) -> httpx.Response:
    headers = {**publisher(), "Content-Type": "application/x-ndjson"}
    return await app.client.post("/v1/notifications/batch", headers=headers, content=body)


async def test_ndjson_a_bad_line_spoils_itself_only() -> None:
    lines = [
        json.dumps({**NOTE, "id": "n1"}).encode(),
        b"{oops",
        b"",
        json.dumps({**NOTE, "extra": 1}).encode(),
        b'{"to":{"user":"a"},"title":"\xff"}',
        json.dumps({**NOTE, "id": "n2", "to": {"user": "bob"}}).encode(),
        json.dumps({**NOTE, "id": "n1"}).encode(),
        b'{"to":{"user":"a"},"title":"x","data":' + b"[" * 5000 + b"}",
    ]
    async with rest() as app:
        answer = await post_ndjson(app, b"\r\n".join(lines) + b"\n")
        assert answer.status_code == 200
        found = answer.json()
        results = found["results"]
        assert [r["status"] for r in results] == [201, 400, 422, 400, 201, 200, 422]
        codes = [r.get("code") for r in results]
        assert codes == [None, "malformed-json", "invalid-body", "bad-utf8", None, None, "too-deep"]
        assert (found["accepted"], found["failed"]) == (3, 4)
        assert results[0]["cursor"] == results[5]["cursor"] and results[5]["duplicate"] is True
        assert await app.offset() == 2


async def test_array_batches() -> None:
    async with rest() as app:
        good = await app.client.post("/v1/notifications/batch", headers=publisher(), json=[NOTE] * 1000)
        assert good.json()["accepted"] == 1000
        assert len({r["id"] for r in good.json()["results"]}) == 1000
        mixed = await app.client.post(
            "/v1/notifications/batch", headers=publisher(), json=[NOTE, 1, {**NOTE, "title": 2}, NOTE]
        )
        assert [r["status"] for r in mixed.json()["results"]] == [201, 422, 422, 201]
        assert await app.offset() == 1002


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"[]", 400, "bad-request"),
        (b"{}", 422, "invalid-body"),
        (b"[1,2", 400, "malformed-json"),
        (b"[" * 100_000, 422, "too-deep"),
        (b"[" + b"1," * 500_000 + b"1]", 413, "too-many-items"),
        (b"[" + b"[]," * 1000 + b"[]]", 413, "too-many-items"),
        (b"[[" + b"1," * 500_000 + b"1]]", 413, "payload-too-large"),
        (b"[" + b",".join([msgspec.json.encode(NOTE)] * 1001) + b"]", 413, "too-many-items"),
    ],
)
async def test_bad_arrays(body: bytes, status: int, code: str) -> None:
    async with rest() as app:
        headers = {**publisher(), "Content-Type": "application/json"}
        answer = await app.client.post("/v1/notifications/batch", headers=headers, content=body)
        problem(answer, status, code)
        assert await app.offset() == 0


async def test_batch_limits() -> None:
    async with rest(settings=GatewaySettings(max_batch_bytes=10_000, max_body_bytes=1000)) as app:
        problem(await post_ndjson(app, b"x" * 10_001), 413, "payload-too-large")
        problem(await post_ndjson(app, b"\n" * 2001), 413, "too-many-items")
        long = json.dumps({**NOTE, "content": "x" * 1000}).encode()
        results = (await post_ndjson(app, json.dumps(NOTE).encode() + b"\n" + long)).json()["results"]
        assert [r.get("code") for r in results] == [None, "payload-too-large"]
