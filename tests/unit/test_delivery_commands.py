"""Commands on a live session: shrinking rights, subscriptions that fail half way, unread answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dualcast.gateway.connect import Delivery, Request, make_session
from dualcast.model.errors import Unauthorized
from dualcast.model.principal import Principal
from dualcast.model.publication import Page
from dualcast.session.native_commands import NativeCommands
from dualcast.session.watching import watched
from support.engine_room import Room, ids, room
from support.model_bus import TENANT
from support.recording import ENCODING, RecordingSession, RecordingTransport, TestDialect

pytestmark = pytest.mark.anyio


class Talker(RecordingSession):
    """A session that takes commands."""

    __slots__ = ("commands", "pending")

    def __init__(self, *args: Any, **how: Any) -> None:
        super().__init__(*args, **how)
        self.commands = 0
        self.pending: list[Any] | None = None


class Office:
    """Rights and tokens as the test wants them."""

    def __init__(self) -> None:
        self.granted: set[str] = set()
        self.fresh = Principal(TENANT, "u", expires_at=99)
        self.refreshed = 0
        self.revoked_after = 1 << 30
        self.commands = NativeCommands(self.may, self.refresh)

    async def may(self, principal: Principal, channel: str) -> bool:
        await asyncio.sleep(0)
        return principal.owns(channel) or channel in self.granted

    async def refresh(self, old: Principal, token: str) -> Principal:
        self.refreshed += 1
        if self.refreshed > self.revoked_after:
            raise Unauthorized("revoked")
        return self.fresh


def talk(r: Room, *channels: str, position: int = -1) -> tuple[Talker, RecordingTransport]:
    for name in channels:
        r.hub.channel(TENANT, name)
    r.bus.confirm()
    principal = Principal(TENANT, "u", channels=("topic:*",))
    session = Talker(
        r.node,
        principal,
        ENCODING,
        TestDialect(),
        channels,
        epoch="e1" if position >= 0 else "",
        position=position,
    )
    transport = RecordingTransport()
    transport.session = session
    session.attached(transport, set(), paused=False, initial=b"")
    return session, transport


def replies(transport: RecordingTransport) -> list[dict[str, Any]]:
    return [json.loads(line) for line in transport.lines if line.startswith("{")]


async def ask(r: Room, office: Office, session: Talker, **command: Any) -> None:
    office.commands.text(cast(Any, session), json.dumps(command))
    await r.until(lambda: session.pending is None)


async def test_authenticate_with_fewer_rights_takes_channels_away() -> None:
    async with room() as r:
        office = Office()
        office.granted = {"topic:granted"}
        session, transport = talk(r, "user:u", "all", "topic:a", "topic:granted")
        await ask(r, office, session, type="authenticate", token="fewer")
        assert [feed.name for feed in session.channels] == ["user:u", "all", "topic:granted"]
        assert [reply["type"] for reply in replies(transport)] == ["authenticated"]
        authenticated = next(line for line in transport.lines if line.startswith("{"))
        told = [line for line in transport.lines if line == "unsubscribed topic:a" or line == authenticated]
        assert told == ["unsubscribed topic:a", authenticated]
        r.say("secret", "topic:a")
        r.say("own", "user:u")
        assert ids(transport) == ["own"]


async def test_a_token_revoked_while_its_rights_are_looked_up_is_refused() -> None:
    async with room() as r:
        office = Office()
        office.revoked_after = 1
        session, transport = talk(r, "user:u", "all", "topic:a")
        before = session.principal
        await ask(r, office, session, type="authenticate", token="revoked")
        assert session.principal is before
        assert [reply["type"] for reply in replies(transport)] == ["error"]


async def test_a_subscription_whose_history_cannot_be_read_is_none() -> None:
    async with room() as r:
        office = Office()
        r.say("one", "topic:a")
        session, transport = talk(r, "user:u", "all")
        r.hub.channel(TENANT, "topic:a")
        r.bus.confirm()
        r.bus.away = True
        await ask(r, office, session, type="subscribe", channels=["topic:a"], since="e1-0")
        assert [reply["type"] for reply in replies(transport)] == ["error"]
        assert [feed.name for feed in session.channels] == ["user:u", "all"]


async def test_history_asked_for_while_behind_is_not_delivered_twice() -> None:
    async with room() as r:
        office = Office()
        for number in range(1, 4):
            r.bus.publish(f"n{number}", ("topic:a",))
        r.bus.live.clear()
        hold = asyncio.Event()
        read = r.bus.read

        async def slow(tenant: str, channels: Sequence[str], after: int, limit: int) -> Page:
            if channels == ["user:u", "all"]:
                await hold.wait()
            return await read(tenant, channels, after, limit)

        r.bus.read = slow  # type: ignore[method-assign]
        session, transport = talk(r, "user:u", "all", position=1)
        r.hub.channel(TENANT, "topic:a")
        r.bus.confirm()
        await ask(r, office, session, type="subscribe", channels=["topic:a"], since="e1-0")
        hold.set()
        await r.until(lambda: session.live)
        assert sorted(ids(transport)) == ["n1", "n2", "n3"]


async def test_a_client_that_asks_and_does_not_read_is_sent_away() -> None:
    async with room() as r:
        office = Office()
        session, transport = talk(r, "user:u", "all")
        session.pause_writing()
        waiting = [100]
        transport.get_write_buffer_size = lambda: waiting[0]  # type: ignore[attr-defined]
        await ask(r, office, session, type="ping")
        assert not session.closed and replies(transport)[-1]["type"] == "pong"
        waiting[0] = 1 << 20
        await ask(r, office, session, type="ping")
        assert transport.lines[-1] == "bye 4200"


async def test_commands_of_a_closed_session_are_dropped() -> None:
    async with room() as r:
        office = Office()
        session, _ = talk(r, "user:u", "all")
        r.hub.channel(TENANT, "topic:a")
        r.bus.confirm()
        office.commands.text(cast(Any, session), '{"type":"subscribe","channels":["topic:a"]}')
        office.commands.text(cast(Any, session), '{"type":"subscribe","channels":["topic:b"]}')
        session.connection_lost(None)
        await r.until(lambda: session.pending is None)
        assert "topic:b" not in r.hub.tenants[TENANT].channels


async def test_a_token_revoked_during_its_handshake_opens_nothing() -> None:
    async with room() as r:
        request = Request()
        principal = Principal(TENANT, "u")
        request.authenticated = cast(Any, SimpleNamespace(principal=principal))
        request.channels, request.epoch, request.position = ["user:u", "all"], "", -1
        request.grant_changes = r.node.grant_changes
        request.address = request.instance = request.device = request.device_id = ""
        request.decision = cast(Any, SimpleNamespace(stage=SimpleNamespace(value="fallback"), may_pair=False))
        request.tenant = cast(Any, SimpleNamespace(settings=SimpleNamespace(max_connections_per_user=None)))
        request.visitor = cast(Any, None)
        revoked: list[Principal] = []
        revocations = SimpleNamespace(is_revoked=revoked.__contains__)
        delivery = Delivery(
            services=cast(Any, SimpleNamespace(revocations=revocations)),
            node=r.node,
            tenants=cast(Any, None),
            commands=cast(Any, None),
        )
        opening = asyncio.ensure_future(
            make_session(delivery, request, RecordingSession, encoding=ENCODING, dialect=TestDialect())
        )
        await asyncio.sleep(0)
        revoked.append(principal)
        r.bus.confirm()
        with pytest.raises(Unauthorized):
            await opening


async def test_a_handshake_that_is_cancelled_or_times_out_leaves_no_waiter() -> None:
    async with room() as r:
        session, _ = r.open_unconfirmed("user:u", "all")
        session.connection_lost(None)
        waiting = asyncio.ensure_future(watched(r.node, session.channels))
        await asyncio.sleep(0)
        assert r.hub._waiting
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert not r.hub._waiting


async def test_a_quiet_session_is_brought_up_to_where_the_new_channel_is_watched() -> None:
    async with room() as r:
        office = Office()
        session, transport = talk(r, "user:u", "all")
        r.bus.publish("before", ("topic:a",))
        r.bus.live.clear()
        r.hub.channel(TENANT, "topic:a")
        r.bus.confirm()
        await ask(r, office, session, type="subscribe", channels=["topic:a"])
        r.say("after", "topic:a")
        assert ids(transport) == ["after"]
        assert replies(transport)[-1]["cursor"] == "e1-1"
