"""The claim `role` by itself: what clients are told of (`user_role`), beside the merged roles that decide."""

from __future__ import annotations

from typing import Any

import pytest

from dualcast.identity.keys import StaticKeys
from dualcast.identity.tokens import TokenVerifier
from support import tokens

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("claims", "role", "roles"),
    [
        ({"role": "consultant", "roles": ["admin", "customer"]}, "consultant", {"admin", "customer"}),
        ({"role": ["b", "a"]}, "b", {"a"}),
        ({"roles": ["admin"]}, "", {"admin"}),
        ({"role": []}, "", set()),
        ({}, "", set()),
    ],
)
async def test_the_role_claim_is_kept_as_it_was_said(
    claims: dict[str, Any], role: str, roles: set[str]
) -> None:
    verifier = TokenVerifier(StaticKeys([tokens.key().verification()]))
    principal = await verifier.verify(tokens.token(**claims))
    assert principal.role == role
    assert principal.roles == roles | ({role} if role else set())
    assert principal.is_admin == ("admin" in principal.roles)
