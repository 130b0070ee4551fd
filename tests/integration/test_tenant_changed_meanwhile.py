"""What a change of a tenant does to those who are on their way in, and to a node whose tenants have identity
providers that do not answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from dualcast.model.codes import Close
from dualcast.model.principal import Principal
from dualcast.tenancy.access import Access
from dualcast_migration.muting import pairs_of
from dualcast_migration.policy import Decision
from support.clients import open_client, open_socket, open_stream
from support.node import Node, running_node
from support.tokens import key, token

pytestmark = pytest.mark.anyio
OLD, NEW = key(tenant="acme", kid="old"), key(tenant="acme", kid="new")


def body(signer: Any) -> dict[str, str]:
    return {"algorithm": "HS256", "kid": signer.kid, "secret": signer.material.decode()}


async def asked(node: Node, method: str, path: str, **how: Any) -> httpx.Response:
    headers = {**node.auth("ops", "operator"), "If-Match": "*"}
    answer = await node.http.request(method, f"/v1/tenants{path}", headers=headers, **how)
    assert answer.is_success, answer.text
    return answer


@asynccontextmanager
async def acme() -> AsyncIterator[Node]:
    async with running_node("memory") as node:
        await asked(node, "POST", "", json={"id": "acme", "keys": [body(OLD), body(NEW)]})
        yield node


def session_decision(node: Node) -> Decision:
    found = node.composition.tenants.current("acme")
    assert found is not None
    return found.decide("ann", 0)


class Slow:
    """The question whether somebody may subscribe, answered when it is `let`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked, self.let = asyncio.Event(), asyncio.Event()

        async def may_subscribe(access: Access, principal: Principal, channel: str) -> bool:
            self.asked.set()
            await self.let.wait()
            return True

        monkeypatch.setattr(Access, "may_subscribe", may_subscribe)


@pytest.mark.parametrize(
    ("transport", "change", "stays"),
    [
        ("ws", "sse", False),
        ("ws", "shadow", True),
        ("sse", "sse", True),
        ("ws", "key", False),
        ("sse", "key", False),
    ],
)
async def test_who_is_on_the_way_in_goes_by_what_the_tenant_has_become(
    transport: str, change: str, stays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with acme() as node:
        slow = Slow(monkeypatch)
        mine = token(OLD, sub="ann", tenant="acme")
        coming = asyncio.create_task(open_client(transport, node.port, mine, channels=["topic:x"]))
        async with asyncio.timeout(15):
            await slow.asked.wait()
        if change == "key":
            await asked(node, "DELETE", "/acme/keys", params={"kid": "old"})
        else:
            await asked(node, "PUT", "/acme/migration", json={"stage": change, "why": "a test"})
        await node.composition.follower.refresh()
        slow.let.set()
        async with await coming as client:
            if stays:
                await client.welcome()
                (session,) = node.sessions
                assert session.stage == change and session.pairs == pairs_of(session_decision(node))
            else:
                assert (await client.end()).code == (Close.TRY_LATER if transport == "ws" else None)
                assert not node.sessions


async def test_sessions_of_a_removed_key_end_and_others_stay() -> None:
    async with (
        acme() as node,
        await open_socket(node.port, token(OLD, sub="ann", tenant="acme")) as old,
        await open_stream(node.port, token(NEW, sub="bob", tenant="acme")) as new,
    ):
        await old.welcome()
        await new.welcome()
        await asked(node, "DELETE", "/acme/keys", params={"kid": "old"})
        assert (await old.end()).code == Close.REVOKED
        assert [session.principal.sub for session in node.sessions] == ["bob"]


async def test_an_identity_provider_that_does_not_answer_holds_up_nobody_elses_changes() -> None:
    async with acme() as node, await open_socket(node.port, token(OLD, sub="ann", tenant="acme")) as ann:
        await ann.welcome()
        silent = await asyncio.start_server(lambda *_: asyncio.sleep(3600), "127.0.0.1", 0)
        async with silent:
            url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}/keys"
            provider = {"algorithm": "RS256", "jwks_url": url, "kid": "idp"}
            await asked(node, "POST", "/acme/keys", json=provider)
            await asked(node, "DELETE", "/acme/keys", params={"kid": "old"})
            # Only the provider could tell that it vouches for her: nobody waits for that.
            await node.composition.follower.refresh()
            assert len(node.sessions) == 1
            await asked(node, "DELETE", "/acme/keys", params={"kid": "idp"})
            assert (await ann.end()).code == Close.REVOKED
