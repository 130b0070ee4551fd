"""Plans: from every place to every stage they lead there by legal moves, and their commands are whole."""

from __future__ import annotations

import itertools
import shlex

import pytest
from msgspec.structs import replace

from dualcast.cli.root import cli
from dualcast_migration.cohort import Cohort
from dualcast_migration.plan import LADDER, plan
from dualcast_migration.policy import StageRecord
from dualcast_migration.stage import Stage, check_move

SSE, SHADOW, FALLBACK, WEBSOCKET = Stage
NOW = 1_700_000_000.0


def test_the_whole_way() -> None:
    steps = plan("acme", StageRecord(stage=SSE), WEBSOCKET, NOW)
    assert [(step.stage, step.percent) for step in steps] == [
        (SHADOW, 100),
        (FALLBACK, 1),
        (FALLBACK, 10),
        (FALLBACK, 50),
        (FALLBACK, 100),
        (FALLBACK, 100),  # the schedule
        (WEBSOCKET, 1),
        (WEBSOCKET, 10),
        (WEBSOCKET, 50),
        (WEBSOCKET, 100),
    ]
    assert [step.number for step in steps] == list(range(1, 11))
    assert steps[2].command == (
        "dualcast migrate set acme --stage fallback --percent 10 --why 'fallback for 10 % of the users'"
    )
    schedule = shlex.split(steps[5].command)
    assert schedule[:4] == ["dualcast", "migrate", "schedule", "acme"]
    assert schedule[schedule.index("--sunset") + 1] == "2024-02-12T00:00Z"
    assert schedule.count("--brownout") == 4


@pytest.mark.parametrize(
    ("stage", "wanted", "percent"), list(itertools.product(Stage, Stage, (0.0, 10.0, 37.5, 100.0)))
)
def test_every_plan_leads_there_by_legal_moves(stage: Stage, wanted: Stage, percent: float) -> None:
    record = StageRecord(stage=stage, cohort=Cohort(percent))
    now = record
    for step in plan("acme", record, wanted, NOW):
        check_move(now.stage, step.stage)
        if step.stage is now.stage and wanted.rank >= stage.rank:
            assert step.percent >= now.cohort.percent
        assert step.title and step.checks
        now = replace(now, stage=step.stage, cohort=Cohort(step.percent))
    assert now.stage is wanted
    assert now.cohort.percent == 100 or wanted is SSE is stage
    # From there, there is nothing left to do.
    assert plan("acme", now, wanted, NOW) == ()


@pytest.mark.parametrize(("stage", "wanted"), list(itertools.product(Stage, Stage)))
def test_commands_are_ones_the_command_line_takes(stage: Stage, wanted: Stage) -> None:
    for step in plan("acme", StageRecord(stage=stage, cohort=Cohort(5)), wanted, NOW):
        words = shlex.split(step.command)
        assert words[0] == "dualcast"
        command = cli.get_command(None, words[1])  # type: ignore[arg-type]
        inner = command.get_command(None, words[2])  # type: ignore[union-attr, arg-type]
        context = inner.make_context(words[2], words[3:])  # type: ignore[union-attr]
        assert context.params["tenant"] == "acme" and context.params["why"]


def test_a_hold_is_waited_for() -> None:
    held = StageRecord(stage=SHADOW, held_until=int(NOW) + 60)
    first, *rest = plan("acme", held, FALLBACK, NOW)
    assert "guard" in first.title and first.command == "" and first.stage is SHADOW
    assert [step.percent for step in rest] == list(LADDER)
    assert len(plan("acme", held, FALLBACK, NOW + 61)) == len(rest)
    # Going back has to wait for nobody.
    assert [step.stage for step in plan("acme", held, SSE, NOW)] == [SSE]


def test_a_schedule_that_lies_ahead_is_kept() -> None:
    ahead = StageRecord(stage=FALLBACK, sunset_at=int(NOW) + 60)
    assert not any("schedule" in step.command for step in plan("acme", ahead, WEBSOCKET, NOW))
    assert any("schedule" in step.command for step in plan("acme", ahead, WEBSOCKET, NOW + 61))


def test_a_ladder_and_a_notice_of_ones_own() -> None:
    steps = plan("acme", StageRecord(stage=SHADOW), WEBSOCKET, NOW, ladder=(25, 100), notice_days=2)
    assert [step.percent for step in steps if step.stage is FALLBACK] == [25, 100, 100]
    assert sum(step.command.count("--brownout") for step in steps) == 1


@pytest.mark.parametrize("ladder", [(), (50,), (0, 100), (10, 10, 100), (50, 10, 100), (10, 100, 101)])
def test_ladders_that_are_none(ladder: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="ladder"):
        plan("acme", StageRecord(stage=SHADOW), WEBSOCKET, NOW, ladder=ladder)
