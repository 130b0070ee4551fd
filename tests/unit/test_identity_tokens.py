"""Tokens → principals: every way a token can be wrong, and the cache."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualcast.identity.claims import TokenSettings
from dualcast.identity.dev import DevKey, generate, issue, public_pem, sign
from dualcast.identity.keys import StaticKeys, VerificationKey
from dualcast.identity.tokens import TokenVerifier
from dualcast.model.errors import TokenExpired, Unauthorized
from dualcast.model.principal import Principal
from support import tokens

pytestmark = pytest.mark.anyio

A = tokens.key(tenant="tenant-a", kid="k1")
B = tokens.key(tenant="tenant-b", kid="k1")
D = tokens.key()


def verifier(*keys: DevKey, clock: Any = time.time, **kwargs: Any) -> TokenVerifier:
    return TokenVerifier(StaticKeys(key.verification() for key in keys or (D, A, B)), clock=clock, **kwargs)


async def refused(token: str, *keys: DevKey, **kwargs: Any) -> Unauthorized:
    with pytest.raises(Unauthorized) as refusal:
        await verifier(*keys, **kwargs).verify(token)
    assert refusal.value.__context__ is None and refusal.value.__cause__ is None
    assert refusal.value.reason in ("bad token", "token expired")
    return refusal.value


@pytest.mark.parametrize("algorithm", tokens.ALGORITHMS)
async def test_good_token(algorithm: str) -> None:
    signer = tokens.key(algorithm, tenant="tenant-a", kid="k9")
    now = int(time.time())
    token = sign(
        signer,
        {
            "sub": "alice@example.com",
            "tenant": "tenant-a",
            "iat": now,
            "nbf": now,
            "exp": now + 60,
            "role": "admin",
            "roles": ["publisher", "admin"],
            "channels": ["topic:*", "room:7", "topic:*"],
            "jti": "id-1",
            "unknown": {"is": ["ignored"]},
        },
    )
    checker = verifier(signer)
    assert checker.cached(token) is None
    principal = await checker.verify(token)
    assert principal == Principal(
        tenant="tenant-a",
        sub="alice@example.com",
        roles=frozenset({"admin", "publisher"}),
        channels=("topic:*", "room:7"),
        expires_at=now + 60 + 30,
        token_id="id-1",
        issued_at=now,
        key_id=signer.verification().fingerprint,
        role="admin",
    )
    assert checker.cached(token) is principal


async def test_integer_sub_is_text_and_missing_jti_is_replaced() -> None:
    first = await verifier().verify(tokens.token(sub=42))
    assert first.sub == "42"
    assert len(first.token_id) == 16
    assert first.issued_at > 0
    assert (await verifier().verify(tokens.token(iat=None))).issued_at == 0


async def test_issued_by_dev() -> None:
    token = issue(A, "bob", roles=["publisher"], channels=["room:1"], life_s=60)
    principal = await verifier().verify(token)
    assert (principal.tenant, principal.sub, principal.roles) == ("tenant-a", "bob", {"publisher"})


async def test_expired_is_told_apart_only_with_a_good_signature() -> None:
    past = int(time.time()) - 31
    assert isinstance(await refused(tokens.token(exp=past)), TokenExpired)
    stranger = generate()
    assert not isinstance(await refused(tokens.token(stranger, exp=past)), TokenExpired)
    assert not isinstance(await refused(tokens.token(exp=past, sub=None)), TokenExpired)
    assert not isinstance(await refused(tokens.token(exp=past, type="refresh")), TokenExpired)


async def test_leeway() -> None:
    now = int(time.time())
    for allowed in ({"exp": now - 20}, {"nbf": now + 20}, {"iat": now + 20}):
        principal = await verifier().verify(tokens.token(**allowed))
        assert principal.expires_at > now
    await refused(tokens.token(exp=now - 20), settings=TokenSettings(leeway_s=0))


BAD_CLAIMS: list[dict[str, Any]] = [
    {"exp": None},
    {"sub": None},
    {"sub": ""},
    {"sub": True},
    {"sub": 1.5},
    {"sub": ["alice"]},
    {"sub": {"id": 1}},
    {"sub": 10**30},
    {"sub": "x" * 257},
    {"sub": "a\r\nb"},
    {"sub": "a\x00"},
    {"exp": "soon"},
    {"exp": "4102444800"},
    {"exp": True},
    {"exp": [4102444800]},
    {"exp": -1},
    {"exp": 10**400},
    {"exp": int(time.time()) + 367 * 86_400},
    {"nbf": int(time.time()) + 7200},
    {"nbf": "now"},
    {"iat": int(time.time()) + 7200},
    {"iat": "now"},
    {"iat": -5},
    {"jti": ""},
    {"jti": ["x"]},
    {"jti": "x" * 257},
    {"type": "refresh"},
    {"type": "Refresh"},
    {"token_type": "refresh"},
    {"token_use": "refresh"},
    {"typ": "refresh"},
    {"role": 7},
    {"role": {"admin": True}},
    {"role": ""},
    {"roles": [7]},
    {"roles": ["a\n"]},
    {"roles": ["r"] * 65},
    {"channels": "topic:*"},
    {"channels": {"topic": 1}},
    {"channels": [1]},
    {"channels": ["*"]},
    {"channels": ["nokind:1"]},
    {"channels": ["topic:"]},
    {"channels": ["topic:" + "x" * 1025]},
    {"channels": ["topic:*a*a*a*a*a"]},
    {"channels": ["topic:1"] * 129},
    {"tenant": ""},
    {"tenant": 1},
    {"tenant": None, "aud": "somebody-else"},
    {"tenant": "unknown"},
    {"tenant": "../default"},
]


@pytest.mark.parametrize("changed", BAD_CLAIMS, ids=range(len(BAD_CLAIMS)))
async def test_bad_claims(changed: dict[str, Any]) -> None:
    assert (await refused(tokens.token(**changed))).code == "unauthorized"


@pytest.mark.parametrize(
    "raw", [b'{"sub":"a","exp":1e400}', b'{"sub":"a","exp":NaN}', b'{"sub":"a","exp":Infinity}']
)
async def test_numbers_that_are_none(raw: bytes) -> None:
    await refused(tokens.forge({"alg": "HS256"}, raw, D.material))


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"null", b'"x"', b"{", b"\xff\xfe", b'{"sub":"\xff","exp":4e9}', b"[" * 3000]
)
async def test_payload_that_is_no_object(payload: bytes) -> None:
    await refused(tokens.forge({"alg": "HS256"}, payload, D.material))


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "None"},
        {"alg": "NONE"},
        {"alg": ""},
        {"alg": None},
        {"alg": ["HS256"]},
        {},
        {"alg": "HS512"},
        {"alg": "HS256", "kid": 5},
        {"alg": "HS256", "crit": ["exp"], "exp": 1},
        {"alg": "HS256", "crit": []},
        {"alg": "HS256", "b64": False, "crit": ["b64"]},
    ],
    ids=str,
)
async def test_bad_header(header: dict[str, Any]) -> None:
    await refused(tokens.forge(header, tokens.claims(), D.material))
    await refused(tokens.forge(header, tokens.claims()))
    await refused(tokens.forge(header, tokens.claims()) + "AA")


async def test_the_header_must_name_the_algorithm_that_signed() -> None:
    for named in ("RS256", "ES256", "EdDSA"):
        await refused(tokens.forge({"alg": named}, tokens.claims(), D.material))


async def test_key_material_in_the_header_is_not_looked_at() -> None:
    stranger = tokens.key("RS256", kid="stranger")
    for extra in ({"jwk": tokens.jwk(stranger)}, {"jku": "https://evil.example/keys"}, {"x5u": "https://e"}):
        head = {"alg": "HS256", **extra}
        await refused(tokens.forge(head, tokens.claims(), b"x" * 32))


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_public_key_as_hmac_secret(algorithm: str) -> None:
    key = tokens.key(algorithm)
    pem = public_pem(key.material)
    for secret in (pem, pem.strip(), pem.replace(b"\n", b"")):
        await refused(tokens.forge({"alg": "HS256"}, tokens.claims(), secret), key)


async def test_changed_signature_and_changed_payload() -> None:
    head, body, signature = tokens.token().split(".")
    await refused(f"{head}.{body}.{signature[:-2]}")
    await refused(f"{head}.{body}.{'A' * 43}")
    other = tokens.b64(b'{"sub":"mallory","exp":4102444800}')
    await refused(f"{head}.{other}.{signature}")


@pytest.mark.parametrize("algorithm", tokens.ALGORITHMS)
async def test_a_token_has_one_spelling(algorithm: str) -> None:
    """A respelt token would have another digest, and slip past a revocation that names it by its digest."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    signer = tokens.key(algorithm)
    checker = verifier(signer)
    for pad in ("", "x", "xx"):
        token = tokens.token(signer, pad=pad)
        assert (await checker.verify(token)).sub == "alice"
        for place, part in enumerate(token.split(".")):
            for letter in letters:
                if letter != part[-1]:
                    parts = token.split(".")
                    parts[place] = part[:-1] + letter
                    with pytest.raises(Unauthorized):
                        await checker.verify(".".join(parts))


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "a.b",
        "x" * 9000,
        "null",
        "undefined",
        "ключ.ключ.ключ",
        "a.b.c\n",
        " a.b.c",
        "a.b.c d",
    ],
)
async def test_not_a_token_at_all(token: str) -> None:
    assert verifier().cached(token) is None
    await refused(token)


