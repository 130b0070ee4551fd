"""The cache of verified tokens: bounded, and never better than a fresh verification."""

from __future__ import annotations

from typing import Any

import pytest

from dualcast.identity.claims import TokenSettings
from dualcast.identity.keys import StaticKeys
from dualcast.identity.tokens import TokenVerifier
from dualcast.model.errors import TokenExpired, Unauthorized
from dualcast.model.principal import Principal
from support import tokens

pytestmark = pytest.mark.anyio

A = tokens.key(tenant="tenant-a", kid="k1")
D = tokens.key()


def verifier(**kwargs: Any) -> TokenVerifier:
    return TokenVerifier(StaticKeys([D.verification()]), **kwargs)


async def test_cache_ends_with_the_token() -> None:
    clock = tokens.Clock()
    checker = verifier(clock=clock)
    token = tokens.token(exp=int(clock.now) + 60)
    await checker.verify(token)
    clock.forward(80)
    assert checker.cached(token) is not None
    clock.forward(11)
    assert checker.cached(token) is None
    with pytest.raises(TokenExpired):
        await checker.verify(token)


async def test_cache_ends_with_the_key() -> None:
    source = StaticKeys([D.verification()])
    checker = TokenVerifier(source)
    token = tokens.token()
    await checker.verify(token)
    source.replace([D.verification(), A.verification()])
    assert checker.cached(token) is None
    await checker.verify(token)
    source.replace([A.verification()])
    assert checker.cached(token) is None
    with pytest.raises(Unauthorized):
        await checker.verify(token)


async def test_cache_asks_for_revocations_every_time() -> None:
    class Revoked:
        def __init__(self) -> None:
            self.ids: set[str] = set()

        def is_revoked(self, principal: Principal) -> bool:
            return principal.token_id in self.ids

    revoked = Revoked()
    checker = verifier(revocations=revoked)
    token = tokens.token(jti="t1")
    await checker.verify(token)
    revoked.ids = {"t1"}
    assert checker.cached(token) is None
    with pytest.raises(Unauthorized, match="bad token"):
        await checker.verify(token)


async def test_cache_is_bounded_and_forgets_the_least_recently_used() -> None:
    checker = verifier(settings=TokenSettings(cache_entries=2))
    first, second, third = (tokens.token(sub=name) for name in ("a", "b", "c"))
    await checker.verify(first)
    await checker.verify(second)
    checker.cached(first)
    await checker.verify(third)
    assert [checker.cached(token) is not None for token in (first, second, third)] == [True, False, True]
    assert len(checker) == 2
