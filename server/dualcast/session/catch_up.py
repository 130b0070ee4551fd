"""Pure steps of recovery: merging channels by offset, and conflation."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import merge as heap_merge
from operator import attrgetter

from dualcast.model.publication import Entry

_offset = attrgetter("offset")


def merge(histories: Iterable[Iterable[Entry]]) -> list[Entry]:
    """Several channels' entries (each ascending) in offset order; a publication in several of them appears
    once."""
    merged: list[Entry] = []
    last = -1
    # One history may itself be a page over several channels, so even a single one is not free of repeats.
    for entry in heap_merge(*histories, key=_offset):
        if entry.offset != last:
            merged.append(entry)
            last = entry.offset
        elif entry.publication.badge is not None and merged[-1].publication.badge is None:
            merged[-1] = entry  # of the copies the one with the client's counters
    return merged


def conflate(entries: list[Entry]) -> tuple[list[Entry], int]:
    """`entries` with only the latest per conflation key, and how many were superseded.

    A terminal state is never replaced by a later non-terminal one: the later one is the superseded one then.
    Keys of different channels are different keys.
    """
    if not any(entry.publication.conflation_key for entry in entries):
        return entries, 0
    kept: dict[tuple[str, str], int] = {}
    dropped: set[int] = set()
    for index, entry in enumerate(entries):
        key = entry.publication.conflation_key
        if not key:
            continue
        slot = (entry.channel, key)
        before = kept.get(slot)
        if before is not None:
            if entries[before].publication.terminal and not entry.publication.terminal:
                dropped.add(index)
                continue
            dropped.add(before)
        kept[slot] = index
    return [entry for index, entry in enumerate(entries) if index not in dropped], len(dropped)
