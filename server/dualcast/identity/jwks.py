"""JWK sets of tenants' identity providers (RFC 7517), fetched without ever blocking a request that has a key
already.

A set younger than `fresh_s` is used as it is; an older one is used while one fetch runs behind it; when the
provider is away the old set serves up to `stale_s`. A key id nobody knows starts at most one fetch per
`cooldown_s`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt import PyJWK, PyJWTError
from msgspec import Struct

from dualcast.model.errors import DualcastError

from .keys import EDDSA, ES256, RS256, BadKey, JwksEndpoint, VerificationKey

log = logging.getLogger("dualcast.identity")
_NEVER = float("-inf")
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_KINDS = {("RSA", None): RS256, ("EC", "P-256"): ES256, ("OKP", "Ed25519"): EDDSA}
_ALG_NAMES = {"Ed25519": EDDSA}  # RFC 9864 gives EdDSA with Ed25519 its own name


class KeysUnavailable(DualcastError):
    """The tenant's keys cannot be fetched and none are held: the token cannot be judged, so it is not called
    bad.
    """

    code = "keys-unavailable"
    status = 503
    retryable = True


class JwksSettings(Struct, frozen=True):
    """Limits of fetching."""

    timeout_s: float = 5.0
    """For the whole fetch, however slowly the bytes come."""
    fresh_s: float = 300.0
    stale_s: float = 86_400.0
    cooldown_s: float = 10.0
    """Between two fetches for unknown key ids, and after a failed fetch."""
    max_bytes: int = 262_144
    max_keys: int = 32
    max_endpoints: int = 1000
    allow_loopback_http: bool = False
    """Plain http to 127.0.0.1, ::1 and localhost; for tests and --dev."""


class _KeySet:
    """What is held of one endpoint. Times are of the monotonic clock; -inf: never."""

    __slots__ = ("fetched_at", "flight", "keys", "revision", "tried_at")

    def __init__(self, revision: int) -> None:
        self.keys: tuple[VerificationKey, ...] = ()
        self.revision = revision
        self.fetched_at = _NEVER
        self.tried_at = _NEVER
        self.flight: asyncio.Task[bool] | None = None


class JwksCache:
    """Key sets by endpoint; owns the HTTP client and the fetches. Call `close` at the end."""

    def __init__(
        self, settings: JwksSettings | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings or JwksSettings()
        self._clock = clock
        self._client: httpx.AsyncClient | None = None
        self._sets: OrderedDict[JwksEndpoint, _KeySet] = OrderedDict()
        self._revision = 0
        self._closed = False

    async def keys(self, endpoint: JwksEndpoint, kid: str | None) -> Sequence[VerificationKey]:
        """Keys of the set that may have signed a token with header `kid`; empty: the set is current and has
        none.

        Raises KeysUnavailable when no usable set can be had.
        """
        held = self._held(endpoint)
        found = self._usable(held, kid)
        if found:
            self._refresh_if_due(endpoint, held)
            return found
        flight = held.flight
        if flight is None and self._clock() - held.tried_at >= self._settings.cooldown_s:
            flight = self._start(endpoint, held)
        if flight is not None:
            await asyncio.wait((flight,))  # neither is ended when the other is cancelled
            found = self._usable(held, kid)
        if not found and (held.fetched_at < held.tried_at or held.fetched_at == _NEVER):
            raise KeysUnavailable("token keys cannot be fetched now", retry_after_s=self._settings.cooldown_s)
        return found

    def revision(self, endpoint: JwksEndpoint) -> int:
        """Changes whenever the endpoint's keys do, or become too old; starts a refresh behind when one is
        due.
        """
        held = self._held(endpoint)
        self._refresh_if_due(endpoint, held)
        return held.revision if self._clock() - held.fetched_at < self._settings.stale_s else -1

    async def close(self) -> None:
        """Ends every fetch and the client."""
        self._closed = True
        flights = [held.flight for held in self._sets.values() if held.flight is not None]
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    def _held(self, endpoint: JwksEndpoint) -> _KeySet:
        held = self._sets.get(endpoint)
        if held is None:
            self._revision += 1
            held = self._sets[endpoint] = _KeySet(self._revision)
            while len(self._sets) > self._settings.max_endpoints:
                _, gone = self._sets.popitem(last=False)
                if gone.flight is not None:
                    gone.flight.cancel()
        else:
            self._sets.move_to_end(endpoint)
        return held

    def _usable(self, held: _KeySet, kid: str | None) -> tuple[VerificationKey, ...]:
        if self._clock() - held.fetched_at >= self._settings.stale_s:
            return ()
        return tuple(key for key in held.keys if kid is None or key.kid in ("", kid))

    def _refresh_if_due(self, endpoint: JwksEndpoint, held: _KeySet) -> None:
        now = self._clock()
        due = now - held.fetched_at >= self._settings.fresh_s
        if due and held.flight is None and now - held.tried_at >= self._settings.cooldown_s:
            self._start(endpoint, held)

    def _start(self, endpoint: JwksEndpoint, held: _KeySet) -> asyncio.Task[bool]:
        if self._closed:
            raise KeysUnavailable("token keys cannot be fetched now")
        flight = held.flight = asyncio.create_task(self._fetch(endpoint, held), name="jwks fetch")
        flight.add_done_callback(lambda _: setattr(held, "flight", None))
        return flight

    async def _fetch(self, endpoint: JwksEndpoint, held: _KeySet) -> bool:
        """Replaces the held keys; False, with a warning in the log, when that failed. Raises nothing but
        CancelledError.
        """
        started = self._clock()
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                document = await self._get(endpoint.url)
            keys = read_set(document, endpoint, self._settings.max_keys)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError, ValueError) as error:
            held.tried_at = self._clock()
            log.warning("jwks fetch failed: tenant=%s error=%s", endpoint.tenant, type(error).__name__)
            return False
        held.tried_at = held.fetched_at = started
        if keys != held.keys:
            self._revision += 1
            held.keys, held.revision = keys, self._revision
        return True

    async def _get(self, url: str) -> bytes:
        parts = urlsplit(url)
        loopback = self._settings.allow_loopback_http and parts.hostname in _LOOPBACK
        if parts.scheme != "https" and not (parts.scheme == "http" and loopback):
            raise ValueError("a JWKS address is https")
        if self._client is None:
            # trust_env off: proxies and certificates come from settings, never from the environment.
            self._client = httpx.AsyncClient(
                follow_redirects=False,
                timeout=self._settings.timeout_s,
                trust_env=False,
                limits=httpx.Limits(max_connections=10, max_keepalive_connections=2),
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            )
        body = bytearray()
        async with self._client.stream("GET", url) as response:
            if (
                response.status_code != 200
                or response.headers.get("content-encoding", "identity") != "identity"
            ):
                raise ValueError("unusable answer")
            async for chunk in response.aiter_raw():  # raw: a compressed answer cannot outgrow the limit
                body += chunk
                if len(body) > self._settings.max_bytes:
                    raise ValueError("answer too long")
        return bytes(body)


def read_set(document: bytes, endpoint: JwksEndpoint, max_keys: int) -> tuple[VerificationKey, ...]:
    """The usable keys of a JWK set: public, for signatures, of an allowed algorithm, long enough. Others are
    left out.

    Raises ValueError: not a JWK set, or more than `max_keys` keys in it.
    """
    try:
        parsed: Any = msgspec.json.decode(document)
    except RecursionError:
        parsed = None
    items = parsed.get("keys") if isinstance(parsed, dict) else None
    if not isinstance(items, list) or len(items) > max_keys:
        raise ValueError("not a JWK set of acceptable size")
    found = (_read_key(item, endpoint) for item in items if isinstance(item, dict))
    return tuple(key for key in found if key is not None)


def _read_key(item: dict[str, Any], endpoint: JwksEndpoint) -> VerificationKey | None:
    algorithm = _KINDS.get((str(item.get("kty")), None if item.get("kty") == "RSA" else item.get("crv")))
    named = item.get("alg")
    if algorithm is None or algorithm not in endpoint.algorithms:
        return None
    if named is not None and _ALG_NAMES.get(str(named), named) != algorithm:
        return None
    operations = item.get("key_ops")
    if item.get("use", "sig") != "sig" or (isinstance(operations, list) and "verify" not in operations):
        return None
    kid = item.get("kid", "")
    if (
        not isinstance(kid, str) or "d" in item
    ):  # a set that publishes a private key has no trust left in that key
        return None
    try:
        public: Any = PyJWK(item, algorithm).key
        material = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return VerificationKey(
            kid=kid,
            algorithm=algorithm,
            material=material,
            tenant=endpoint.tenant,
            issuer=endpoint.issuer,
            audience=endpoint.audience,
        )
    except (PyJWTError, BadKey, ValueError, TypeError, KeyError, AttributeError):
        return None
