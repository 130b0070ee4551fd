"""The JWKS cache against a real HTTP server: rotation, outages, slowness, hostile answers."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dualcast.identity.dev import DevKey, generate
from dualcast.identity.jwks import JwksCache, JwksSettings, KeysUnavailable, read_set
from dualcast.identity.keys import JwksEndpoint, StaticKeys
from dualcast.identity.tokens import TokenVerifier
from dualcast.model.errors import Unauthorized
from support import tokens

pytestmark = pytest.mark.anyio

RSA = tokens.key("RS256", tenant="tenant-a", kid="r1")
EC = tokens.key("ES256", tenant="tenant-a", kid="e1")
ED = tokens.key("EdDSA", tenant="tenant-a", kid="d1")


class Provider:
    """An identity provider: serves `answer` as it is; waits for `gate` before the body when there is one."""

    def __init__(self) -> None:
        self.requests = 0
        self.seen = asyncio.Event()
        self.gate: asyncio.Event | None = None
        self.drip = False
        self.publish(RSA, EC, ED)

    def publish(self, *signers: DevKey) -> None:
        self.serve(json.dumps({"keys": [tokens.jwk(signer) for signer in signers]}).encode())

    def serve(self, body: bytes, status: str = "200 OK", *headers: str) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
        self.answer = "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            self.seen.set()
            if self.gate is not None:
                await self.gate.wait()
            if self.drip:
                for number in range(len(self.answer)):
                    writer.write(self.answer[number : number + 1])
                    await writer.drain()
                    await asyncio.sleep(0.05)
            writer.write(self.answer)
            await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def open(self, port: int = 0) -> None:
        self.server = await asyncio.start_server(self.connected, "127.0.0.1", port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self.server.close()
        if self.gate is not None:
            self.gate.set()
        await self.server.wait_closed()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/jwks.json"


class Rig:
    def __init__(self, provider: Provider, **settings: Any) -> None:
        self.provider = provider
        self.clock = tokens.Clock()
        known = {"allow_loopback_http": True, "timeout_s": 5.0, **settings}
        self.jwks = JwksCache(JwksSettings(**known), clock=self.clock)
        self.endpoint = JwksEndpoint(url=provider.url, tenant="tenant-a", issuer="https://idp")
        self.source = StaticKeys([tokens.key().verification()], [self.endpoint])
        self.verifier = TokenVerifier(self.source, jwks=self.jwks)

    def token(self, signer: DevKey, **changed: Any) -> str:
        return tokens.token(signer, **{"tenant": "tenant-a", "iss": "https://idp", **changed})

    async def refetched(self) -> None:
        """Waits for the fetch that runs behind."""
        self.provider.seen.clear()
        await self.provider.seen.wait()
        while any(held.flight is not None for held in self.jwks._sets.values()):
            await asyncio.sleep(0)


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    made = Provider()
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def rig(provider: Provider) -> AsyncIterator[Rig]:
    made = Rig(provider)
    yield made
    await made.jwks.close()


@pytest.mark.parametrize("signer", [RSA, EC, ED], ids=lambda signer: signer.algorithm)
async def test_published_keys_verify(rig: Rig, signer: DevKey) -> None:
    token = rig.token(signer)
    principal = await rig.verifier.verify(token)
    assert (principal.tenant, principal.sub) == ("tenant-a", "alice")
    assert rig.verifier.cached(token) is principal
    assert (await rig.verifier.verify(rig.token(signer, tenant=None))).tenant == "tenant-a"  # by its issuer
    assert rig.provider.requests == 1


async def test_a_published_key_is_bound_like_any_other(rig: Rig) -> None:
    for changed in (
        {"tenant": "default"},
        {"iss": "https://other"},
        {"iss": None, "tenant": None},
        {"aud": "x"},
    ):
        with pytest.raises(Unauthorized):
            await rig.verifier.verify(rig.token(RSA, **changed))


async def test_a_storm_makes_one_request(rig: Rig) -> None:
    rig.provider.gate = asyncio.Event()
    waiting = [
        asyncio.create_task(rig.verifier.verify(rig.token(EC, sub=str(number)))) for number in range(50)
    ]
    await rig.provider.seen.wait()
    waiting[0].cancel()  # a caller that goes away takes nobody with it
    rig.provider.gate.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(not isinstance(result, BaseException) for result in results) == 49
    assert rig.provider.requests == 1


async def test_rotation(rig: Rig) -> None:
    old_token = rig.token(RSA)
    await rig.verifier.verify(old_token)
    fresh = generate("RS256", tenant="tenant-a", kid="r2")
    rig.provider.publish(fresh)
    with pytest.raises(Unauthorized):  # within the cool-down nobody asks again
        await rig.verifier.verify(rig.token(fresh))
    assert rig.provider.requests == 1
    rig.clock.forward(11)
    assert (await rig.verifier.verify(rig.token(fresh))).sub == "alice"
    assert rig.provider.requests == 2
    assert rig.verifier.cached(old_token) is None  # its key is gone, and so is what it verified
    with pytest.raises(Unauthorized):
        await rig.verifier.verify(old_token)


async def test_unknown_key_ids_cannot_be_used_to_flood_the_provider(rig: Rig) -> None:
    await rig.verifier.verify(rig.token(RSA))
    rig.clock.forward(11)
    for number in range(30):
        stranger = DevKey(algorithm="ES256", material=EC.material, tenant="tenant-a", kid=f"x{number}")
        with pytest.raises(Unauthorized):
            await rig.verifier.verify(rig.token(stranger))
    assert rig.provider.requests == 2


async def test_an_old_set_is_renewed_behind_the_requests(rig: Rig) -> None:
    token = rig.token(RSA)
    await rig.verifier.verify(token)
    rig.clock.forward(301)
    rig.provider.gate = asyncio.Event()
    assert rig.verifier.cached(token) is not None  # and this has started a fetch
    rig.provider.gate.set()
    await rig.refetched()
    assert rig.provider.requests == 2
    assert rig.verifier.cached(token) is not None  # same keys, same revision
    rig.clock.forward(301)
    rig.provider.publish(EC)
    assert (await rig.verifier.verify(rig.token(RSA, sub="b"))).sub == "b"
    await rig.refetched()
    assert rig.verifier.cached(token) is None


async def test_provider_down_from_the_start_is_not_the_tokens_fault(rig: Rig) -> None:
    await rig.provider.close()
    for _ in range(2):
        with pytest.raises(KeysUnavailable) as failure:
            await rig.verifier.verify(rig.token(RSA))
        assert failure.value.retryable and failure.value.status == 503
    await rig.provider.open(rig.provider.port)
    rig.clock.forward(11)
    assert (await rig.verifier.verify(rig.token(RSA))).sub == "alice"


async def test_provider_down_later_old_keys_serve_for_a_day(rig: Rig) -> None:
    await rig.verifier.verify(rig.token(RSA))
    await rig.provider.close()
    rig.clock.forward(80_000)
    token = rig.token(RSA, sub="b")
    assert (await rig.verifier.verify(token)).sub == "b"
    while any(held.flight is not None for held in rig.jwks._sets.values()):
        await asyncio.sleep(0)
    with pytest.raises(KeysUnavailable):  # perhaps a key of a rotation we could not see
        await rig.verifier.verify(rig.token(generate("RS256", tenant="tenant-a", kid="new")))
    rig.clock.forward(6_401)
    assert rig.verifier.cached(token) is None
    with pytest.raises(KeysUnavailable):
        await rig.verifier.verify(token)
    await rig.provider.open(rig.provider.port)


@pytest.mark.parametrize("drip", [False, True])
async def test_slow_provider(provider: Provider, drip: bool) -> None:
    rig = Rig(provider, timeout_s=0.3)
    provider.drip = drip
    provider.gate = None if drip else asyncio.Event()
    with pytest.raises(KeysUnavailable):
        await rig.verifier.verify(rig.token(RSA))
    await rig.jwks.close()


async def test_tokens_of_other_tenants_do_not_wait_for_a_slow_provider(rig: Rig) -> None:
    rig.provider.gate = asyncio.Event()
    slow = asyncio.create_task(rig.verifier.verify(rig.token(RSA)))
    await rig.provider.seen.wait()
    assert (await rig.verifier.verify(tokens.token())).tenant == "default"
    assert not slow.done()
    rig.provider.gate.set()
    await slow


GOOD = json.dumps({"keys": [tokens.jwk(RSA)]}).encode()


@pytest.mark.parametrize(
    ("body", "status", "headers"),
    [
        (GOOD, "302 Found", ["Location: {url}"]),
        (GOOD, "500 Internal Server Error", []),
        (GOOD, "404 Not Found", []),
        (gzip.compress(GOOD), "200 OK", ["Content-Encoding: gzip"]),
        (GOOD + b" " * 300_000, "200 OK", []),
        (b"", "200 OK", []),
        (b"<html>", "200 OK", []),
        (b"[]", "200 OK", []),
        (b'{"keys": {}}', "200 OK", []),
        (b'{"keys": "x"}', "200 OK", []),
        (b"\xff\xfe", "200 OK", []),
        (b"[" * 100_000, "200 OK", []),
        (json.dumps({"keys": [tokens.jwk(RSA)] * 33}).encode(), "200 OK", []),
    ],
)
async def test_answers_that_are_not_used(rig: Rig, body: bytes, status: str, headers: list[str]) -> None:
    rig.provider.serve(body, status, *(header.format(url=rig.provider.url) for header in headers))
    with pytest.raises(KeysUnavailable):
        await rig.verifier.verify(rig.token(RSA))
    assert rig.provider.requests == 1


async def test_a_bad_answer_does_not_replace_good_keys(rig: Rig) -> None:
    await rig.verifier.verify(rig.token(RSA))
    rig.provider.serve(b"<html>maintenance</html>")
    rig.clock.forward(301)
    for number in range(3):
        assert (await rig.verifier.verify(rig.token(RSA, sub=str(number)))).sub == str(number)
    await rig.refetched()
    assert (await rig.verifier.verify(rig.token(RSA, sub="later"))).sub == "later"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/",
        "ftp://127.0.0.1:{port}/",
        "file:///etc/passwd",
        "http://192.0.2.1/",
        "",
        "https://",
    ],
)
async def test_only_https_unless_loopback_is_allowed(provider: Provider, url: str) -> None:
    jwks = JwksCache(JwksSettings(allow_loopback_http=not url.startswith("http://127")))
    endpoint = JwksEndpoint(url=url.format(port=provider.port), tenant="tenant-a")
    with pytest.raises(KeysUnavailable):
        await jwks.keys(endpoint, None)
    assert provider.requests == 0
    await jwks.close()


def entry(**changed: Any) -> tuple[int, ...]:
    endpoint = JwksEndpoint(url="https://idp/keys", tenant="tenant-a")
    document = json.dumps({"keys": [tokens.jwk(RSA, **changed)]}).encode()
    return tuple(1 for _ in read_set(document, endpoint, 32))


def test_which_keys_of_a_set_are_used() -> None:
    for usable in (
        {},
        {"use": None},
        {"alg": None},
        {"kid": None},
        {"key_ops": ["verify"]},
        {"x": "ignored"},
    ):
        assert entry(**usable) == (1,)
    for unusable in (
        {"use": "enc"},
        {"key_ops": ["encrypt"]},
        {"alg": "RS512"},
        {"alg": "HS256"},
        {"alg": "none"},
        {"alg": 5},
        {"kty": "oct", "k": tokens.b64(b"x" * 40)},
        {"kty": "EC"},
        {"kty": ["RSA"]},
        {"n": "AQAB"},
        {"n": "!"},
        {"n": None},
        {"kid": 5},
        {"d": "private"},
    ):
        assert entry(**unusable) == (), unusable


def test_short_rsa_keys_and_foreign_algorithms_of_a_set_are_left_out() -> None:
    endpoint = JwksEndpoint(url="https://idp/keys", tenant="tenant-a", algorithms=("ES256",))
    document = json.dumps(
        {"keys": [tokens.jwk(tokens.short_rsa()), tokens.jwk(RSA), tokens.jwk(EC), 5, None]}
    )
    assert [key.kid for key in read_set(document.encode(), endpoint, 32)] == ["e1"]
    assert all(key.tenant == "tenant-a" for key in read_set(document.encode(), endpoint, 32))


async def test_an_endpoint_that_was_taken_away_verifies_nothing_more(rig: Rig) -> None:
    token = rig.token(RSA)
    await rig.verifier.verify(token)
    rig.source.replace([tokens.key().verification()])
    assert rig.verifier.cached(token) is None
    with pytest.raises(Unauthorized):
        await rig.verifier.verify(token)


async def test_what_a_published_key_vouches_for(rig: Rig) -> None:
    principal = await rig.verifier.verify(rig.token(RSA))
    assert await rig.verifier.vouches_for(principal)
    cold = Rig(rig.provider)  # another node, or this one after a restart
    assert await cold.verifier.vouches_for(principal)
    await cold.jwks.close()
    rig.provider.publish(EC)
    rig.clock.forward(301)
    assert await rig.verifier.vouches_for(principal)
    await rig.refetched()
    assert not await rig.verifier.vouches_for(principal)


async def test_two_providers_of_one_tenant_one_of_them_down(rig: Rig) -> None:
    dead = JwksEndpoint(url="http://127.0.0.1:1/", tenant="tenant-a", issuer="https://idp")
    rig.source.replace([], [dead, rig.endpoint])
    assert (await rig.verifier.verify(rig.token(RSA))).sub == "alice"


async def test_close_ends_a_running_fetch(provider: Provider) -> None:
    rig = Rig(provider)
    provider.gate = asyncio.Event()
    waiting = asyncio.create_task(rig.verifier.verify(rig.token(RSA)))
    await provider.seen.wait()
    await rig.jwks.close()
    with pytest.raises(KeysUnavailable):
        await waiting


async def test_no_token_and_no_key_in_the_log(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = rig.token(RSA)
    rig.provider.serve(b"<html>", "500 Oops")
    with pytest.raises(KeysUnavailable) as failure:
        await rig.verifier.verify(token)
    text = caplog.text + repr(failure.value) + str(failure.value)
    assert "jwks fetch failed" in text
    assert not any(part in text for part in token.split("."))
