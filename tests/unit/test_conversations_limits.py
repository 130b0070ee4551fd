"""What a participant may put into a conversation, and how often."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from dualcast.conversations.model import (
    BadMessage,
    ConversationSettings,
    NewMessage,
    TooManyParticipants,
)
from dualcast.conversations.pace import Pace
from dualcast.model.errors import (
    BadChannel,
    LimitExceeded,
    RateLimited,
)
from support.conversation_room import Room, opened

pytestmark = pytest.mark.anyio


@pytest.fixture
async def room(anyio_backend: object) -> AsyncIterator[Room]:
    async with opened() as one:
        yield one


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (NewMessage(content="x" * 16_384), LimitExceeded),
        (NewMessage(content={"a": "x" * 16_384}), LimitExceeded),
        (NewMessage(content="x", extra={"a": "x" * 4096}), LimitExceeded),
        (NewMessage(content="x", extra={f"k{n}": n for n in range(33)}), BadMessage),
        (NewMessage(content="x", extra={"sender_id": "eve"}), BadMessage),
        (NewMessage(content="x", extra={"k" * 65: 1}), BadMessage),
        (NewMessage(content="x", id="two words"), BadMessage),
        (NewMessage(content="x", id="x" * 129), BadMessage),
        (NewMessage(content="x", reply_to="é"), BadMessage),
        (NewMessage(content="x", message_type=""), BadMessage),
        (NewMessage(content="x", message_type="a\nb"), BadMessage),
        (NewMessage(content="x", sender_name="x" * 257), BadMessage),
        (NewMessage(content="x", sender_avatar="\x00"), BadMessage),
        (NewMessage(content={"lone": "\ud800"}), BadMessage),
    ],
)
async def test_a_bad_message_is_refused_before_anything_is_kept(
    room: Room, message: NewMessage, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await room.service.send("t", "c", "alice", message)
    assert (await room.service.messages("t", "c")).messages == [] and not room.news()


async def test_deep_content_is_refused(room: Room) -> None:
    deep: dict[str, Any] = {}
    for _ in range(64):
        deep = {"a": [deep]}
    with pytest.raises(BadMessage) as caught:
        await room.service.send("t", "c", "alice", NewMessage(content=deep))
    assert caught.value.code == "too-deep"
    with pytest.raises(LimitExceeded):
        await room.service.system_notification("t", "c", {"title": "x" * 20_000})


async def test_bad_ids_and_too_many_participants(room: Room) -> None:
    for call in (
        room.service.set_participants("t", "", ["alice"]),
        room.service.set_participants("t", "c", ["a\nb"]),
        room.service.send("t", "x" * 257, "alice", NewMessage(content="x")),
        room.service.send("t", "c", "alice", NewMessage(content="x"), exclude_connection="\x00"),
        room.service.direct_message("t", "", {}),
    ):
        with pytest.raises(BadChannel):
            await call
    with pytest.raises(TooManyParticipants):
        await room.service.set_participants("t", "c", [f"u{n}" for n in range(501)])
    with pytest.raises(LimitExceeded):  # the grant could not hold them
        await room.service.set_participants("t", "c", ["x" * 250 + str(n) for n in range(400)])
    with pytest.raises(BadMessage):
        await room.service.read("t", "c", "alice", [])
    assert (await room.service.participants("t", "c")).users == ("alice", "bob", "carol")


async def test_users_are_limited_and_backends_are_not() -> None:
    settings = ConversationSettings(messages_per_user_per_s=2, signals_per_user_per_s=2, burst_s=1)
    async with opened(settings) as room:
        said = NewMessage(content="x")
        for _ in range(2):
            await room.service.send("t", "c", "alice", said)
            await room.service.typing("t", "c", "alice", True)
        with pytest.raises(RateLimited):
            await room.service.send("t", "c", "alice", said)
        for call in (
            room.service.typing("t", "c", "alice", False),
            room.service.read("t", "c", "alice", ["m1"]),
        ):
            with pytest.raises(RateLimited) as caught:
                await call
            assert caught.value.retry_after_s
        await room.service.send("t", "c", "bob", said)
        await room.service.send("t", "c", "alice", said, backend=True)
        room.clock.skip(0.5)
        await room.service.send("t", "c", "alice", said)


async def test_a_clock_that_is_set_back_refuses_nobody() -> None:
    settings = ConversationSettings(messages_per_user_per_s=2, signals_per_user_per_s=2, burst_s=1)
    async with opened(settings, monotonic=lambda: 5.0) as room:
        await room.service.send("t", "c", "alice", NewMessage(content="x"))
        await room.service.typing("t", "c", "alice", True)
        room.clock.skip(-3600)
        await room.service.send("t", "c", "alice", NewMessage(content="y"))
        await room.service.typing("t", "c", "alice", False)


async def test_the_table_of_users_is_bounded() -> None:
    pace = Pace(1.0, 1.0, lambda: 5.0, max_keys=2)
    for user in ("a", "b", "c", "a"):  # the first was forgotten
        pace.take("t", user)
    with pytest.raises(RateLimited):
        pace.take("t", "c")
    pace.take("other", "c")


async def test_large_copies_to_many_count_as_several_messages() -> None:
    async with opened(ConversationSettings(messages_per_user_per_s=10, burst_s=2)) as room:
        await room.service.set_participants("t", "c", ["alice", *(f"u{n}" for n in range(399))])
        await room.service.send("t", "c", "alice", NewMessage(content="x" * 16_000))
        with pytest.raises(RateLimited) as caught:
            await room.service.send("t", "c", "alice", NewMessage(content="x"))
        assert caught.value.retry_after_s is not None and 5 < caught.value.retry_after_s < 20
        room.clock.skip(caught.value.retry_after_s)
        await room.service.send("t", "c", "alice", NewMessage(content="x"))
