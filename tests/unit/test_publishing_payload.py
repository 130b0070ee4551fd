"""What `publishing` lets through can be spliced into a frame: one line, UTF-8, decodable, with unique
ordered ids.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualcast.model.errors import DualcastError
from dualcast.model.principal import Principal
from dualcast.model.times import utc_text
from dualcast.model.uuid7 import Uuid7
from dualcast.publishing.drafts import Drafter
from dualcast.publishing.payload import MAX_DEPTH, decode, minify
from dualcast.publishing.requests import NotificationRequest, PublishRequest

LIMIT = 65_536
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)
_publish = msgspec.json.Decoder(PublishRequest)
_notify = msgspec.json.Decoder(NotificationRequest)


@given(VALUES, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_minified_data_is_one_line_with_the_same_value(value: Any, indent: Any, ascii: bool) -> None:
    try:
        raw = json.dumps(value, indent=indent, ensure_ascii=ascii).encode()
    except UnicodeEncodeError:
        return
    text = minify(raw, limit=10**6)
    assert b"\n" not in text and b"\r" not in text and b"\0" not in text
    text.decode()
    assert json.loads(text) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused_with_a_code(body: bytes) -> None:
    for decoder in (_publish, _notify):
        try:
            decode(body, decoder)
        except DualcastError as error:
            assert error.code in ("bad-utf8", "malformed-json", "invalid-body", "too-deep")


@given(st.binary(max_size=60))
def test_any_bytes_as_data_leave_one_line_of_utf8_or_an_error(data: bytes) -> None:
    body = b'{"channel":"all","type":"t","data":' + data + b"}"
    try:
        request = decode(body, _publish)
        draft = Drafter(LIMIT).draft(Principal("t", "p"), request)
    except DualcastError:
        return
    assert b"\n" not in draft.data and b"\r" not in draft.data
    json.loads(draft.data.decode())


@pytest.mark.parametrize("opening, closing", [(b"[", b"]"), (b'{"a":', b"}")])
def test_depth(opening: bytes, closing: bytes) -> None:
    minify(opening * MAX_DEPTH + b"1" + closing * MAX_DEPTH, limit=LIMIT)
    with pytest.raises(DualcastError) as caught:
        minify(opening * (MAX_DEPTH + 1) + b"1" + closing * (MAX_DEPTH + 1), limit=LIMIT)
    assert caught.value.code == "too-deep"
    wide = b"[" + b'["[[[",{}],' * 500 + b"1]"
    assert minify(wide, limit=LIMIT) == wide


def test_data_limit_counts_minified_bytes() -> None:
    assert minify(b'"' + b"x" * 8 + b'"   ', limit=10) == b'"xxxxxxxx"'
    with pytest.raises(DualcastError) as caught:
        minify(b'"' + b"x" * 9 + b'"', limit=10)
    assert caught.value.code == "data-too-large"


def test_ids_are_uuid7_and_ascend() -> None:
    new = Uuid7()
    ids = [new(1_700_000_000_000) for _ in range(5000)] + [new(1_600_000_000_000), new(1_700_000_000_001)]
    assert ids == sorted(set(ids))
    for text in ids[::500]:
        found = uuid.UUID(text)
        assert (found.version, found.variant) == (7, uuid.RFC_4122)
        assert found.int >> 80 in (1_700_000_000_000, 1_700_000_000_001)


def test_time_text() -> None:
    assert utc_text(1_769_860_800_005) == "2026-01-31T12:00:00.005000Z"


def draft_of(sub: str = "p", **fields: Any) -> Any:
    body = msgspec.json.encode({"channel": "topic:x", "type": "t", "idempotency_key": "k", **fields})
    return Drafter(LIMIT).draft(Principal("t", sub), decode(body, _publish))


def test_fingerprint_and_dedupe_key() -> None:
    first = draft_of(data={"a": 1})
    spaced = decode(
        b'{"type":"t","idempotency_key":"other","channels":["topic:x"],"data":{"a" : 1}}', _publish
    )
    again = Drafter(LIMIT).draft(Principal("t", "p"), spaced)
    assert first.fingerprint and first.fingerprint == again.fingerprint
    for change in ({"data": {"a": 2}}, {"type": "u"}, {"channel": "topic:y"}, {"ttl_s": 5}, {"audience": {}}):
        assert draft_of(**{"data": {"a": 1}, **change}).fingerprint != first.fingerprint
    assert draft_of("p:k").dedupe_key != draft_of("p").dedupe_key
    plain = decode(b'{"channel":"all","type":"t"}', _publish)
    bare = Drafter(LIMIT).draft(Principal("t", "p"), plain)
    assert (bare.fingerprint, bare.dedupe_key) == ("", "")
    # An id a publisher could choose is never the key of somebody's idempotency key.
    with pytest.raises(DualcastError):
        draft_of(id=first.dedupe_key)


def test_an_empty_audience_reaches_nobody_and_none_everybody() -> None:
    assert draft_of().audience is None
    assert draft_of(audience={"users": []}).audience.users == ()
    assert draft_of(audience={"exclude_users": ["a"]}).audience.users is None
