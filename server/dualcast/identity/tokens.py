"""JSON Web Tokens (RFC 7519, with the cautions of RFC 8725) → Principal.

How the tenant is found: the unverified `tenant` claim selects the key set (without one: the only tenant bound
to the token's issuer, else the default tenant). The principal's tenant is the one the *verifying key* is
bound to, and the claim must be equal to it; so the claim only chooses which keys are tried, and a key of one
tenant cannot mint a principal of another.
"""

from __future__ import annotations

import hashlib
import re
import time
from binascii import a2b_base64
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from dualcast.model.errors import DualcastError, Unauthorized
from dualcast.model.principal import Principal

from .claims import TokenSettings, bad_token, is_tenant, principal_from, token_expired
from .jwks import JwksCache, KeysUnavailable
from .keys import ALGORITHMS, JwksEndpoint, KeySource, VerificationKey

_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\Z")


class RevokedCheck(Protocol):
    """What is asked on every use of a token; `revocation.Revocations` is one."""

    def is_revoked(self, principal: Principal) -> bool: ...


class _Header(Struct):
    """The JOSE header, as far as it is looked at (RFC 7515 section 4.1)."""

    alg: str
    kid: str | None = None
    crit: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    b64: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Unverified(Struct):
    """A token taken apart; nothing in it is to be believed yet."""

    signed: bytes
    signature: bytes
    digest: bytes
    alg: str
    kid: str | None
    claims: dict[str, Any]

    def __repr__(self) -> str:
        return "_Unverified()"


class _Verified(Struct, frozen=True):
    """A cache entry: valid while the key sets it was verified with are the same."""

    principal: Principal
    revision: int
    endpoint: JwksEndpoint | None
    endpoint_revision: int


_TO_BASE64 = bytes.maketrans(b"-_", b"+/")
_PADDING = (b"", b"===", b"==", b"=")
_CANONICAL_ENDS: tuple[frozenset[int], ...] = (
    frozenset(range(256)),
    frozenset(),
    frozenset(b"AQgw"),
    frozenset(b"AEIMQUYcgkosw048"),
)
"""By the length modulo 4: the last letters that leave the spare bits zero."""
_header_decoder = msgspec.json.Decoder(_Header)
_claims_decoder = msgspec.json.Decoder(dict[str, Any])


