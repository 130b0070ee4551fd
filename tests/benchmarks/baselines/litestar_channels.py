"""Litestar's channels plugin over its own Redis pub/sub backend, SSE and WebSocket.

The WebSocket route is the plugin's generated handler; the SSE route iterates a subscriber and yields
ready-made bytes through `Stream`, which is cheaper than `ServerSentEvent` (that one re-encodes every event
for every client).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from litestar import Litestar, get
from litestar.channels import ChannelsPlugin
from litestar.channels.backends.redis import RedisChannelsPubSubBackend
from litestar.response import Stream
from redis.asyncio import Redis

redis = Redis(host="127.0.0.1", port=int(os.environ["BENCH_REDIS_PORT"]))
plugin = ChannelsPlugin(
    RedisChannelsPubSubBackend(redis=redis),
    arbitrary_channels_allowed=True,
    create_ws_route_handlers=True,
    ws_handler_base_path="/ws",
)


async def events(channel: str) -> AsyncIterator[bytes]:
    async with plugin.start_subscription(channel) as subscriber:
        async for event in subscriber.iter_events():
            yield b"data: " + event + b"\n\n"


@get("/sse/{channel:str}")
async def stream(channel: str) -> Stream:
    return Stream(events(channel), media_type="text/event-stream", headers={"cache-control": "no-cache"})


async def close() -> None:
    await redis.aclose()


app = Litestar([stream], plugins=[plugin], on_shutdown=[close], openapi_config=None)
