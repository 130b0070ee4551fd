"""`SSE_BATCH_POLL_INTERVAL_SECONDS` in a started server, and its effect (contract section 9, R47)."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from support.redis_server import RedisServer
from support.server_process import ServerProcess, token

pytestmark = pytest.mark.anyio
BEATS = 3


def readings(redis: RedisServer) -> int:
    """How often the members of a batch were read; nothing else asks Redis for that."""
    answer = redis.command("INFO", "commandstats")
    assert isinstance(answer, bytes)
    found = re.search(rb"cmdstat_sscan:calls=(\d+)", answer)
    return int(found[1]) if found else 0


@pytest.mark.covers("R47", "S1.47")
async def test_the_interval_of_the_older_queue(tmp_path: Path) -> None:
    """Between heartbeats a second apart a watched batch is read several times; unset, every two seconds."""
    names = {"SSE_BATCH_POLL_INTERVAL_SECONDS": "0.1", "SSE_HEARTBEAT_INTERVAL_SECONDS": "1"}
    with RedisServer(tcp=True) as redis:
        redis.command("HSET", "qa:batch:B1", "user", "alice", "submitted", "1")
        redis.command("SADD", "qa:batch_tasks:B1", "T1")
        redis.command("HSET", "qa:task:T1", "user", "alice", "status", "processing")
        server = ServerProcess("redis", tmp_path, redis_url=redis.url, environ=names)
        async with server, httpx.AsyncClient(base_url=server.base_url, timeout=20) as http:
            asked = {"token": token("alice")}
            async with (
                http.stream("GET", "/api/stream/batches/B1", params=asked) as batch,
                http.stream("GET", "/api/stream/tasks/T1", params=asked) as task,
            ):
                lines = batch.aiter_lines()
                while "批次处理中" not in await anext(lines):
                    pass
                before, beats = readings(redis), 0
                async for line in task.aiter_lines():
                    beats += line == "event: heartbeat"
                    if beats == BEATS:
                        break
                assert readings(redis) - before > BEATS
                redis.command("HSET", "qa:task:T1", "status", "completed")
                while (line := await anext(lines)) != "event: finished":
                    assert "error" not in line
