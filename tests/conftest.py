"""Shared fixtures and the checklist report. Asynchronous tests run on anyio over asyncio with uvloop."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from support.checklist import report
from support.signatures import remember_signatures

remember_signatures()

SLOW = ("browser", "chaos", "property", "integration")

_covered: set[str] = set()


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--covers", action="store_true", help="report the checklist ids the tests cover")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_slow_first)
    for item in items:
        for marker in item.iter_markers("covers"):
            _covered.update(marker.args)


def _slow_first(item: pytest.Item) -> int:
    """Files that wait for browsers and servers begin (`make test` gives them out in this order): else one of
    them runs at the end, on one of the processes."""
    folder = item.path.parent.name
    return SLOW.index(folder) if folder in SLOW else len(SLOW)


def pytest_sessionfinish() -> None:
    if used := sys.modules.get("support.playwright_thread"):
        used.SHARED.close()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.getoption("--covers"):
        terminalreporter.section("checklist")
        for line in report(_covered):
            terminalreporter.write_line(line)
