"""Keys of every algorithm and tokens with arbitrary headers and claims, good and forged."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from dualcast.identity.dev import DevKey, generate, sign

ALGORITHMS = ("HS256", "RS256", "ES256", "EdDSA")


@cache
def key(algorithm: str = "HS256", *, tenant: str = "default", kid: str = "") -> DevKey:
    """A signing key; the same arguments give the same key within a run."""
    return generate(algorithm, tenant=tenant, kid=kid)


@cache
def short_rsa(bits: int = 1024) -> DevKey:
    """An RSA key below the allowed length."""
    private = rsa.generate_private_key(public_exponent=65_537, key_size=bits)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return DevKey(algorithm="RS256", material=pem)


def claims(**changed: Any) -> dict[str, Any]:
    """Good claims for an hour of user alice, with `changed` ones; None removes a claim."""
    now = int(time.time())
    both = {"sub": "alice", "iat": now, "exp": now + 3600, **changed}
    return {name: value for name, value in both.items() if value is not None}


def token(signer: DevKey | None = None, **changed: Any) -> str:
    """A token of `claims(**changed)` signed by `signer` (default: the default tenant's HS256 key)."""
    return sign(signer or key(), claims(**changed))


def b64(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forge(header: Mapping[str, Any], payload: Mapping[str, Any] | bytes, secret: bytes | None = None) -> str:
    """A token put together by hand; HMAC-SHA-256 with `secret`, or an empty signature."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    signed = f"{b64(json.dumps(header).encode())}.{b64(body)}"
    signature = b"" if secret is None else hmac.new(secret, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{b64(signature)}"


def jwk(signer: DevKey, **changed: Any) -> dict[str, Any]:
    """The public JWK of an asymmetric `signer`, with `changed` members; None removes one."""
    kinds: dict[str, Any] = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}
    private: Any = load_pem_private_key(signer.material, password=None)
    made = kinds[signer.algorithm].to_jwk(private.public_key(), as_dict=True)
    for extra in ("key_ops",):
        made.pop(extra, None)
    both = {**made, "kid": signer.kid, "use": "sig", "alg": signer.algorithm, **changed}
    return {name: value for name, value in both.items() if value is not None}


def bearer(text: str) -> list[tuple[bytes, bytes]]:
    """ASGI headers with `text` as bearer token."""
    return [(b"authorization", b"Bearer " + text.encode())]


class Clock:
    """A clock that stands still until moved; starts at the real Unix time."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += seconds
