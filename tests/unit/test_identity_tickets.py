"""Connect tickets: once for a WebSocket, one stream's reconnects for SSE, never for anybody else."""

from __future__ import annotations

import asyncio

import pytest

from dualcast.identity.tickets import SPACE, Tickets, TicketSettings
from dualcast.model.errors import BadRequest, TokenExpired, Unauthorized
from dualcast.model.principal import Principal
from dualcast.state.memory import MemoryState
from dualcast.state.port import Value
from support.tokens import Clock

pytestmark = pytest.mark.anyio


class Rig:
    def __init__(self, **settings: int) -> None:
        self.clock = Clock()
        self.store = MemoryState(clock=self.clock)
        self.tickets = Tickets(self.store, TicketSettings(**settings), clock=self.clock)  # type: ignore[arg-type]
        self.other_node = Tickets(self.store, TicketSettings(**settings), clock=self.clock)  # type: ignore[arg-type]
        self.alice = self.principal("alice")

    def principal(self, sub: str, tenant: str = "default") -> Principal:
        return Principal(
            tenant=tenant,
            sub=sub,
            roles=frozenset({"publisher"}),
            channels=("room:1",),
            expires_at=int(self.clock.now) + 3600,
            token_id="t1",
            issued_at=int(self.clock.now),
        )


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_websocket_ticket_opens_once_on_any_node(rig: Rig) -> None:
    ticket = await rig.tickets.issue(rig.alice, "websocket")
    assert (await rig.other_node.redeem(ticket, "websocket")).principal == rig.alice
    for node in (rig.tickets, rig.other_node):
        with pytest.raises(Unauthorized, match="bad ticket"):
            await node.redeem(ticket, "websocket", resuming=True)


async def test_of_many_at_once_one_wins(rig: Rig) -> None:
    ticket = await rig.tickets.issue(rig.alice, "websocket")
    results = await asyncio.gather(
        *(rig.tickets.redeem(ticket, "websocket") for _ in range(20)), return_exceptions=True
    )
    assert sum(not isinstance(result, BaseException) for result in results) == 1


@pytest.mark.parametrize("transport", ["websocket", "sse"])
async def test_unused_ticket_ends_after_30_seconds(rig: Rig, transport: str) -> None:
    ticket = await rig.tickets.issue(rig.alice, transport)  # type: ignore[arg-type]
    rig.clock.forward(30)
    with pytest.raises(Unauthorized, match="bad ticket"):
        await rig.tickets.redeem(ticket, transport, resuming=True)  # type: ignore[arg-type]


async def test_sse_ticket_serves_the_reconnects_of_its_stream(rig: Rig) -> None:
    ticket = await rig.tickets.issue(rig.alice, "sse")
    first = await rig.tickets.redeem(ticket, "sse")
    rig.clock.forward(20)
    assert await rig.other_node.redeem(ticket, "sse") == first  # the first answer was lost on the way
    rig.clock.forward(1800)
    assert await rig.other_node.redeem(ticket, "sse", resuming=True) == first
    with pytest.raises(Unauthorized, match="bad ticket"):
        await rig.tickets.redeem(ticket, "sse")  # a new stream, not a reconnect
    rig.clock.forward(1800)
    with pytest.raises(Unauthorized):
        await rig.tickets.redeem(ticket, "sse", resuming=True)


async def test_concurrent_first_uses_of_an_sse_ticket(rig: Rig) -> None:
    ticket = await rig.tickets.issue(rig.alice, "sse")
    both = await asyncio.gather(rig.tickets.redeem(ticket, "sse"), rig.other_node.redeem(ticket, "sse"))
    assert both[0] == both[1]
    rig.clock.forward(100)
    assert (await rig.tickets.redeem(ticket, "sse", resuming=True)).principal == rig.alice


async def test_first_use_that_loses_a_race_with_revocation_is_refused(rig: Rig) -> None:
    ticket = await rig.tickets.issue(rig.alice, "sse")

    class Racing(MemoryState):
        async def get(self, space: str, key: str) -> Value | None:
            found = await rig.store.get(space, key)
            if found is not None:
                await rig.store.delete(space, key)
            return found

        async def put(self, *args: object, **kwargs: object) -> int:
            return await rig.store.put(*args, **kwargs)  # type: ignore[arg-type]

    with pytest.raises(Unauthorized):
        await Tickets(Racing(), clock=rig.clock).redeem(ticket, "sse")


