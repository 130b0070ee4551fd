"""How long the ids of channels may be."""

from __future__ import annotations

import pytest

from dualcast.model.channel import KINDS, MAX_CHANNEL_CHARACTERS, NAMED, check_channel, check_id, key_part
from dualcast.model.errors import BadChannel
from dualcast.state.limits import check_name


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_names_of_rooms_and_topics_are_longer_than_other_ids(kind: str) -> None:
    limit = 1024 if kind in NAMED else 256
    for ident in ("x" * limit, "é" * (limit // 2)):
        assert check_channel(f"{kind}:{ident}") == f"{kind}:{ident}"
        with pytest.raises(BadChannel):
            check_channel(f"{kind}:{ident}x")
    assert len(f"{kind}:" + "x" * limit) < MAX_CHANNEL_CHARACTERS


@pytest.mark.parametrize("character", ["x", "é", "名", "😀"])
def test_two_hundred_characters_of_any_script_are_a_name(character: str) -> None:
    """Topics of the older contract have up to 200 characters; more than 64 of four bytes were refused."""
    for kind in NAMED:
        channel = check_channel(f"{kind}:{character * 200}")
        assert key_part(channel).isascii()


def test_users_are_not_named() -> None:
    with pytest.raises(BadChannel):
        check_id("x" * 257)


def test_a_grant_on_the_longest_channel_can_be_kept() -> None:
    check_name("grants", f"{'t' * 63}/topic:{'x' * 1024}")
