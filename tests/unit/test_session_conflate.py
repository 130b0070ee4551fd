"""The pure steps of recovery: merging channels in offset order, and conflation."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dualcast.model.publication import Entry, Publication
from dualcast.session.catch_up import conflate, merge


def entry(offset: int, key: str = "", *, terminal: bool = False, channel: str = "task:1") -> Entry:
    return Entry(
        Publication("t", "e", offset, f"n{offset}", "e", b"{}", 0, conflation_key=key, terminal=terminal),
        channel,
    )


def offsets(entries: list[Entry]) -> list[int]:
    return [one.offset for one in entries]


def test_only_the_latest_of_a_key_is_kept() -> None:
    kept, superseded = conflate([entry(1, "k"), entry(2), entry(3, "k"), entry(4, "other"), entry(5, "k")])
    assert (offsets(kept), superseded) == ([2, 4, 5], 2)


def test_without_keys_nothing_is_touched() -> None:
    entries = [entry(1), entry(2)]
    kept, superseded = conflate(entries)
    assert kept is entries and superseded == 0


def test_a_terminal_state_is_never_replaced_by_one_that_is_not() -> None:
    done = entry(2, "k", terminal=True)
    kept, superseded = conflate([entry(1, "k"), done, entry(3, "k"), entry(4, "k")])
    assert (kept, superseded) == ([done], 3)


def test_a_terminal_state_replaces_and_a_later_terminal_one_replaces_it() -> None:
    kept, superseded = conflate([entry(1, "k", terminal=True), entry(2, "k"), entry(3, "k", terminal=True)])
    assert (offsets(kept), superseded) == ([3], 2)


def test_keys_of_different_channels_are_different_keys() -> None:
    kept, superseded = conflate([entry(1, "k", channel="task:1"), entry(2, "k", channel="task:2")])
    assert (offsets(kept), superseded) == ([1, 2], 0)


@given(
    st.lists(
        st.tuples(st.sampled_from(["", "a", "b"]), st.booleans(), st.sampled_from(["task:1", "task:2"])),
        max_size=30,
    )
)
def test_conflation_keeps_order_and_one_entry_per_key(
    shape: list[tuple[str, bool, str]],
) -> None:
    entries = [entry(n + 1, key, terminal=end, channel=name) for n, (key, end, name) in enumerate(shape)]
    kept, superseded = conflate(entries)
    assert len(kept) + superseded == len(entries)
    assert offsets(kept) == sorted(offsets(kept))
    assert [one for one in kept if not one.publication.conflation_key] == [
        one for one in entries if not one.publication.conflation_key
    ]
    for slot in {(one.channel, one.publication.conflation_key) for one in entries} - {
        ("task:1", ""),
        ("task:2", ""),
    }:
        own = [one for one in entries if (one.channel, one.publication.conflation_key) == slot]
        terminal = [one for one in own if one.publication.terminal]
        survivors = [one for one in kept if (one.channel, one.publication.conflation_key) == slot]
        assert survivors == [terminal[-1] if terminal else own[-1]]


@given(st.lists(st.lists(st.integers(1, 30), unique=True).map(sorted), max_size=4))
def test_a_merge_is_in_order_and_names_each_publication_once(channels: list[list[int]]) -> None:
    merged = merge(
        [[entry(offset, channel=f"topic:{n}") for offset in part] for n, part in enumerate(channels)]
    )
    assert offsets(merged) == sorted({offset for part in channels for offset in part})