async def test_a_ticket_is_for_its_transport(rig: Rig) -> None:
    for made_for, used_for in (("sse", "websocket"), ("websocket", "sse")):
        ticket = await rig.tickets.issue(rig.alice, made_for)  # type: ignore[arg-type]
        for presented in (ticket, ("w" if ticket[0] == "s" else "s") + ticket[1:]):
            with pytest.raises(Unauthorized):
                await rig.tickets.redeem(presented, used_for, resuming=True)  # type: ignore[arg-type]
        await rig.tickets.redeem(ticket, made_for)  # type: ignore[arg-type]  # and was not used up
    with pytest.raises(BadRequest):
        await rig.tickets.issue(rig.alice, "http")  # type: ignore[arg-type]


async def test_nothing_in_a_ticket_can_name_another_tenant_or_user(rig: Rig) -> None:
    mine = await rig.tickets.issue(rig.principal("alice", "tenant-a"), "sse")
    theirs = await rig.tickets.issue(rig.principal("alice", "tenant-b"), "sse")
    assert mine.split(".")[1] != theirs.split(".")[1]
    letter, _, secret = mine.split(".")
    crossed = f"{letter}.{theirs.split('.')[1]}.{secret}"
    with pytest.raises(Unauthorized):
        await rig.tickets.redeem(crossed, "sse")
    assert (await rig.tickets.redeem(mine, "sse")).principal.tenant == "tenant-a"


@pytest.mark.parametrize(
    "ticket",
    [
        "",
        "w",
        "s..",
        "x.0.0",
        "w." + "0" * 32 + "." + "A" * 43,
        "w." + "0" * 32 + "." + "A" * 43 + "\n",
        "é" * 20,
    ],
)
async def test_not_a_ticket(rig: Rig, ticket: str) -> None:
    with pytest.raises(Unauthorized, match="bad ticket"):
        await rig.tickets.redeem(ticket, "websocket")


async def test_the_store_never_holds_the_ticket_and_the_log_does_not_name_it(rig: Rig) -> None:
    ticket = await rig.tickets.issue(rig.alice, "sse")
    await rig.tickets.redeem(ticket, "sse")
    secret = ticket.split(".")[2]
    for value in await rig.store.list(SPACE):
        assert secret not in value.key and secret.encode() not in value.data
    assert (await rig.store.changes(0)).changes == ()


async def test_revoke_one_and_all_of_a_user(rig: Rig) -> None:
    first, second = [await rig.tickets.issue(rig.alice, "sse") for _ in range(2)]
    socket = await rig.tickets.issue(rig.alice, "websocket")
    bob = await rig.tickets.issue(rig.principal("bob"), "websocket")
    ticket_id = (await rig.tickets.redeem(first, "sse")).ticket_id
    assert first not in ticket_id
    assert await rig.tickets.revoke(ticket_id)
    assert not await rig.tickets.revoke(ticket_id)
    assert not await rig.tickets.revoke("")
    with pytest.raises(Unauthorized):
        await rig.tickets.redeem(first, "sse", resuming=True)
    assert await rig.tickets.revoke_user("default", "alice") == 2
    for ticket, transport in ((second, "sse"), (socket, "websocket")):
        with pytest.raises(Unauthorized):
            await rig.tickets.redeem(ticket, transport)  # type: ignore[arg-type]
    assert (await rig.tickets.redeem(bob, "websocket")).principal.sub == "bob"


async def test_limit_per_user_ends_the_oldest() -> None:
    rig = Rig(max_per_user=2)
    bob = await rig.tickets.issue(rig.principal("bob"), "websocket")
    first, second, third = [await rig.tickets.issue(rig.alice, "websocket") for _ in range(3)]
    assert len(await rig.store.list(SPACE)) == 3
    with pytest.raises(Unauthorized):
        await rig.tickets.redeem(first, "websocket")
    for ticket in (second, third, bob):
        await rig.tickets.redeem(ticket, "websocket")


async def test_no_ticket_outlives_its_principal(rig: Rig) -> None:
    brief = Principal(tenant="default", sub="a", expires_at=int(rig.clock.now) + 10)
    ticket = await rig.tickets.issue(brief, "websocket")
    rig.clock.forward(10)
    with pytest.raises(Unauthorized):
        await rig.tickets.redeem(ticket, "websocket")
    with pytest.raises(TokenExpired):
        await rig.tickets.issue(brief, "websocket")
