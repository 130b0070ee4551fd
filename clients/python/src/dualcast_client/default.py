"""The client that helpers made without one speak through: of `configure`, else of the environment
(`DUALCAST_URL`, `DUALCAST_TOKEN`). Older backends make their helpers without arguments.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

from .client import AsyncClient
from .errors import DualcastError
from .flow import Retries
from .sync import Client


@dataclass(slots=True)
class _Default:
    options: dict[str, Any] | None = field(default=None, repr=False)
    loop: asyncio.AbstractEventLoop | None = None
    client: AsyncClient | None = None
    sync: Client | None = None


_default = _Default()
_lock = threading.Lock()


def configure(
    base_url: str,
    token: str = "",
    *,
    get_token: Callable[[], str | Awaitable[str]] | None = None,
    timeout_s: float = 10.0,
    retries: int | Retries = 4,
) -> None:
    """Sets what `default_client` and `default_sync_client` (which needs a plain `get_token`) are made of from
    now on; arguments as of AsyncClient.
    """
    options = {
        "base_url": base_url,
        "token": token,
        "get_token": get_token,
        "timeout_s": timeout_s,
        "retries": retries,
    }
    with _lock:
        _default.options = options
        _default.client = _default.sync = None


def default_client() -> AsyncClient:
    """The client of the running event loop, made when it is first asked for. Raises DualcastError
    `not-configured`.
    """
    loop = asyncio.get_running_loop()
    with _lock:
        if _default.client is None or _default.loop is not loop:
            _default.client, _default.loop = AsyncClient(**_options()), loop
        return _default.client


def default_sync_client() -> Client:
    """The client of all threads. Raises DualcastError `not-configured`."""
    with _lock:
        if _default.sync is None:
            _default.sync = Client(**_options())
        return _default.sync


async def close_default() -> None:
    """Closes the connections of the default clients; the next call opens new ones."""
    with _lock:
        client, sync = _default.client, _default.sync
        _default.client = _default.sync = None
    if client is not None:
        await client.aclose()
    if sync is not None:
        sync.close()


def _options() -> dict[str, Any]:
    if _default.options is not None:
        return _default.options
    url, token = (os.environ.get(name, "") for name in ("DUALCAST_URL", "DUALCAST_TOKEN"))  # noqa: TID251 the application's environment: there are no settings here
    if not url or not token:
        raise DualcastError("not-configured", 0, "call configure(), or set DUALCAST_URL and DUALCAST_TOKEN")
    return cast(dict[str, Any], {"base_url": url, "token": token})
