"""Redis comes back without the end of its log, and so do all nodes: what a client's cursor still proves."""

from __future__ import annotations

import secrets

import pytest
import redis

from support.bus_engines import draft
from support.redis_nodes import node
from support.redis_server import RedisServer

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("channels", [["topic:a"], ["topic:a", "topic:quiet"]])
async def test_a_cursor_out_of_the_lost_tail_brings_a_gap_for_every_channel(channels: list[str]) -> None:
    tenant = "t-" + secrets.token_hex(5)
    with RedisServer(aof="") as server:
        async with node(server.url) as before:
            for _ in range(3):
                await before.bus.append(draft(tenant, "topic:a"))
            with redis.Redis.from_url(server.url) as client:
                client.save()
            seen = [await before.bus.append(draft(tenant, "topic:a")) for _ in range(3)]
        server.kill()
        server.start()
        async with node(server.url) as after:
            again = await after.bus.append(draft(tenant, "topic:a"))
            assert again.epoch == seen[0].epoch and again.offset > 1 << 20
            for receipt in seen:
                page = await after.bus.read(tenant, channels, receipt.offset, 100)
                assert [entry.publication.offset for entry in page.entries] == [again.offset]
                told = {(gap.channel, gap.after, gap.reason) for gap in page.gaps}
                assert told == {(channel, receipt.offset, "epoch") for channel in channels}
            page = await after.bus.read(tenant, channels, seen[0].offset - 1, 100)
            assert not page.gaps, "who had seen nothing of the tail proves nothing"
            page = await after.bus.read(tenant, channels, again.offset, 100)
            assert not page.gaps and not page.entries
