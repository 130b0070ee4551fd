"""Verification keys: one key, one algorithm, one tenant.

The algorithm belongs to the key and never to the token (RFC 8725 section 3.1): a key is only
ever used with its own, so neither `alg: none` nor an RSA public key used as an HMAC
secret has anything to run on.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import PyJWTError
from jwt.algorithms import Algorithm, HMACAlgorithm, get_default_algorithms

from dualcast.model.channel import check_tenant
from dualcast.model.errors import BadRequest

HS256, RS256, ES256, EDDSA = "HS256", "RS256", "ES256", "EdDSA"
ALGORITHMS = (HS256, RS256, ES256, EDDSA)
_VERIFIERS = {name: get_default_algorithms()[name] for name in ALGORITHMS}
MIN_SECRET_BYTES = 32
"""RFC 7518 section 3.2: an HS256 key is at least as long as its hash."""
MIN_RSA_BITS = 2048
"""RFC 7518 section 3.3."""


class BadKey(BadRequest):
    """A configured key that must not be used. The reason never holds key material."""

    code = "bad-key"
    status = 422


class ShortKeyWarning(UserWarning):
    """A key below the minimum length was accepted because of `legacy_short_keys`."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class VerificationKey:
    """A key that verifies tokens of exactly one tenant with exactly one algorithm.

    - `material`: the secret (HS256), or a PEM public key (RS256, ES256 on P-256, EdDSA with Ed25519).
    - `kid` "": the key has no name and is tried for every token of its tenant.
    - `issuer`, `audience` "": not demanded (but a token with `aud` is then refused, RFC 7519 section 4.1.3).

    Raises BadKey: unknown algorithm, wrong kind of material, or a short key without `legacy_short_keys` (with
    it: ShortKeyWarning).
    """

    algorithm: str
    material: bytes
    tenant: str
    kid: str = ""
    issuer: str = ""
    audience: str = ""
    legacy_short_keys: bool = False
    _prepared: Any = field(init=False, compare=False)
    _verifier: Algorithm = field(init=False, compare=False)

    def __post_init__(self) -> None:
        check_tenant(self.tenant)
        if self.algorithm == HS256:
            prepared: Any = _secret(self.material, self.legacy_short_keys)
        elif self.algorithm in ALGORITHMS:
            prepared = _public(self.algorithm, self.material, self.legacy_short_keys)
        else:
            raise BadKey("a key's algorithm is one of " + ", ".join(ALGORITHMS))
        object.__setattr__(self, "_prepared", prepared)
        object.__setattr__(self, "_verifier", _VERIFIERS[self.algorithm])

    def __repr__(self) -> str:
        return f"VerificationKey(tenant={self.tenant!r}, kid={self.kid!r}, algorithm={self.algorithm!r})"

    def verifies(self, signed: bytes, signature: bytes) -> bool:
        """Whether `signature` (raw) over `signed` (`header.payload` as sent) is this key's, by its algorithm.

        HMACs are compared in constant time (PyJWT).
        """
        try:
            return self._verifier.verify(signed, self._prepared, signature)
        except (PyJWTError, ValueError, TypeError):  # signatures of an odd shape, inside cryptography
            return False

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with anything in the key. Equal on every node."""
        return _fingerprint(self)


@lru_cache(maxsize=4096)
def _fingerprint(key: VerificationKey) -> str:
    label = f"{key.tenant}\0{key.kid}\0{key.algorithm}\0{key.issuer}\0{key.audience}".encode()
    if (
        key.algorithm == HS256
    ):  # slow on purpose: a fingerprint must not make a weak legacy secret easy to guess
        return hashlib.pbkdf2_hmac("sha256", key.material, label, 5_000).hex()[:16]
    return hashlib.sha256(label + b"\0" + key.material).hexdigest()[:16]


class KeySource(Protocol):
    """Where keys come from; the app puts tenancy behind it. All methods are synchronous and answer from
    memory.
    """

    def keys_for(self, tenant: str, kid: str | None) -> Sequence[VerificationKey]:
        """Keys bound to `tenant` that may have signed a token with header `kid` (None: the token names none).

        Keys without a name always belong to the answer. Unknown tenant: nothing.
        """
        ...

    def revision(self, tenant: str) -> int:
        """A number that is another one whenever keys of `tenant` were added, changed or removed. Unknown
        tenant: any.
        """
        ...

    def tenants_hint(self, issuer: str) -> Sequence[str]:
        """Tenants that have a key or a JWKS bound to `issuer`. Used when a token has no `tenant` claim, only
        if it is one.
        """
        ...

    def endpoints_for(self, tenant: str) -> Sequence[JwksEndpoint]:
        """Where the tenant's identity providers publish their keys; usually none or one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class JwksEndpoint:
    """A tenant's JWK set (RFC 7517): its keys are bound to `tenant`, `issuer` and `audience` as configured
    keys are.
    """

    url: str
    tenant: str
    issuer: str = ""
    audience: str = ""
    algorithms: tuple[str, ...] = (RS256, ES256, EDDSA)
    """Allowed for keys of this set; HS256 is never taken from a JWKS."""


