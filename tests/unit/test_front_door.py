"""The front door of the tests' sites ends without a word: its connections are tasks of its own."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any

import pytest

from support.front_door import FrontDoor

pytestmark = pytest.mark.anyio


async def test_a_front_door_that_closes_complains_of_no_cancelled_connection(tmp_path: Path) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    (tmp_path / "index.html").write_text("here")
    async with FrontDoor(tmp_path, []) as door:
        port = int(door.base_url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /site/ HTTP/1.1\r\n\r\n")
        assert (await reader.read()).endswith(b"\r\n\r\nhere"), "it has begun to serve"
        waiting, idle = await asyncio.open_connection("127.0.0.1", port)
        while not door._tasks:
            await asyncio.sleep(0)
    assert await waiting.read() == b""
    for one in (writer, idle):
        one.close()
        await one.wait_closed()
    gc.collect()
    assert complaints == []
