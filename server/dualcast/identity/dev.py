"""Signing, for `dualcast token`, `serve --dev` and tests. The server itself only verifies."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from .keys import ALGORITHMS, ES256, HS256, RS256, BadKey, VerificationKey


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DevKey:
    """A key that signs. `material`: the secret (HS256) or a PEM private key without a passphrase."""

    algorithm: str
    material: bytes
    tenant: str = "default"
    kid: str = ""

    def __repr__(self) -> str:
        return f"DevKey(tenant={self.tenant!r}, kid={self.kid!r}, algorithm={self.algorithm!r})"

    def verification(
        self, *, issuer: str = "", audience: str = "", legacy_short_keys: bool = False
    ) -> VerificationKey:
        """The key that verifies what this one signs. Raises BadKey."""
        return VerificationKey(
            kid=self.kid,
            algorithm=self.algorithm,
            material=self.material if self.algorithm == HS256 else public_pem(self.material),
            tenant=self.tenant,
            issuer=issuer,
            audience=audience,
            legacy_short_keys=legacy_short_keys,
        )


def generate(algorithm: str = HS256, *, tenant: str = "default", kid: str = "dev") -> DevKey:
    """A fresh random key of `algorithm`. Raises BadKey for an unknown one."""
    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
    if algorithm not in ALGORITHMS:
        raise BadKey("a key's algorithm is one of " + ", ".join(ALGORITHMS))
    if algorithm == HS256:
        return DevKey(algorithm=HS256, material=secrets.token_urlsafe(48).encode(), tenant=tenant, kid=kid)
    if algorithm == RS256:
        private = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    elif algorithm == ES256:
        private = ec.generate_private_key(ec.SECP256R1())
    else:
        private = ed25519.Ed25519PrivateKey.generate()
    material = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return DevKey(algorithm=algorithm, material=material, tenant=tenant, kid=kid)


def public_pem(private_pem: bytes) -> bytes:
    """The PEM public key that belongs to a PEM private key. Raises BadKey."""
    try:
        key: Any = load_pem_private_key(private_pem, password=None)
    except (ValueError, TypeError):
        key = None
    if key is None:
        raise BadKey("not a PEM private key without a passphrase")
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def sign(key: DevKey, claims: Mapping[str, Any]) -> str:
    """A token with exactly these claims and, if the key has a name, header `kid`."""
    headers = {"kid": key.kid} if key.kid else None
    return jwt.encode(dict(claims), key.material, algorithm=key.algorithm, headers=headers)


def issue(
    key: DevKey,
    sub: str,
    *,
    roles: Iterable[str] = (),
    channels: Iterable[str] = (),
    life_s: int = 3600,
    extra: Mapping[str, Any] | None = None,
) -> str:
    """A token for user `sub` of the key's tenant, good for `life_s` seconds from now, with a random `jti`."""
    now = int(time.time())
    claims: dict[str, Any] = {
        "sub": sub,
        "tenant": key.tenant,
        "iat": now,
        "exp": now + life_s,
        "jti": secrets.token_hex(8),
    }
    if named := sorted(roles):
        claims["roles"] = named
    if patterns := list(channels):
        claims["channels"] = patterns
    return sign(key, {**claims, **(extra or {})})