async def test_size_limit() -> None:
    assert (await verifier().verify(tokens.token(pad="x" * 5000))).sub == "alice"
    await refused(tokens.token(pad="x" * 7000))


async def test_whitespace_around_a_good_token_is_not_forgiven() -> None:
    for token in (tokens.token() + "\n", " " + tokens.token(), tokens.token() + "="):
        await refused(token)


async def test_a_key_of_one_tenant_never_mints_a_principal_of_another() -> None:
    checker = verifier()
    assert (await checker.verify(tokens.token(A, tenant="tenant-a"))).tenant == "tenant-a"
    for claimed in ("tenant-b", "default"):
        await refused(tokens.token(A, tenant=claimed))
    await refused(tokens.token(A, tenant=None))  # means the default tenant, whose key did not sign it
    await refused(tokens.token(D, tenant="tenant-a"))


async def test_a_source_that_mixes_tenants_up_is_not_believed() -> None:
    class Confused(StaticKeys):
        def keys_for(self, tenant: str, kid: str | None) -> list[VerificationKey]:
            return [A.verification(), B.verification()]

    checker = TokenVerifier(Confused())
    with pytest.raises(Unauthorized):
        await checker.verify(tokens.token(A, tenant="tenant-b"))
    with pytest.raises(Unauthorized):
        await checker.verify(tokens.token(A))  # means the default tenant
    assert (await checker.verify(tokens.token(A, tenant="tenant-a"))).tenant == "tenant-a"


