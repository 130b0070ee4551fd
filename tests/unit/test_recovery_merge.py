"""Regression: a recovery page over two channels held one publication twice, and the session wrote both."""

from __future__ import annotations

from dualcast.model.publication import Entry, Publication
from dualcast.session.catch_up import merge


def _entry(offset: int, channel: str) -> Entry:
    return Entry(Publication("t", "e", offset, f"n{offset}", "x", b"{}", 0), channel)


def test_a_publication_in_two_channels_of_one_page_is_written_once():
    page = [_entry(1, "all"), _entry(3, "all"), _entry(3, "user:u"), _entry(4, "user:u")]
    assert [(e.offset, e.channel) for e in merge([page])] == [(1, "all"), (3, "all"), (4, "user:u")]


def test_channels_are_merged_in_offset_order():
    merged = merge([[_entry(2, "all"), _entry(5, "all")], [_entry(1, "user:u"), _entry(5, "user:u")], []])
    assert [e.offset for e in merged] == [1, 2, 5]