class StaticKeys:
    """A KeySource over a fixed list, for tests, `--dev` and single-tenant use. `replace` changes the list as
    a whole.
    """

    def __init__(self, keys: Iterable[VerificationKey] = (), endpoints: Iterable[JwksEndpoint] = ()) -> None:
        self._revision = 0
        self.replace(keys, endpoints)

    def replace(self, keys: Iterable[VerificationKey] = (), endpoints: Iterable[JwksEndpoint] = ()) -> None:
        self._revision += 1
        self._keys: dict[str, list[VerificationKey]] = {}
        for key in keys:
            self._keys.setdefault(key.tenant, []).append(key)
        self._endpoints: dict[str, list[JwksEndpoint]] = {}
        for endpoint in endpoints:
            self._endpoints.setdefault(endpoint.tenant, []).append(endpoint)

    def keys_for(self, tenant: str, kid: str | None) -> Sequence[VerificationKey]:
        return [key for key in self._keys.get(tenant, ()) if kid is None or key.kid in ("", kid)]

    def revision(self, tenant: str) -> int:
        return self._revision

    def tenants_hint(self, issuer: str) -> Sequence[str]:
        found = {key.tenant for keys in self._keys.values() for key in keys if key.issuer == issuer}
        found |= {held.tenant for many in self._endpoints.values() for held in many if held.issuer == issuer}
        return sorted(found)

    def endpoints_for(self, tenant: str) -> Sequence[JwksEndpoint]:
        return self._endpoints.get(tenant, ())


def _secret(material: bytes, short_allowed: bool) -> bytes:
    try:
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(
            material
        )  # refuses PEM, DER, SSH and JWK: an algorithm confusion
        refused = False
    except PyJWTError:
        refused = True
    if refused:
        raise BadKey("an HS256 key is a plain secret, not empty and not a public key")
    if len(material) < MIN_SECRET_BYTES:
        _short(f"an HS256 key has at least {MIN_SECRET_BYTES} bytes", short_allowed)
    return material


def _public(algorithm: str, material: bytes, short_allowed: bool) -> object:
    try:
        key: object = load_pem_public_key(material)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if key is None:
        raise BadKey(f"an {algorithm} key is a PEM public key")
    if algorithm == RS256 and isinstance(key, RSAPublicKey):
        if key.key_size < MIN_RSA_BITS:
            _short(f"an RS256 key has at least {MIN_RSA_BITS} bits", short_allowed)
    elif algorithm == ES256 and isinstance(key, EllipticCurvePublicKey):
        if not isinstance(key.curve, SECP256R1):
            raise BadKey("an ES256 key is on the curve P-256")
    elif algorithm != EDDSA or not isinstance(key, Ed25519PublicKey):
        raise BadKey(f"the key is not of the kind {algorithm} needs")
    return key


def _short(reason: str, allowed: bool) -> None:
    if not allowed:
        raise BadKey(reason)
    warnings.warn(
        reason + "; a shorter one is used because of legacy_short_keys", ShortKeyWarning, stacklevel=4
    )
