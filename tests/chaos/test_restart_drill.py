"""kill -9 of the server under load: every publication that was acknowledged reaches every client that is due
it, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.drill import Plan
from chaos.restart import restart_drill

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("engine", ["sqlite", "redis"])
async def test_kill_9_under_load_loses_nothing_acknowledged(engine: str, tmp_path: Path) -> None:
    outcome = await restart_drill(engine, tmp_path, Plan(), times=2)
    print(outcome.report(f"kill -9 of the server, three times, engine {engine}"))
    assert outcome.account.faults == 0, outcome.account.table()
    assert not outcome.account.gaps
    assert outcome.account.due > 0
    for client in outcome.drill.fleet.clients:
        assert client.connection >= 3, f"{client.name} was not thrown out twice"
        assert not client.over
