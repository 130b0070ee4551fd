"""The stored form of a publication: old records, and the place of the badge."""

from __future__ import annotations

import msgspec
import pytest

from dualcast.bus.record import decode, encode_body, publication_of, with_badge
from dualcast.model.inbox import Badge, InboxRider, PushRider
from dualcast.model.publication import Audience
from support.bus_engines import draft

pack = msgspec.msgpack.encode
AUDIENCE = Audience(users=("a",), roles=())


@pytest.mark.parametrize("fields", range(4, 9))
def test_records_without_the_later_fields_are_still_read(fields: int) -> None:
    record = ("id", "note", b"{}", 7, 9, "key", True, AUDIENCE)
    found = decode("t", "abc", 3, pack(record[:fields]))
    rest = {"expires_ms": 9, "conflation_key": "key", "terminal": True, "audience": AUDIENCE}
    expected = draft("t", id="id", data=b"{}", time_ms=7, **dict(list(rest.items())[: fields - 4]))
    assert found == publication_of(expected, "abc", 3)
    assert found.badge is None


def test_records_of_a_later_version_are_read() -> None:
    assert decode("t", "abc", 3, pack(("id", "note", b"{}", 7, 0, "", False, None, None, "new"))).id == "id"


def test_only_what_is_kept_in_an_inbox_has_a_place_for_a_badge() -> None:
    plain = draft("t", push=PushRider(("a",), b"m"), audience=AUDIENCE)
    kept = draft("t", inbox=InboxRider(("a",)), id=plain.id, audience=AUDIENCE)
    assert len(msgspec.msgpack.decode(encode_body(plain))) == 8
    assert len(msgspec.msgpack.decode(encode_body(kept))) == 9
    assert encode_body(kept)[-1:] == b"\xc0"
    assert encode_body(kept)[1:-1] == encode_body(plain)[1:]


@pytest.mark.parametrize(
    "badge", [None, Badge(0, 0, 0, 0), Badge(-1, -1, 0, 2**53), Badge(1, 2, 300, 70_000)]
)
def test_a_badge_comes_back(badge: Badge | None) -> None:
    sent = draft("t", inbox=InboxRider(("a",)), data='"日本"'.encode(), audience=AUDIENCE)
    assert decode("t", "abc", 7, with_badge(encode_body(sent), badge)) == publication_of(
        sent, "abc", 7, badge
    )
