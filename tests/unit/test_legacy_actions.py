"""What a socket may ask for at once, and what becomes of one that asks without reading."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from dualcast.dialects.legacy import Call, Endpoint, Reply
from dualcast.gateway.legacy.actions import MAX_PER_SWEEP, Receiver
from dualcast.model.errors import Forbidden
from dualcast.session.native_commands import MAX_UNREAD_BYTES
from dualcast.session.node import SessionSettings
from support import legacy_toy as toy
from support.engine_room import room
from support.legacy_room import LegacyRoom

pytestmark = pytest.mark.anyio

LATER = (1013, "try again later")


class Shared:
    """As much of `services.Legacy` as is used."""

    def __init__(self, registry: Any) -> None:
        self.registry = registry
        self.gate = asyncio.Event()
        self.calls = {"wait": self.wait, "forbid": self.forbid, "break": self.fail}
        self.seen: list[str] = []

    async def wait(self, principal: Any, connection: str, arguments: Mapping[str, Any]) -> None:
        self.seen.append(connection)
        await self.gate.wait()

    async def forbid(self, principal: Any, connection: str, arguments: Mapping[str, Any]) -> None:
        raise Forbidden("secret", code="not-yours")

    async def fail(self, principal: Any, connection: str, arguments: Mapping[str, Any]) -> None:
        raise KeyError("secret")


@pytest.fixture
async def legacy() -> AsyncIterator[LegacyRoom]:
    async with room(session=SessionSettings(sweep_s=1, max_pending_commands=3)) as made:
        yield LegacyRoom(made)


def opened(legacy: LegacyRoom, endpoint: Endpoint | None = None) -> tuple[Any, Any, Shared]:
    shared = Shared(legacy.registry)
    used = endpoint or toy.socket_endpoint()
    session, wire = legacy.open(used, receiver=Receiver(shared, used))  # type: ignore[arg-type]
    wire.take()
    return session, wire, shared


async def test_what_comes_behind_a_wait_keeps_its_order(legacy: LegacyRoom) -> None:
    session, wire, shared = opened(legacy)
    session.on_text('{"do":"call","name":"wait"}')
    session.on_text('{"do":"echo","text":1}')
    session.on_text('{"do":"call","name":"wait"}')
    session.on_text('{"do":"echo","text":2}')
    await legacy.room.until(lambda: len(shared.seen) == 1)
    assert wire.take() == []
    shared.gate.set()
    await legacy.room.until(lambda: session.pending is None and len(wire.sent) == 4)
    called = '{"called":true}'
    assert wire.take() == [called, '{"echo":1,"own":1}', called, '{"echo":2,"own":1}']


async def test_what_waits_is_bounded(legacy: LegacyRoom) -> None:
    session, wire, _ = opened(legacy)
    session.on_text('{"do":"call","name":"wait"}')
    for _ in range(3):
        session.on_text('{"do":"echo","text":1}')
    assert not session.closed
    session.on_text('{"do":"echo","text":1}')
    assert wire.take() == [LATER]


async def test_a_client_that_asks_and_does_not_read_is_sent_away(legacy: LegacyRoom) -> None:
    session, wire, _ = opened(legacy)
    session.pause_writing()
    wire.buffered = MAX_UNREAD_BYTES
    session.on_text('{"do":"echo","text":1}')
    assert not session.closed
    wire.buffered += 1
    session.on_text('{"do":"echo","text":1}')
    assert wire.take()[-1] == LATER


async def test_texts_and_binary_frames_are_bounded_per_sweep(legacy: LegacyRoom) -> None:
    for send in ("on_text", "on_binary"):
        session, wire, _ = opened(legacy, toy.socket_endpoint(decode=lambda text, facts: ()))
        payload: Any = "{}" if send == "on_text" else b"{}"
        for _ in range(MAX_PER_SWEEP):
            getattr(session, send)(payload)
        assert not session.closed
        legacy.room.sweeps()
        for _ in range(MAX_PER_SWEEP + 1):
            getattr(session, send)(payload)
        assert wire.take()[-1] == LATER


async def test_a_failed_call_is_told_by_its_code_alone(legacy: LegacyRoom) -> None:
    session, wire, _ = opened(legacy)
    for name in ("forbid", "break", "nothing"):
        session.on_text(f'{{"do":"call","name":"{name}"}}')
        await legacy.room.until(lambda: session.pending is None)
    assert wire.take() == ['{"failed":"not-yours"}', '{"failed":"internal"}', '{"failed":"not-available"}']


async def test_after_a_close_nothing_is_carried_out(legacy: LegacyRoom) -> None:
    session, wire, shared = opened(legacy)
    session.on_text('{"do":"close"}')
    session.on_text('{"do":"call","name":"wait"}')
    assert wire.take() == ['{"last":1}', (4321, "as asked")]
    assert shared.seen == []


async def test_an_answer_that_cannot_be_made_leaves_the_connection_open(legacy: LegacyRoom) -> None:
    def failed(code: str) -> bytes:
        raise KeyError("secret")

    def decode(text: str, facts: Any) -> Any:
        return (Call(name="forbid", arguments={}, done=b"", failed=failed), Reply(b'{"next":1}'), Reply(b""))

    session, wire, _ = opened(legacy, toy.socket_endpoint(decode=decode))
    session.on_text("x")
    await legacy.room.until(lambda: session.pending is None)
    assert wire.take() == ['{"next":1}']
    assert not session.closed
