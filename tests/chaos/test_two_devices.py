"""A phone at one node and a laptop at another: the drill of `chaos.devices` with smaller numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.devices import Plan, devices_drill

pytestmark = pytest.mark.anyio


async def test_every_device_gets_what_it_is_due_and_presence_survives_a_node(tmp_path: Path) -> None:
    outcome = await devices_drill(tmp_path, Plan(lease_s=5.0, reads=8, badge_s=1.0))
    print(outcome.table())
    assert outcome.wrong == []
