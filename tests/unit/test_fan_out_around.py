"""A batch dominated by one channel: the shared run and the merged few together equal the plain merge."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualcast.hub import fan_out
from dualcast.model.publication import Audience, Entry, Publication
from support.engine_room import room
from support.model_bus import TENANT

CHANNELS = ["all", "user:a", "user:b", "topic:x"]


def _entry(offset: int, ident: str, channel: str, audience: Audience | None) -> Entry:
    return Entry(Publication(TENANT, "e1", offset, ident, "x", b"{}", 0, audience=audience), channel)


async def _lines(batches: list[list[Entry]], people: list[list[str]], *, dominant: bool) -> list[list[str]]:
    before = fan_out.MIN_DOMINANT
    fan_out.MIN_DOMINANT = 1 if dominant else 1 << 60
    try:
        async with room() as r:
            opened = [r.open(*channels, sub=f"s{n}") for n, channels in enumerate(people)]
            for batch in batches:
                r.hub.entries(TENANT, batch)
            for _, transport in opened:
                assert transport.writes <= 1 + len(batches), "one write per session and turn"
            return [[line for line in transport.lines if line.startswith("p ")] for _, transport in opened]
    finally:
        fan_out.MIN_DOMINANT = before


@given(st.integers(0, 10**6))
def test_it_writes_what_the_plain_merge_writes(seed: int) -> None:
    import asyncio

    rng = random.Random(seed)
    people = [["all"] for _ in range(12)] + [
        ["all", "user:a"],
        ["user:b"],
        ["all", "user:b", "topic:x"],
    ]
    batches: list[list[Entry]] = []
    offset = 0
    for _ in range(rng.randint(1, 4)):
        batch: list[Entry] = []
        for _ in range(rng.randint(1, 6)):
            ephemeral = rng.random() < 0.2
            offset += 0 if ephemeral else 1
            targets = ["all"] if rng.random() < 0.5 else rng.sample(CHANNELS[1:], rng.randint(1, 3))
            if rng.random() < 0.2 and not ephemeral:
                targets = rng.sample(CHANNELS, 2)
            audience = Audience(exclude_users=("s12",)) if rng.random() < 0.2 else None
            ident = f"n{rng.random()}"
            batch += [_entry(0 if ephemeral else offset, ident, name, audience) for name in targets]
        batches.append(batch)

    def copy() -> list[list[Entry]]:
        return [[Entry(e.publication, e.channel) for e in batch] for batch in batches]

    plain = asyncio.run(_lines(copy(), people, dominant=False))
    around = asyncio.run(_lines(copy(), people, dominant=True))
    assert around == plain


@pytest.mark.anyio
async def test_a_small_channel_beside_a_large_one_is_merged_in_order() -> None:
    batch = [
        _entry(1, "one", "user:a", None),
        _entry(2, "two", "all", None),
        _entry(3, "three", "user:a", None),
        _entry(4, "four", "all", None),
    ]
    people = [["all"]] * 20 + [["all", "user:a"]]
    lines = await _lines([batch], people, dominant=True)
    assert [line.split()[3] for line in lines[-1]] == ["one", "two", "three", "four"]
    assert [line.split()[3] for line in lines[0]] == ["two", "four"]