class TokenVerifier:
    """`cached` answers at once for a token seen before; `verify` does the whole work."""

    def __init__(
        self,
        source: KeySource,
        settings: TokenSettings | None = None,
        *,
        jwks: JwksCache | None = None,
        revocations: RevokedCheck | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._settings = settings or TokenSettings()
        self._jwks = jwks
        self._revocations = revocations
        self._clock = clock
        self._cache: OrderedDict[bytes, _Verified] = OrderedDict()

    def cached(self, token: str) -> Principal | None:
        """The principal of a token verified before and still good: in time, not revoked, its keys unchanged.
        Else None.
        """
        if len(token) > self._settings.max_token_bytes or not token.isascii():
            return None
        digest = hashlib.sha256(token.encode()).digest()
        entry = self._cache.get(digest)
        if entry is None:
            return None
        if not self._still_good(entry):
            del self._cache[digest]
            return None
        self._cache.move_to_end(digest)
        return entry.principal

    async def verify(self, token: str) -> Principal:
        """The principal `token` stands for.

        Raises TokenExpired (right in all but time), Unauthorized ("bad token", whatever is wrong),
        KeysUnavailable (its tenant's JWKS cannot be fetched and no held key fits).
        """
        known = self.cached(token)
        if known is not None:
            return known
        parts = self._take_apart(token)
        tenant = self._tenant_of(parts.claims)
        revision = self._source.revision(tenant)
        keys = self._source.keys_for(tenant, parts.kid)
        principal, failure = self._try(parts, tenant, keys)
        endpoint, endpoint_revision = None, 0
        if principal is None and failure is None:
            principal, endpoint, endpoint_revision = await self._by_jwks(parts, tenant)
        if principal is None:
            raise failure or bad_token()
        if self._revocations is not None and self._revocations.is_revoked(principal):
            raise bad_token()
        self._remember(parts.digest, _Verified(principal, revision, endpoint, endpoint_revision))
        return principal

    async def vouches_for(self, principal: Principal) -> bool:
        """Whether the key that made `principal` is still one of its tenant's; for what outlives its request:
        tickets, live connections. Raises KeysUnavailable when that cannot be known now.
        """
        tenant, key_id = principal.tenant, principal.key_id
        keys = self._source.keys_for(tenant, None)
        if any(key.tenant == tenant and key.fingerprint == key_id for key in keys):
            return True
        failure: KeysUnavailable | None = None
        for endpoint in self._source.endpoints_for(tenant) if self._jwks is not None else ():
            try:
                published = await self._jwks.keys(endpoint, None) if self._jwks is not None else ()
            except KeysUnavailable as error:
                failure = error
                continue
            if any(key.tenant == tenant and key.fingerprint == key_id for key in published):
                return True
        if failure is not None:
            raise failure
        return False

    def __len__(self) -> int:
        return len(self._cache)

    def _still_good(self, entry: _Verified) -> bool:
        principal = entry.principal
        if self._clock() >= principal.expires_at or entry.revision != self._source.revision(principal.tenant):
            return False
        if entry.endpoint is not None and self._jwks is not None:
            if entry.endpoint not in self._source.endpoints_for(principal.tenant):
                return False
            if self._jwks.revision(entry.endpoint) != entry.endpoint_revision:
                return False
        return self._revocations is None or not self._revocations.is_revoked(principal)

    async def _by_jwks(
        self, parts: _Unverified, tenant: str
    ) -> tuple[Principal | None, JwksEndpoint | None, int]:
        """The principal by a published key, that key's set and its revision; raises what `verify` raises."""
        failure: DualcastError | None = None
        endpoints = () if self._jwks is None else self._source.endpoints_for(tenant)
        for endpoint in endpoints:
            if self._jwks is None or endpoint.tenant != tenant or parts.alg not in endpoint.algorithms:
                continue
            try:
                published = await self._jwks.keys(endpoint, parts.kid)
            except KeysUnavailable as error:
                failure = failure or error
                continue
            revision = self._jwks.revision(endpoint)
            principal, refusal = self._try(parts, tenant, published)
            if principal is not None:
                return principal, endpoint, revision
            failure = refusal or failure
        raise failure or bad_token()

    def _remember(self, digest: bytes, entry: _Verified) -> None:
        self._cache[digest] = entry
        self._cache.move_to_end(digest)
        while len(self._cache) > self._settings.cache_entries:
            self._cache.popitem(last=False)

    def _take_apart(self, token: str) -> _Unverified:
        """Raises Unauthorized for anything that is not a compact JWS with JSON objects in its first two
        parts.
        """
        if len(token) > self._settings.max_token_bytes or not _COMPACT.match(token):
            raise bad_token()
        raw = token.encode()
        first, second, third = raw.split(b".")
        try:
            header = _header_decoder.decode(_unbase64(first))
            claims = _claims_decoder.decode(_unbase64(second))
            signature = _unbase64(third)
        except (ValueError, RecursionError):  # also of base64, msgspec and UTF-8
            header = None
        if header is None or header.alg not in ALGORITHMS:
            raise bad_token()
        if header.crit is not msgspec.UNSET or header.b64 is not msgspec.UNSET:
            raise bad_token()  # RFC 7515 section 4.1.11: we understand no critical extension
        digest = hashlib.sha256(raw).digest()
        return _Unverified(raw[: raw.rindex(b".")], signature, digest, header.alg, header.kid, claims)

    def _tenant_of(self, claims: dict[str, Any]) -> str:
        if "tenant" in claims:
            tenant = claims["tenant"]
            if not isinstance(tenant, str) or not is_tenant(tenant):  # nor let it fill anybody's tables
                raise bad_token()
            return tenant
        issuer = claims.get("iss")
        hinted = self._source.tenants_hint(issuer) if isinstance(issuer, str) and issuer else ()
        return hinted[0] if len(hinted) == 1 else self._settings.default_tenant

    def _try(
        self, parts: _Unverified, tenant: str, keys: Sequence[VerificationKey]
    ) -> tuple[Principal | None, Unauthorized | None]:
        """The principal by the first key that signed the token and whose demands its claims meet; else why
        not.

        (None, None): no key signed it. Only keys of `tenant` with the header's algorithm are tried.
        """
        failure: Unauthorized | None = None
        tried = 0
        for key in keys:
            if key.algorithm != parts.alg or key.tenant != tenant:
                continue
            if (tried := tried + 1) > self._settings.max_candidate_keys:
                break
            if not key.verifies(parts.signed, parts.signature):
                continue
            fallback_id = parts.digest.hex()[:16]
            outcome = _judge(parts.claims, key, self._settings, self._clock(), fallback_id)
            if isinstance(outcome, Principal):
                return outcome, None
            if failure is None or outcome == "expired":
                failure = token_expired() if outcome == "expired" else bad_token()
        return None, failure


def _judge(
    claims: dict[str, Any], key: VerificationKey, settings: TokenSettings, now: float, fallback_id: str
) -> Principal | str:
    """A principal, `expired` or `bad`; no exception is kept, so that none holds a frame with the claims."""
    try:
        return principal_from(claims, key, settings, now=now, fallback_id=fallback_id)
    except Unauthorized as refusal:
        return "expired" if refusal.code == "token-expired" else "bad"


def _unbase64(text: bytes) -> bytes:
    """Base64url without padding (RFC 7515 section 2); `text` has only letters of that alphabet.

    Raises ValueError unless it is the one spelling of its value: spare bits must be zero, else a token with a
    revoked digest could be respelt.
    """
    over = len(text) % 4
    if text[-1] not in _CANONICAL_ENDS[over]:
        raise ValueError("not canonical")
    return a2b_base64(text.translate(_TO_BASE64) + _PADDING[over])
