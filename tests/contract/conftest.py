"""Fixtures of the bus contract suite: every test that asks for `bus` or `engine` runs once per engine."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest

from dualcast.bus.port import EventBus
from support.bus_engines import ENGINES, Factory, Recorder


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
