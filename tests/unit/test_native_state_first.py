"""State first: the state of a channel, then everything that was published since it was read, in order."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any, cast

import pytest

from dualcast.hub.hub import HubSettings
from dualcast.model.errors import BusUnavailable
from dualcast.model.principal import Principal
from dualcast.model.publication import Audience
from dualcast.session import channel_state
from dualcast.session.arriving import TRIES, introduce
from dualcast.session.native_commands import NativeCommands
from support.engine_room import Room, ids, room
from support.model_bus import TENANT
from support.recording import ENCODING, RecordingSession, RecordingTransport, TestDialect

pytestmark = pytest.mark.anyio
CHANNEL = "presence:a"


class Talker(RecordingSession):
    __slots__ = ("commands", "pending")

    def __init__(self, *args: Any, **how: Any) -> None:
        super().__init__(*args, **how)
        self.commands = 0
        self.pending: list[Any] | None = None


class Members:
    """A room that stores first and announces then. `busy`: what happens while its state is being read, after
    the store was looked at."""

    def __init__(self, r: Room) -> None:
        self.r = r
        self.revision = 0
        self.reads = 0
        self.busy: list[Callable[[], Any]] = []
        r.node.states.sources["presence"] = self.state

    def change(self, *others: str, **how: Any) -> None:
        self.revision += 1
        self.r.bus.publish(f"r{self.revision}", (CHANNEL, *others), **how)

    async def state(self, tenant: str, channel: str) -> bytes | None:
        assert (tenant, channel) == (TENANT, CHANNEL)
        self.reads += 1
        await asyncio.sleep(0)
        found = b'{"revision":%d}' % self.revision
        if self.busy:
            self.busy.pop(0)()
        await asyncio.sleep(0)
        return found


async def _may(principal: Principal, channel: str) -> bool:
    return True


async def _refresh(principal: Principal, token: str) -> Principal:
    return principal


COMMANDS = NativeCommands(_may, _refresh)


def talker(r: Room, *channels: str, **how: Any) -> tuple[Talker, RecordingTransport]:
    names = channels or ("user:u", "all")
    for name in names:
        r.hub.channel(TENANT, name)
    r.bus.confirm()
    session = Talker(r.node, Principal(TENANT, "u"), ENCODING, TestDialect(), names, **how)
    transport = RecordingTransport()
    transport.session = session
    return session, transport


def attach(session: Talker, transport: RecordingTransport) -> None:
    session.attached(transport, set(), paused=False, initial=b"")


async def subscribe(r: Room, session: Talker, *channels: str, **fields: Any) -> None:
    for name in channels:
        r.hub.channel(TENANT, name)
    r.bus.confirm()
    command = {"type": "subscribe", "channels": channels, **fields}
    COMMANDS.text(cast(Any, session), json.dumps(command))
    await r.until(lambda: session.pending is None)


def told(transport: RecordingTransport) -> list[str]:
    """What was said of the channel: `state 4`, `r5`, `gap`."""
    found = []
    for line in transport.lines:
        word, *rest = line.split(" ", 2)
        if word == "state":
            text = rest[1]
            found.append(f"state {json.loads(text)['revision']}" if text.startswith("{") else f"state {text}")
        elif word == "p" and line.endswith(CHANNEL):
            found.append(line.split()[3])
        elif word == "gap" and rest[0] == CHANNEL:
            found.append("gap")
    return found


async def test_what_changes_while_the_state_is_read_comes_behind_it() -> None:
    async with room() as r:
        members = Members(r)
        members.change()
        session, transport = talker(r)
        attach(session, transport)

        def busy() -> None:
            members.change()
            r.bus.publish("other", ("all",))
            members.change()
            r.say("last", "all")

        members.busy = [busy]
        await subscribe(r, session, CHANNEL)
        members.change()
        r.bus.pump()
        assert told(transport) == ["state 1", "r2", "r3", "r4"]
        assert ids(transport) == ["other", "last", "r2", "r3", "r4"]
        assert members.reads == 1


async def test_what_is_announced_late_comes_live_behind_the_state() -> None:
    async with room() as r:
        members = Members(r)
        session, transport = talker(r)
        attach(session, transport)
        members.busy = [members.change]  # announced, and still on its way to this node
        await subscribe(r, session, CHANNEL)
        assert told(transport) == ["state 0"]
        r.bus.pump()
        assert told(transport) == ["state 0", "r1"]


async def test_a_ring_that_lost_what_followed_means_reading_again() -> None:
    async with room(hub=HubSettings(ring_entries=2)) as r:
        members = Members(r)
        session, transport = talker(r)
        attach(session, transport)

        def flood() -> None:
            for _ in range(5):
                members.change()
            r.bus.pump()

        members.busy = [flood]
        await subscribe(r, session, CHANNEL)
        assert told(transport) == ["state 5"]
        assert members.reads == 2


async def test_a_channel_too_busy_to_be_read_is_told_as_a_gap() -> None:
    async with room(hub=HubSettings(ring_entries=2)) as r:
        members = Members(r)
        session, transport = talker(r)
        attach(session, transport)

        def flood() -> None:
            for _ in range(5):
                members.change("all")
            r.bus.pump()

        members.busy = [flood] * TRIES
        await subscribe(r, session, CHANNEL)
        assert members.reads == TRIES
        assert told(transport) == ["state 10", "gap", "r14", "r15"]
        (gap,) = (line for line in transport.lines if line.startswith("gap"))
        assert gap.split()[1:5] == [CHANNEL, "10", "14", "late"]
        members.change()
        r.bus.pump()
        assert told(transport)[-1] == "r16"


async def test_asked_for_again_the_state_comes_between_changes_never_behind_newer_ones() -> None:
    async with room() as r:
        members = Members(r)
        session, transport = talker(r)
        attach(session, transport)
        await subscribe(r, session, CHANNEL)

        def meanwhile() -> None:
            members.change()
            r.bus.pump()

        members.busy = [meanwhile]
        await subscribe(r, session, CHANNEL)
        assert told(transport) == ["state 0", "r1", "state 1"]
        members.busy = [meanwhile] * TRIES
        await subscribe(r, session, CHANNEL)
        assert told(transport)[-1] == "state away"
        assert told(transport)[3:-1] == ["r2", "r3", "r4"]


async def test_a_state_that_cannot_be_read_never_stops_a_subscription(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with room() as r:
        members = Members(r)
        session, transport = talker(r)
        attach(session, transport)

        async def broken(tenant: str, channel: str) -> bytes | None:
            raise {"presence:away": BusUnavailable("away"), "presence:bug": KeyError("x")}[channel]

        async def hung(tenant: str, channel: str) -> bytes | None:
            await asyncio.Event().wait()
            return None

        async def nothing(tenant: str, channel: str) -> bytes | None:
            return None if channel == "batch:none" else b"x" * (channel_state.MAX_STATE_BYTES + 1)

        r.node.states.sources.update(presence=broken, task=hung, batch=nothing)
        r.node.states._timeout_s = 0.01
        names = ["presence:away", "presence:bug", "task:hung", "batch:none", "batch:big", "topic:a"]
        await subscribe(r, session, *names[:2])
        command = {"type": "subscribe", "channels": names}
        for name in names:
            r.hub.channel(TENANT, name)
        r.bus.confirm()
        COMMANDS.text(cast(Any, session), json.dumps(command))
        async with asyncio.timeout(10):
            while session.pending is not None:
                await asyncio.sleep(0.005)
        states = [line.removeprefix("state ") for line in transport.lines if line.startswith("state ")][2:]
        assert states == [
            "presence:away away",
            "presence:bug away",
            "task:hung away",
            "batch:none none",
            "batch:big too-large",
        ]
        assert json.loads(transport.lines[-1])["channels"] == names
        assert members.reads == 0


async def test_at_connect_the_state_follows_the_welcome_and_what_changed_since_comes_then() -> None:
    async with room() as r:
        members = Members(r)
        members.change()
        r.bus.live.clear()
        session, transport = talker(r, "user:u", "all", CHANNEL)

        def busy() -> None:
            members.change()
            r.bus.pump()
            members.change()

        members.busy = [busy]
        await introduce(session)
        attach(session, transport)
        assert [line.split()[0] for line in transport.lines] == ["welcome", "state", "p"]
        r.bus.pump()
        assert told(transport) == ["state 1", "r2", "r3"]
        assert session.introduction == b""


async def test_at_connect_with_a_cursor_everything_after_the_cursor_follows_the_state() -> None:
    async with room() as r:
        members = Members(r)
        for _ in range(4):
            members.change()
        r.bus.live.clear()
        session, transport = talker(r, "user:u", "all", CHANNEL, epoch="e1", position=1)
        members.busy = [members.change]
        await introduce(session)
        attach(session, transport)
        await r.until(lambda: session.live)
        r.bus.pump()
        assert told(transport) == ["state 4", "r2", "r3", "r4", "r5"]


async def test_without_a_position_there_is_no_state() -> None:
    async with room() as r:
        members = Members(r)
        session, transport = r.open_unconfirmed("user:u", "all", CHANNEL)
        session.connection_lost(None)
        fresh = Talker(r.node, Principal(TENANT, "u"), ENCODING, TestDialect(), ("user:u", "all", CHANNEL))
        await introduce(fresh)
        fresh.attached(transport, set(), paused=False, initial=b"")
        assert told(transport)[-1] == "state away" and members.reads == 0


async def test_what_is_not_for_this_client_is_not_replayed() -> None:
    async with room() as r:
        members = Members(r)
        session, transport = talker(r)
        attach(session, transport)

        def busy() -> None:
            members.change(audience=Audience(users=("somebody",)))
            members.change()
            r.bus.pump()

        members.busy = [busy]
        await subscribe(r, session, CHANNEL)
        assert told(transport) == ["state 0", "r2"]


async def test_a_client_that_left_meanwhile_is_told_nothing() -> None:
    async with room() as r:
        members = Members(r)
        session, transport = talker(r)
        attach(session, transport)
        members.busy = [lambda: session.connection_lost(None)]
        await subscribe(r, session, CHANNEL)
        assert told(transport) == []
        assert session not in r.hub.channel(TENANT, CHANNEL).sessions


@pytest.mark.parametrize("seed", range(120))
async def test_nothing_is_lost_or_out_of_order_whatever_the_interleaving(seed: int) -> None:
    draw = random.Random(seed)
    async with room(hub=HubSettings(ring_entries=draw.choice([4, 16, 256]))) as r:
        members = Members(r)
        members.busy = [(lambda: [step() for _ in range(draw.randrange(4))]) for _ in range(50)]

        def step() -> None:
            match draw.randrange(6):
                case 0 | 1:
                    members.change()
                case 2:
                    members.change("all")
                case 3:
                    r.bus.publish(f"x{r.bus.top}", ("all",))
                case _:
                    r.bus.pump(draw.randrange(1, 4), split=draw.random() < 0.3)

        for _ in range(draw.randrange(5)):
            step()
        at_connect = draw.random() < 0.5
        names = ("user:u", "all", CHANNEL) if at_connect else ("user:u", "all")
        session, transport = talker(r, *names)
        if at_connect:
            await introduce(session)
        for _ in range(draw.randrange(3)):
            step()
        attach(session, transport)
        if not at_connect:
            r.hub.channel(TENANT, CHANNEL)
            r.bus.confirm()
            text = json.dumps({"type": "subscribe", "channels": [CHANNEL]})
            COMMANDS.text(cast(Any, session), text)
        while session.pending is not None:
            if draw.random() < 0.3:
                step()
            await asyncio.sleep(0)
        for _ in range(3):
            step()
        r.bus.pump()
        await r.until(lambda: session.live)
        said = told(transport)
        if "gap" in said:
            assert members.reads == TRIES
            return
        published = [line.split() for line in transport.lines if line.startswith("p ")]
        got = {int(words[3][1:]) for words in published if words[3].startswith("r")}
        known = int(said[0].removeprefix("state "))
        assert got >= set(range(known + 1, members.revision + 1)), transport.lines
        # By `all` a publication may have come before the state: its id is known, and nothing follows from it.
        by_all = {words[3] for words in published if words[4] == "all"}
        order = [int(text[1:]) for text in dict.fromkeys(said[1:]) if text not in by_all]
        assert order == sorted(order), transport.lines
