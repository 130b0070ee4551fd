"""Provider `webhook`: every push is a signed HTTP POST to one address of the operator's
(docs/guides/push-webhook.md).

Answers: 2xx accepted · 400, 404, 405, 410, 413, 414, 415, 422 never again · everything else later, 429 and
503 with their `Retry-After` (RFC 9110 10.2.3). Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.parse import quote, urlsplit

import httpx
import msgspec
from msgspec import Raw, Struct

from dualcast.push.port import ProviderUnusable, PushJob, Refused, TryLater
from dualcast.push.signature import sign

MIN_SECRET_BYTES = 32
MAX_ANSWER_BYTES = 16_384
"""Of an answer's body; it is read only so that the connection can be used again."""
BODY_S = 1.0
"""For reading it. The status says what became of the call, however the rest of the answer ends."""
_PERMANENT = frozenset({400, 404, 405, 410, 413, 414, 415, 422})
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class WebhookSettings(Struct, frozen=True, kw_only=True):
    """Where to, and signed with what."""

    url: str
    secret: str
    """At least 32 bytes."""
    timeout_s: float = 10.0
    """For the whole call."""
    allow_http: bool = False
    """Plain http to hosts other than this machine."""

    def __repr__(self) -> str:
        return "WebhookSettings(…)"


class _Body(Struct, frozen=True, kw_only=True):
    id: str
    collapse_id: str
    tenant: str
    user: str
    title: str
    text: str
    priority: str
    data: Raw
    devices: tuple[str, ...]
    attempt: int
    queued_at: str


_encode = msgspec.json.Encoder().encode


class WebhookProvider:
    """`clock` gives Unix seconds."""

    name = "webhook"

    def __init__(self, settings: WebhookSettings, *, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._secret = settings.secret.encode()
        self._clock = clock
        self._client: httpx.AsyncClient | None = None

    async def check(self) -> None:
        """The address and the secret, without a call: the receiver may start after this server."""
        s = self._settings
        try:
            parts = urlsplit(s.url)
            host, _ = parts.hostname, parts.port
            httpx.URL(s.url)
        except (ValueError, httpx.InvalidURL):
            raise ProviderUnusable("push provider webhook: the url is not valid") from None
        if parts.scheme not in ("https", "http") or not host:
            raise ProviderUnusable("push provider webhook: the url must be https://host/…")
        if parts.username or parts.password:
            raise ProviderUnusable("push provider webhook: no user and password in the url")
        if parts.scheme == "http" and host not in _LOOPBACK and not s.allow_http:
            raise ProviderUnusable("push provider webhook: the url must be https, or allow_http be set")
        if len(self._secret) < MIN_SECRET_BYTES:
            raise ProviderUnusable(f"push provider webhook: the secret needs {MIN_SECRET_BYTES} bytes")
        if s.timeout_s <= 0:
            raise ProviderUnusable("push provider webhook: timeout_s must be more than 0")

    async def send(self, job: PushJob) -> None:
        body = body_of(job)
        timestamp = int(self._clock())
        # Ids of two tenants may be equal, so the tenant is part of the key.
        key = ":".join(quote(part, safe="@.-_~") for part in (job.tenant, job.id, job.user))
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": key,
            "X-Dualcast-Timestamp": str(timestamp),
            "X-Dualcast-Signature": sign(self._secret, timestamp, body),
        }
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                status, retry_after = await self._post(body, headers)
        except (TimeoutError, httpx.TimeoutException):
            raise TryLater("timeout") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError):
            raise TryLater("connection-error") from None
        if 200 <= status < 300:
            return
        if status in _PERMANENT:
            raise Refused(f"http-{status}")
        wait_s = self._seconds(retry_after) if status in (429, 503) else None
        raise TryLater(f"http-{status}", retry_after_s=wait_s)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _post(self, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
        """Status and Retry-After of the answer."""
        if self._client is None:
            # trust_env off: proxies and certificates come from settings, never from the environment.
            self._client = httpx.AsyncClient(
                follow_redirects=False,
                timeout=self._settings.timeout_s,
                trust_env=False,
                # None are kept: they would go from one tenant's pushes to another's, and never end.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
                # No more are opened than the worker has calls under way.
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=8),
                headers={"User-Agent": "dualcast", "Accept-Encoding": "identity"},
            )
        request = self._client.stream("POST", self._settings.url, content=body, headers=headers)
        async with request as answer:
            with suppress(TimeoutError, httpx.HTTPError, OSError):
                async with asyncio.timeout(min(BODY_S, self._settings.timeout_s / 2)):
                    read = 0
                    async for chunk in answer.aiter_raw():
                        read += len(chunk)
                        if read > MAX_ANSWER_BYTES:
                            break  # leaving the block closes the connection
            return answer.status_code, answer.headers.get("retry-after", "")

    def _seconds(self, retry_after: str) -> float | None:
        """Seconds of a Retry-After field, or of its date; None: there is none."""
        text = retry_after.strip()
        if text.isascii() and text.isdigit():
            return float(text[:9])
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - self._clock())
        except (ValueError, OverflowError):
            return None


def body_of(job: PushJob) -> bytes:
    """The JSON of one call."""
    message = job.message
    return _encode(
        _Body(
            id=job.id,
            collapse_id=message.id or job.id,
            tenant=job.tenant,
            user=job.user,
            title=message.title,
            text=message.text,
            priority=message.priority,
            data=message.data,
            devices=message.devices,
            attempt=job.attempt,
            queued_at=_utc(job.queued_ms),
        )
    )


def _utc(time_ms: int) -> str:
    seconds, ms = divmod(time_ms, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{ms:03d}000Z"
