"""Whole lists out of pages, which are asked for as they are needed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, TypeVar

from .flow import Call

T = TypeVar("T")


async def each(
    call: Callable[[Call[Any]], Awaitable[Any]],
    ask: Callable[[Any], Call[Any]],
    items: Callable[[Any], Iterable[T]],
    start: str | int = "",
) -> AsyncIterator[T]:
    """The items of all pages. `ask`: the call for the page at what the page before said in `next`."""
    place: str | int = start
    while True:
        page = await call(ask(place))
        for item in items(page):
            yield item
        if not page.next or page.next == place:
            return
        place = page.next


def each_sync(
    call: Callable[[Call[Any]], Any],
    ask: Callable[[Any], Call[Any]],
    items: Callable[[Any], Iterable[T]],
    start: str | int = "",
) -> Iterator[T]:
    """`each` for threads."""
    place: str | int = start
    while True:
        page = call(ask(place))
        yield from items(page)
        if not page.next or page.next == place:
            return
        place = page.next
