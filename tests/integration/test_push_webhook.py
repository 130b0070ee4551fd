"""The webhook provider against a real HTTP server on a real socket, alone and behind the worker."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any

import pytest
from msgspec import Raw

from dualcast.model.push import PushMessage
from dualcast.push.port import PushJob, PushSettings, Refused, TryLater
from dualcast.push.providers.finding import open_provider
from dualcast.push.providers.webhook import MAX_ANSWER_BYTES, WebhookProvider, WebhookSettings
from dualcast.push.worker import PushWorker
from support.ports import free_port
from support.push_receiver import SECRET, receiving
from support.push_rig import memory

pytestmark = pytest.mark.anyio
WAIT_S = 10.0


@asynccontextmanager
async def webhook(url: str, **settings: Any) -> AsyncIterator[WebhookProvider]:
    provider = WebhookProvider(WebhookSettings(url=url, secret=SECRET, **settings))
    await provider.check()
    try:
        yield provider
    finally:
        await provider.close()


def job(**fields: Any) -> PushJob:
    message = PushMessage(
        id="n1",
        title="标题",
        text="hello",
        priority="high",
        data=Raw(b'{"link":"/x"}'),
        devices=("mobile",),
    )
    made = {"tenant": "acme", "id": "n1", "user": "用户 1", "message": message, "attempt": 2}
    return PushJob(**{"queued_ms": 1_700_000_000_123, "deadline_ms": 2_000_000_000_000, **made, **fields})


async def test_a_call_is_signed_and_says_everything() -> None:
    async with receiving() as receiver, webhook(receiver.url) as provider:
        await provider.send(job())
        await provider.send(job(user="bob"))
        call = receiver.calls[0]
        assert call.line == "POST /push?app=1 HTTP/1.1"
        assert json.loads(call.body) == {
            "id": "n1",
            "collapse_id": "n1",
            "tenant": "acme",
            "user": "用户 1",
            "title": "标题",
            "text": "hello",
            "priority": "high",
            "data": {"link": "/x"},
            "devices": ["mobile"],
            "attempt": 2,
            "queued_at": "2023-11-14T22:13:20.123000Z",
        }
        assert call.headers["content-type"] == "application/json"
        assert call.headers["idempotency-key"] == "acme:n1:%E7%94%A8%E6%88%B7%201"
        assert abs(int(call.headers["x-dualcast-timestamp"]) - time.time()) < 60
        assert call.verified and receiver.calls[1].verified
        assert receiver.connections == 1, "the connection is used again"


async def test_cookies_of_a_receiver_are_not_kept() -> None:
    """They would grow without end, and go from the pushes of one tenant to those of another."""
    async with receiving() as receiver, webhook(receiver.url) as provider:
        receiver.answers = ["204 No Content|Set-Cookie: sid=of-acme; Path=/"]
        await provider.send(job())
        await provider.send(job(tenant="other"))
        assert "cookie" not in receiver.calls[1].headers


@pytest.mark.parametrize("status", ["200 OK", "201 Created", "202 Accepted", "204 No Content"])
async def test_every_success_is_one(status: str) -> None:
    async with receiving() as receiver, webhook(receiver.url) as provider:
        receiver.answers = [status]
        await provider.send(job())


@pytest.mark.parametrize("status", [400, 404, 410, 413, 422])
async def test_what_the_receiver_refuses_for_good_is_refused(status: int) -> None:
    async with receiving() as receiver, webhook(receiver.url) as provider:
        receiver.answers = [f"{status} No"]
        with pytest.raises(Refused) as caught:
            await provider.send(job())
        assert caught.value.reason == f"http-{status}"


@pytest.mark.parametrize("status", [301, 307, 401, 403, 408, 409, 429, 500, 502, 503, 504])
async def test_everything_else_is_tried_again(status: int) -> None:
    async with receiving() as receiver, webhook(receiver.url) as provider:
        receiver.answers = [f"{status} No|Location: {receiver.url}"]
        with pytest.raises(TryLater) as caught:
            await provider.send(job())
        assert caught.value.reason == f"http-{status}"
        assert caught.value.retry_after_s is None
        assert len(receiver.calls) == 1, "no redirect is followed"


async def test_retry_after_is_seconds_or_a_date() -> None:
    async with receiving() as receiver, webhook(receiver.url) as provider:
        date = formatdate(time.time() + 100, usegmt=True)
        past = formatdate(time.time() - 100, usegmt=True)
        receiver.answers = [
            f"{status} No|Retry-After: {value}"
            for status in (429, 503)
            for value in ("7", date, past, "soon", "-5", "9" * 400)
        ]
        found = []
        for _ in range(12):
            with pytest.raises(TryLater) as caught:
                await provider.send(job())
            found.append(caught.value.retry_after_s)
        for seven, at, gone, none, negative, huge in (found[:6], found[6:]):
            assert seven == 7.0
            assert at is not None and 90 < at <= 100
            assert gone == 0.0
            assert none is None and negative is None
            assert huge == 999_999_999.0


async def test_a_receiver_that_hangs_costs_the_timeout() -> None:
    async with receiving() as receiver, webhook(receiver.url, timeout_s=0.05) as provider:
        receiver.answers = ["hang"]
        with pytest.raises(TryLater, match="timeout"):
            await provider.send(job())


async def test_a_receiver_that_is_away_or_breaks_off_is_tried_again() -> None:
    async with webhook(f"http://127.0.0.1:{free_port()}/") as provider:
        with pytest.raises(TryLater, match="connection-error"):
            await provider.send(job())
    async with receiving() as receiver, webhook(receiver.url) as provider:
        receiver.answers = ["reset"]
        with pytest.raises(TryLater, match="connection-error"):
            await provider.send(job())
        receiver.answers = [b"SSH-2.0-x\r\n\r\n"]
        with pytest.raises(TryLater, match="connection-error"):
            await provider.send(job())


async def test_an_endless_answer_is_not_read() -> None:
    async with receiving() as receiver, webhook(receiver.url) as provider:
        endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        receiver.answers = [endless + b"4000\r\n" + b"x" * 16_384 + b"\r\n4000\r\n" + b"x" * 16_384 + b"\r\n"]
        assert MAX_ANSWER_BYTES < 32_768
        async with asyncio.timeout(WAIT_S):
            await provider.send(job())


@pytest.mark.parametrize(
    "rest", [b"Content-Length: 9\r\n\r\nab", b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n"]
)
async def test_an_answer_that_never_ends_or_breaks_counts_by_its_status(
    monkeypatch: pytest.MonkeyPatch, rest: bytes
) -> None:
    """What was accepted is not sent again and again."""
    monkeypatch.setattr("dualcast.push.providers.webhook.BODY_S", 0.05)
    async with receiving() as receiver, webhook(receiver.url) as provider:
        receiver.answers = [b"HTTP/1.1 200 OK\r\n" + rest]
        await provider.send(job())
        receiver.answers = [b"HTTP/1.1 410 Gone\r\n" + rest]
        with pytest.raises(Refused, match="http-410"):
            await provider.send(job())
        assert receiver.connections == 2, "neither was used again"


async def test_a_webhook_that_fails_at_first_gets_every_push_in_the_end() -> None:
    async with receiving() as receiver, memory() as rig:
        settings = {"url": receiver.url, "secret": SECRET}
        provider = await open_provider("webhook", settings)
        worker = PushWorker(
            rig.queue, provider, PushSettings(scan_s=0.02, drain_s=0.0), jitter=lambda bound: 0.0
        )
        receiver.answers = ["500 No", "500 No", "429 No|Retry-After: 0", "200 OK"]
        task = asyncio.create_task(worker.run())
        try:
            await rig.push("alice", ident="n1")
            await rig.push("alice", ident="n2")
            worker.poke(rig.tenant)
            async with asyncio.timeout(WAIT_S):
                while await rig.waiting():
                    await asyncio.sleep(0.005)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await provider.close()
        assert all(call.verified for call in receiver.calls)
        bodies = [json.loads(call.body) for call in receiver.calls]
        assert len(bodies) == 5
        assert {body["id"] for body in bodies} == {"n1", "n2"}
        keys = {(call.headers["idempotency-key"], json.loads(call.body)["id"]) for call in receiver.calls}
        assert len(keys) == 2, "the same key at every attempt"
        assert (worker.counters.sent, worker.counters.retried) == (2, 3)
        assert not await rig.queue.dead(rig.tenant, 0, 10)


def test_the_secret_is_in_no_representation() -> None:
    assert SECRET not in repr(WebhookSettings(url="https://x/", secret=SECRET))
