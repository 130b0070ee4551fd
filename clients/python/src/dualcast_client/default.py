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
    clients: dict[asyncio.AbstractEventLoop, AsyncClient] = field(default_factory=dict)
    """Connections belong to the loop that made them."""
    sync: Client | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


_default = _Default()


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
    with _default.lock:
        _default.options = options
        _default.clients, _default.sync = {}, None


def default_client() -> AsyncClient:
    """The client of the running event loop, made when it is first asked for. Raises DualcastError
    `not-configured`.
    """
    loop = asyncio.get_running_loop()
    with _default.lock:
        if loop not in _default.clients:
            _forget_closed()
            _default.clients[loop] = AsyncClient(**_options())
        return _default.clients[loop]


def default_sync_client() -> Client:
    """The client of all threads. Raises DualcastError `not-configured`."""
    with _default.lock:
        if _default.sync is None:
            _default.sync = Client(**_options())
        return _default.sync


async def close_default() -> None:
    """Closes the connections of the running event loop's default client and of the one for threads; the next
    call opens new ones. Other loops close their own."""
    with _default.lock:
        client = _default.clients.pop(asyncio.get_running_loop(), None)
        sync, _default.sync = _default.sync, None
        _forget_closed()
    if sync is not None:
        sync.close()
    if client is not None:
        await client.aclose()


def _forget_closed() -> None:
    """Nothing can be done any more with the connections of a loop that is closed."""
    _default.clients = {loop: client for loop, client in _default.clients.items() if not loop.is_closed()}


def _forget_parents() -> None:
    """A forked process must not speak on its parent's connections: each would get the other's answers."""
    _default.lock = threading.Lock()
    _default.clients, _default.sync = {}, None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parents)


def _options() -> dict[str, Any]:
    if _default.options is not None:
        return _default.options
    url, token = (os.environ.get(name, "") for name in ("DUALCAST_URL", "DUALCAST_TOKEN"))  # noqa: TID251 the application's environment: there are no settings here
    if not url or not token:
        raise DualcastError("not-configured", 0, "call configure(), or set DUALCAST_URL and DUALCAST_TOKEN")
    return cast(dict[str, Any], {"base_url": url, "token": token})
