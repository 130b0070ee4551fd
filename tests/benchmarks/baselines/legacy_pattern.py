"""The legacy pattern: one Redis pub/sub connection and one `get_message` loop for every SSE client.

This is what dualcast replaces, kept as it is commonly written: a streaming response over an endless
generator that polls its own `PubSub` with a timeout of one second and frames each message for its client.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from litestar import Litestar, get
from litestar.response import Stream
from redis.asyncio import ConnectionPool, Redis

# The pool's default of 100 raises at the 101st client; the pattern needs one connection per client.
pool = ConnectionPool(host="127.0.0.1", port=int(os.environ["BENCH_REDIS_PORT"]), max_connections=20_000)
redis = Redis(connection_pool=pool)


async def events(channel: str) -> AsyncIterator[str]:
    pubsub = redis.pubsub()
    await pubsub.subscribe(channel)
    try:
        while True:
            message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=1.0)
            if message is not None:
                yield f"data: {message['data'].decode()}\n\n"
    finally:
        await pubsub.aclose()


@get("/sse/{channel:str}")
async def stream(channel: str) -> Stream:
    return Stream(events(channel), media_type="text/event-stream", headers={"cache-control": "no-cache"})


async def close() -> None:
    await pool.aclose()


app = Litestar([stream], on_shutdown=[close], openapi_config=None)
