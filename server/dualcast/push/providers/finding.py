"""Providers by name: those of this package, and entry points of installed packages.

A package adds one by an entry point in the group `dualcast.push_providers`: a callable that takes the
provider's settings (a mapping of text to what the settings file holds) and returns a `port.Provider`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import msgspec

from dualcast.push.port import Provider, ProviderUnusable

from .log import LogProvider
from .none import NoProvider
from .webhook import WebhookProvider, WebhookSettings

GROUP = "dualcast.push_providers"
CHECK_S = 10.0


def _webhook(settings: Mapping[str, Any]) -> Provider:
    try:
        return WebhookProvider(msgspec.convert({"url": "", "secret": "", **settings}, WebhookSettings))
    except msgspec.ValidationError as error:
        raise ProviderUnusable(f"push provider webhook: {error}") from None


_OURS: dict[str, Callable[[Mapping[str, Any]], Provider]] = {
    "log": lambda settings: LogProvider(),
    "logging": lambda settings: LogProvider(),
    "none": lambda settings: NoProvider(),
    "webhook": _webhook,
}


async def open_provider(name: str, settings: Mapping[str, Any] | None = None) -> Provider:
    """The provider `name`, made and checked. Raises ProviderUnusable: the server must not start."""
    provider = find_provider(name, settings)
    await check_provider(provider)
    return provider


async def check_provider(provider: Provider) -> None:
    """Raises ProviderUnusable when it cannot work, or cannot tell within CHECK_S seconds."""
    name = provider.name
    try:
        async with asyncio.timeout(CHECK_S):
            await provider.check()
    except ProviderUnusable:
        raise
    except TimeoutError:
        raise ProviderUnusable(f"push provider {name}: its check takes more than {CHECK_S:g} s") from None
    except Exception as error:
        # Anybody's code.
        raise ProviderUnusable(f"push provider {name}: its check failed ({type(error).__name__})") from error


def find_provider(name: str, settings: Mapping[str, Any] | None = None) -> Provider:
    """The provider `name`, not checked yet. Raises ProviderUnusable."""
    make = _OURS.get(name) or _installed(name)
    try:
        provider = make(settings or {})
    except ProviderUnusable:
        raise
    except Exception as error:
        # Anybody's code.
        raise ProviderUnusable(f"push provider {name}: it cannot be made ({type(error).__name__})") from error
    if not isinstance(getattr(provider, "name", None), str):
        raise ProviderUnusable(f"push provider {name}: it has no name")
    for method in ("check", "send", "close"):
        if not callable(getattr(provider, method, None)):
            raise ProviderUnusable(f"push provider {name}: it has no {method}()")
    return provider


def _installed(name: str) -> Callable[[Mapping[str, Any]], Provider]:
    found: list[EntryPoint] = sorted(entry_points(group=GROUP))
    named = [point for point in found if point.name == name]
    if not named:
        known = ", ".join(sorted({*_OURS, *(point.name for point in found)}))
        raise ProviderUnusable(f"there is no push provider {name!r}; there are: {known}")
    if len(named) > 1:
        raise ProviderUnusable(f"push provider {name}: {len(named)} installed packages offer it")
    try:
        make: Callable[[Mapping[str, Any]], Provider] = named[0].load()
    except Exception as error:
        # Anybody's code.
        raise ProviderUnusable(
            f"push provider {name}: it cannot be loaded ({type(error).__name__})"
        ) from error
    return make
