"""Regression: a ring filled back across skipped offsets answered a cursor from the lost tail without a
gap."""

from __future__ import annotations

import pytest

from dualcast.bus.port import SKIP
from dualcast.model.publication import Entry, Page, Publication
from support.engine_room import room
from support.model_bus import TENANT

pytestmark = pytest.mark.anyio


def _entry(offset: int) -> Entry:
    return Entry(Publication(TENANT, "e1", offset, f"n{offset}", "x", b"{}", 0), "all")


async def test_a_page_across_skipped_offsets_does_not_fill_a_ring() -> None:
    async with room() as r:
        feed = r.hub.channel(TENANT, "all")
        high = SKIP + 10
        r.hub.watched(TENANT, "all", "e1", high + 1)
        across = Page("e1", high + 1, high + 1, (_entry(5), _entry(high + 1)))
        assert not r.hub.backfill([feed], across, 4)
        assert not r.hub.backfill([feed], Page("e1", high + 1, high + 1, ()), 4)
        assert feed.complete_from == high + 1
        above = Page("e1", high + 1, high + 1, (_entry(high + 1),))
        assert r.hub.backfill([feed], above, high)
        assert feed.complete_from == high
