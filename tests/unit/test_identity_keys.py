"""Verification keys: minimum lengths, one algorithm per key, nothing secret in a repr."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dualcast.identity.dev import DevKey, generate, public_pem
from dualcast.identity.keys import BadKey, ShortKeyWarning, StaticKeys, VerificationKey
from dualcast.model.errors import BadChannel
from support import tokens

SECRET = b"0123456789abcdef0123456789abcdef"


def signs(key: VerificationKey, token: str) -> bool:
    signed, _, signature = token.rpartition(".")
    return key.verifies(signed.encode(), base64.urlsafe_b64decode(signature + "=="))


def pem_of(private: object) -> bytes:
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]


@pytest.mark.parametrize("algorithm", tokens.ALGORITHMS)
def test_verifies_what_its_signer_signed_and_nothing_else(algorithm: str) -> None:
    signer, other = tokens.key(algorithm), generate(algorithm)
    assert signs(signer.verification(), tokens.token(signer))
    assert not signs(signer.verification(), tokens.token(other))


@pytest.mark.parametrize("algorithm", tokens.ALGORITHMS)
@pytest.mark.parametrize("signed_with", tokens.ALGORITHMS)
def test_a_key_has_one_algorithm_only(algorithm: str, signed_with: str) -> None:
    token = tokens.token(tokens.key(signed_with))
    assert signs(tokens.key(algorithm).verification(), token) == (algorithm == signed_with)


@pytest.mark.parametrize("algorithm", tokens.ALGORITHMS)
@pytest.mark.parametrize("signature", [b"", b"x", b"\0" * 32, b"\0" * 64, b"\xff" * 256, b"x" * 5000])
def test_odd_signatures_are_wrong_not_errors(algorithm: str, signature: bytes) -> None:
    assert not tokens.key(algorithm).verification().verifies(b"a.b", signature)


def test_short_keys_are_refused_unless_allowed_and_then_warned_about() -> None:
    short = DevKey(algorithm="HS256", material=b"secret")
    with pytest.raises(BadKey, match="at least 32 bytes"):
        short.verification()
    with pytest.warns(ShortKeyWarning):
        key = short.verification(legacy_short_keys=True)
    with pytest.warns(Warning):
        token = tokens.token(short)
    assert signs(key, token)  # and no warning per token

    rsa = tokens.short_rsa()
    with pytest.raises(BadKey, match="at least 2048 bits"):
        rsa.verification()
    with pytest.warns(ShortKeyWarning):
        rsa_key = rsa.verification(legacy_short_keys=True)
    with pytest.warns(Warning):
        token = tokens.token(rsa)
    assert signs(rsa_key, token)


def test_31_bytes_are_too_short_and_32_are_not() -> None:
    with pytest.raises(BadKey):
        VerificationKey(algorithm="HS256", material=SECRET[:31], tenant="default")
    VerificationKey(algorithm="HS256", material=SECRET, tenant="default")


@pytest.mark.parametrize(
    ("algorithm", "material"),
    [
        ("none", SECRET),
        ("HS512", SECRET),
        ("hs256", SECRET),
        ("", SECRET),
        ("HS256", b""),
        ("HS256", public_pem(tokens.key("RS256").material)),  # the classic confusion
        ("HS256", public_pem(tokens.key("EdDSA").material)),
        ("HS256", b'{"kty":"oct","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}'),
        ("RS256", SECRET),
        ("RS256", b""),
        ("RS256", tokens.key("RS256").material),  # a private key
        ("RS256", public_pem(tokens.key("ES256").material)),
        ("ES256", public_pem(tokens.key("RS256").material)),
        ("ES256", pem_of(ec.generate_private_key(ec.SECP384R1()))),
        ("EdDSA", public_pem(tokens.key("ES256").material)),
        ("EdDSA", pem_of(ed448.Ed448PrivateKey.generate())),
    ],
)
def test_refuses_wrong_material(algorithm: str, material: bytes) -> None:
    with pytest.raises(BadKey) as refusal:
        VerificationKey(algorithm=algorithm, material=material, tenant="default")
    assert not material or material.decode() not in str(refusal.value)


def test_a_key_needs_a_tenant() -> None:
    with pytest.raises(BadChannel):
        VerificationKey(algorithm="HS256", material=SECRET, tenant="")


def test_nothing_secret_is_in_a_repr() -> None:
    key = VerificationKey(algorithm="HS256", material=SECRET, tenant="default", kid="k1")
    signer = DevKey(algorithm="HS256", material=SECRET)
    for shown in (repr(key), str(key), f"{key}", repr(signer), repr([key, signer])):
        assert SECRET.decode() not in shown
    assert "k1" in repr(key)


def test_static_keys_answer_by_tenant_and_kid() -> None:
    named = tokens.key(tenant="a", kid="k1").verification(issuer="https://a")
    unnamed = tokens.key(tenant="a").verification()
    foreign = tokens.key(tenant="b", kid="k1").verification()
    source = StaticKeys([named, unnamed, foreign])
    assert source.keys_for("a", "k1") == [named, unnamed]
    assert source.keys_for("a", "k2") == [unnamed]
    assert source.keys_for("a", None) == [named, unnamed]
    assert source.keys_for("c", None) == []
    assert source.tenants_hint("https://a") == ["a"]
    assert source.tenants_hint("https://b") == []
    before = source.revision("a")
    source.replace([foreign])
    assert source.revision("a") != before
    assert source.keys_for("a", "k1") == []


def test_fingerprint_follows_every_field() -> None:
    base = tokens.key().verification()
    others = [
        tokens.key().verification(issuer="x"),
        tokens.key().verification(audience="x"),
        tokens.key(tenant="b").verification(),
        tokens.key(kid="k").verification(),
    ]
    assert len({base.fingerprint, *(other.fingerprint for other in others)}) == 5
