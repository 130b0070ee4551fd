"""Fixtures of the contract suites: tests of `bus`, `engine` or `store` (of state) runs once per engine."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from dualcast.bus.port import EventBus
from dualcast.state.port import StateStore
from support.bus_engines import ENGINES, Factory, Recorder
from support.redis_server import RedisServer
from support.state_engines import ENGINES as STATES
from support.state_engines import open_state


@pytest.fixture(params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest) -> Factory:
    return ENGINES[request.param]


@pytest.fixture
def recorder(anyio_backend: object) -> Recorder:
    return Recorder()


@pytest.fixture
async def bus(engine: Factory, recorder: Recorder) -> AsyncIterator[EventBus]:
    async with engine() as bus:
        await bus.start(recorder)
        yield bus


@pytest.fixture
def tenant() -> str:
    return "t-" + secrets.token_hex(5)


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """A redis-server of this module's own."""
    with RedisServer(tcp=True) as server:
        yield server.url


@pytest.fixture(params=STATES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StateStore]:
    url = request.getfixturevalue("redis_url") if request.param == "redis" else ""
    async with open_state(request.param, tmp_path, url) as opened:
        yield opened
