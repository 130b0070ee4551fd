"""Several worker processes and a push provider that cannot work: the server ends, and says why, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.redis_server import shared
from support.server_process import ServerProcess

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"push.provider": "firebase"}, "there is no push provider 'firebase'"),
        ({"push.provider": "webhook", "push.url": "https://push.test/"}, "32 bytes"),
    ],
)
async def test_an_unusable_provider_stops_the_start_of_several_workers(
    tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    """R44, where workers would be started again for ever."""
    given = {"server.workers": 2, **settings}
    server = ServerProcess("redis", tmp_path, redis_url=shared().url, settings=given)
    server.launch()
    try:
        assert await server.exited() not in (0, None)
    finally:
        server.kill()
    log = server.log()
    assert log.count(words) == 1, log
    assert "Traceback" not in log, log
    assert "worker 0 ended" not in log, log
