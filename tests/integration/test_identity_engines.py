"""Tickets and revocations on every real state engine, and the follower that carries them to other nodes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from dualcast.identity.revocation import SPACE, Revocations
from dualcast.identity.tickets import Tickets, TicketSettings
from dualcast.model.errors import Unauthorized
from dualcast.model.principal import Principal
from dualcast.state.follow import StateFollower
from dualcast.state.port import StateStore
from support.redis_server import RedisServer
from support.state_engines import ENGINES, open_state

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with RedisServer(tcp=True) as server:
        yield server.url


@pytest.fixture(params=ENGINES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StateStore]:
    url = request.getfixturevalue("redis_url") if request.param == "redis" else ""
    async with open_state(request.param, tmp_path, url) as opened:
        yield opened


def principal(sub: str = "alice") -> Principal:
    now = int(time.time())
    return Principal(
        tenant="default",
        sub=sub,
        roles=frozenset({"b", "a"}),
        channels=("room:中文",),
        expires_at=now + 600,
        token_id="t1",
        issued_at=now,
    )


async def test_a_socket_ticket_has_one_winner(store: StateStore) -> None:
    nodes = [Tickets(store), Tickets(store)]
    alice = principal()
    ticket = await nodes[0].issue(alice, "websocket")
    tries = await asyncio.gather(
        *(nodes[number % 2].redeem(ticket, "websocket") for number in range(10)), return_exceptions=True
    )
    winners = [outcome for outcome in tries if not isinstance(outcome, BaseException)]
    assert [winner.principal for winner in winners] == [alice]
    assert all(isinstance(outcome, Unauthorized) for outcome in tries if isinstance(outcome, BaseException))


async def test_a_stream_ticket_lives_on_after_first_use(store: StateStore) -> None:
    clock_shift = 0.0
    tickets = Tickets(store, clock=lambda: time.time() + clock_shift)
    ticket = await tickets.issue(principal(), "sse")
    first, second = await asyncio.gather(tickets.redeem(ticket, "sse"), tickets.redeem(ticket, "sse"))
    assert first == second
    clock_shift = 300.0
    assert await tickets.redeem(ticket, "sse", resuming=True) == first
    assert await tickets.revoke(first.ticket_id)
    with pytest.raises(Unauthorized):
        await tickets.redeem(ticket, "sse", resuming=True)


async def test_limit_and_revocation_of_all_tickets_of_a_user(store: StateStore) -> None:
    tickets = Tickets(store, TicketSettings(max_per_user=3))
    issued = [await tickets.issue(principal(), "sse") for _ in range(5)]
    for old in issued[:2]:
        with pytest.raises(Unauthorized):
            await tickets.redeem(old, "sse")
    await tickets.redeem(issued[4], "sse")
    bob = await tickets.issue(principal("bob"), "sse")
    assert await tickets.revoke_user("default", "alice") == 3
    assert (await tickets.redeem(bob, "sse")).principal.sub == "bob"


async def test_a_revocation_reaches_the_other_node(store: StateStore) -> None:
    here, there = Revocations(store), Revocations(store)
    told: asyncio.Queue[tuple[str, str | None, str | None]] = asyncio.Queue()
    there.on_revoked(lambda *what: told.put_nowait(what))
    follower = StateFollower(store, interval_s=0.05)
    follower.on(SPACE, there.changed, there.load)
    await here.revoke_token("default", "earlier")
    await follower.refresh()
    assert told.get_nowait() == ("default", "earlier", None)
    polling = asyncio.create_task(follower.run())
    try:
        await here.revoke_token("default", "t1")
        assert await asyncio.wait_for(told.get(), 10) == ("default", "t1", None)
        await here.revoke_user("default", "боб|1")
        assert await asyncio.wait_for(told.get(), 10) == ("default", None, "боб|1")
    finally:
        polling.cancel()
    assert there.is_revoked(principal()) and there.is_revoked(principal("боб|1"))
