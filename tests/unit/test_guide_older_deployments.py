"""docs/guides/older-deployments.md says where each part of an older deployment has gone; here: that it says
so, and that what it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from dualcast.settings import load

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guides" / "older-deployments.md"
TEXT = GUIDE.read_text(encoding="utf-8")


def section(title: str) -> str:
    """What stands under a heading."""
    found = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def rows(title: str) -> dict[str, str]:
    """First cell → the rest, of a section's table."""
    lines = [line.strip("|").split("|", 1) for line in section(title).splitlines() if line.startswith("| ")]
    return {first.strip(): rest.strip() for first, rest in lines[1:]}


@pytest.mark.covers("S1.46")
def test_new_work_is_told_to_use_websocket() -> None:
    said = section("Which connection for new work")
    assert "**A new project uses WebSocket, not SSE.**" in said
    options = (ROOT / "clients/core/src/options.js").read_text(encoding="utf-8")
    assert re.search(r'\["websocket", "fetch"', options), "and the client begins with it"


@pytest.mark.covers("S3.1")
def test_the_older_architecture_is_there_in_both_halves() -> None:
    said = section("The idea that stays: connections of pages, broadcasts that know their audience")
    assert "page-level connection management plus smart broadcasting" in said
    assert {"web-pages.md", "../dialects.md#what-a-session-subscribes-to"} <= set(
        re.findall(r"\]\(([^)]+)\)", said)
    )


@pytest.mark.covers("S3.88")
def test_the_address_of_a_database_is_accepted_and_noted() -> None:
    (row,) = [
        rest for first, rest in rows("Where the back end was configured").items() if "DATABASE_URL" in first
    ]
    assert "accepted, has no effect" in row
    loaded = load(environ={"DATABASE_URL": "postgresql://db", "JWT_SECRET": "s" * 40})
    assert [note.split()[0] for note in loaded.notes] == ["DATABASE_URL"]


@pytest.mark.covers("S3.92")
def test_each_older_place_of_configuration_has_a_successor() -> None:
    places = rows("Where the back end was configured")
    for older in ("main configuration", "Redis connection", "notification service", "database migrations"):
        (now,) = [rest for first, rest in places.items() if first.startswith(older)]
        assert now
    (migrations,) = [first for first in places if "alembic.ini" in first]
    assert places[migrations].startswith("none")
    older = {"REDIS_HOST": "cache", "REDIS_PORT": "6380", "REDIS_DB": "1", "REDIS_PASSWORD": "p"}
    assert load(environ={**older, "JWT_SECRET": "s" * 40}).settings.redis.url == "redis://:p@cache:6380/1"


@pytest.mark.covers("S0.93", "S2.78", "S4.74", "S4.75")
@pytest.mark.parametrize(
    "claim",
    [
        "connection management",
        "user identification",
        "push",
        "rooms",
        "topics",
        "message types",
        "import progress push",
        "front-end and back-end integration",
        "automatic notification",
        "test tools",
        "authentication and permissions",
        "error handling",
        "production readiness",
        "performance",
        "live feedback on the state of a task",
        "no waiting in doubt",
        "administrators watch the system live",
        "modern technology",
        "asynchronous code of high quality",
        "extensible architecture",
        "complete functional tests",
        "complete documentation",
    ],
)
def test_a_claim_names_what_shows_it(claim: str) -> None:
    shown = [
        rest for first, rest in rows("What was claimed, and where it is shown").items() if claim in first
    ]
    assert shown, claim
    for target in re.findall(r"\]\(([^)#]+)", shown[0]):
        found = (GUIDE.parent / target).resolve()
        assert found.exists(), target
        if found.suffix == ".py":
            assert "def test_" in found.read_text(encoding="utf-8"), target


def test_the_alert_rules_are_rules() -> None:
    groups = yaml.safe_load((ROOT / "docs/deploy/alerts.yml").read_text(encoding="utf-8"))["groups"]
    for group in groups:
        for rule in group["rules"]:
            assert rule["expr"] and ({"alert", "record"} & rule.keys()), rule