async def test_issuer_names_the_tenant_of_a_token_without_the_claim() -> None:
    source = StaticKeys(
        [A.verification(issuer="https://idp"), D.verification(), B.verification(issuer="https://b")]
    )
    checker = TokenVerifier(source)
    assert (await checker.verify(tokens.token(A, iss="https://idp"))).tenant == "tenant-a"
    assert (await checker.verify(tokens.token(D))).tenant == "default"
    for wrong in ("https://b", "https://idp/", "", None):
        with pytest.raises(Unauthorized):
            await checker.verify(tokens.token(A, tenant="tenant-a", iss=wrong))


async def test_audience() -> None:
    checker = TokenVerifier(StaticKeys([D.verification(audience="dualcast")]))
    assert (await checker.verify(tokens.token(aud="dualcast"))).sub == "alice"
    for wrong in (None, "other", ["dualcast"], ["dualcast", "other"], "", 5):
        with pytest.raises(Unauthorized):
            await checker.verify(tokens.token(aud=wrong))
    lenient = TokenVerifier(
        StaticKeys([D.verification(audience="dualcast")]), TokenSettings(strict_audience=False)
    )
    assert (await lenient.verify(tokens.token(aud=["dualcast", "other"]))).sub == "alice"
    with pytest.raises(Unauthorized):
        await lenient.verify(tokens.token(aud=["other"]))


async def test_two_keys_without_names_and_unknown_kid() -> None:
    old, new = generate(kid=""), generate(kid="")
    checker = verifier(old, new)
    for signer in (old, new):
        assert (await checker.verify(tokens.token(signer))).sub == "alice"
    named = generate(kid="other")
    await refused(tokens.token(named), A, D)


async def test_only_so_many_keys_are_tried() -> None:
    many = [generate(kid="") for _ in range(9)]
    assert (await verifier(*many).verify(tokens.token(many[7]))).sub == "alice"
    await refused(tokens.token(many[8]), *many)


async def test_short_legacy_secret() -> None:
    short = DevKey(algorithm="HS256", material=b"your-secret-key")
    with pytest.warns(UserWarning):
        key = short.verification(legacy_short_keys=True)
    with pytest.warns(Warning):
        token = tokens.token(short)
    assert (await TokenVerifier(StaticKeys([key])).verify(token)).sub == "alice"


@given(st.text(max_size=200))
def test_any_text_is_refused_calmly(text: str) -> None:
    checker = verifier()
    assert checker.cached(text) is None
    step = checker.verify(text)
    with pytest.raises(Unauthorized):
        step.send(None)


@given(
    st.dictionaries(
        st.sampled_from(
            ["sub", "exp", "iat", "nbf", "jti", "tenant", "role", "roles", "channels", "aud", "iss", "type"]
        ),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(max_size=20),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
            ),
            max_leaves=5,
        ),
    )
)
def test_any_claims_give_a_principal_or_unauthorized(changed: dict[str, Any]) -> None:
    token = tokens.forge({"alg": "HS256"}, {**tokens.claims(), **changed}, D.material)
    step = verifier().verify(token)
    try:
        step.send(None)
    except StopIteration as done:
        principal = done.value
        assert isinstance(principal.sub, str) and principal.tenant == "default"
        assert principal.expires_at > time.time()
    except Unauthorized:
        pass
