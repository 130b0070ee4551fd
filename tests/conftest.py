"""Shared fixtures. Asynchronous tests run on anyio's plugin over asyncio with uvloop."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}
