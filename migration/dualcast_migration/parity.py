"""Whether the two transports of one client were given the same: pure readers of what was written, and the
comparison.

What was written is read back from the wire, so nothing that encodes, filters or writes can be wrong on one
side without showing here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from dualcast.model.cursor import parse_cursor
from dualcast.model.errors import BadCursor

Kind = Literal["missing-on-websocket", "missing-on-sse", "order-on-websocket", "order-on-sse", "content"]
MAX_DIFFERENCES = 20
"""Kept of one comparison; all are counted."""
MAX_RECORD_BYTES = 4096
MAX_REPORTED = 500
"""Publications in one report of a client, per transport."""


class Arrival(Struct, frozen=True):
    """One publication as a session was given it."""

    epoch: str
    offset: int
    id: str
    digest: bytes
    """Of all a client sees of it but the cursor."""
    channel: str = ""


class Difference(Struct, frozen=True):
    """What one side has and the other has not, or has otherwise."""

    kind: Kind
    id: str
    cursor: str = ""


class Comparison(Struct, frozen=True):
    """Of one pair, over one stretch of the log."""

    compared: int
    """Publications that at least one side was given."""
    mismatches: int
    differences: tuple[Difference, ...]
    """At most MAX_DIFFERENCES of them."""


class _Publication(Struct):
    channel: str
    id: str
    event: str
    time: str
    data: Raw
    inbox: Raw = Raw(b"")


class _Frame(_Publication):
    type: str = ""
    cursor: str = ""


class _View(Struct):
    """A publication as the events of an older stream (`?view=`)."""

    id: str
    events: Raw
    type: str = ""
    cursor: str = ""


_decode_event = msgspec.json.Decoder(_Publication).decode
_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_view = msgspec.json.Decoder(_View).decode


def read_stream(text: str) -> list[Arrival]:
    """Publications of whole SSE blocks (lines end in LF, one line of data); those without `id:` move no
    position and are left out."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.split("\n") if not line.startswith(":"))
        if "id" in fields and "data" in fields:
            found += _arrival(fields["id"], _publication(fields["data"], _decode_event))
    return found


def read_socket(texts: Iterable[str]) -> list[Arrival]:
    """Publications of whole text frames; those without `cursor` move no position and are left out."""
    found = []
    for text in texts:
        frame = _publication(text, _decode_frame)
        if isinstance(frame, _Frame | _View) and frame.type in ("publication", "view") and frame.cursor:
            found += _arrival(frame.cursor, frame)
    return found


def tells_gap(text: str) -> bool:
    """Whether whole SSE blocks or one text frame tell the client of a hole: what lies in it is not
    missing."""
    # JSON holds no line break and signals begin with their type, so nothing a publisher sends looks like it.
    return "event: gap\n" in text or text.startswith('{"type":"gap"')


def _publication(text: str, decode: Callable[[str], _Publication]) -> _Publication | _View | None:
    for read in (decode, _decode_view):
        try:
            return read(text)
        except msgspec.MsgspecError:
            continue
    return None  # a signal


def _arrival(cursor: str, publication: _Publication | _View | None) -> list[Arrival]:
    if publication is None:
        return []
    try:
        epoch, offset = parse_cursor(cursor)
    except BadCursor:
        return []
    seen = blake2b(digest_size=16)
    if isinstance(publication, _View):
        seen.update(bytes(publication.events))
        return [Arrival(epoch, offset, publication.id, seen.digest())]
    for part in (publication.channel, publication.event, publication.time):
        seen.update(part.encode() + b"\0")
    seen.update(bytes(publication.data) + b"\0" + bytes(publication.inbox))
    return [Arrival(epoch, offset, publication.id, seen.digest(), publication.channel)]


def compare(
    sse: Sequence[Arrival], websocket: Sequence[Arrival], excused: frozenset[int] = frozenset()
) -> Comparison:
    """Compares what both sides were given of the same stretch: set, order, content. `excused`: offsets one
    side may have left out."""
    left, right = {a.offset: a for a in sse}, {a.offset: a for a in websocket}
    found: list[Difference] = []
    for offset in sorted(left.keys() | right.keys()):
        a, b = left.get(offset), right.get(offset)
        if a is None and b is not None and offset not in excused:
            found.append(_difference("missing-on-sse", b))
        elif b is None and a is not None and offset not in excused:
            found.append(_difference("missing-on-websocket", a))
        elif a is None or b is None:
            continue
        elif a.id != b.id or a.digest != b.digest:
            found.append(_difference("content", a))
    found += _disorder("order-on-sse", sse)
    found += _disorder("order-on-websocket", websocket)
    return Comparison(len(left.keys() | right.keys()), len(found), tuple(found[:MAX_DIFFERENCES]))


def _disorder(kind: Kind, arrivals: Sequence[Arrival]) -> list[Difference]:
    return [
        _difference(kind, later) for earlier, later in pairwise(arrivals) if later.offset <= earlier.offset
    ]


def _difference(kind: Kind, arrival: Arrival) -> Difference:
    return Difference(kind, arrival.id, f"{arrival.epoch}-{arrival.offset}")


class Mismatch(Struct, frozen=True, kw_only=True):
    """What is kept of a comparison that found something."""

    at_ms: int
    source: Literal["server", "client"]
    """Who compared: this server what it wrote, or the client what arrived."""
    user: str
    instance: str
    compared: int
    mismatches: int
    differences: tuple[Difference, ...]


def mismatch_of(
    found: Comparison, source: Literal["server", "client"], user: str, instance: str, now_ms: int
) -> bytes | None:
    """The record to keep of a comparison; None: it found nothing."""
    if not found.mismatches:
        return None
    return encode_mismatch(
        Mismatch(
            at_ms=now_ms,
            source=source,
            user=user,
            instance=instance,
            compared=found.compared,
            mismatches=found.mismatches,
            differences=found.differences,
        )
    )


_encode = msgspec.json.Encoder().encode
decode_mismatch = msgspec.json.Decoder(Mismatch).decode


def encode_mismatch(mismatch: Mismatch) -> bytes:
    """At most MAX_RECORD_BYTES of JSON: differences beyond are left out, the counts stay."""
    record = _encode(mismatch)
    while len(record) > MAX_RECORD_BYTES:
        fewer = mismatch.differences[: len(mismatch.differences) // 2]
        mismatch = msgspec.structs.replace(mismatch, differences=fewer)
        record = _encode(mismatch)
    return record


class Report(Struct, frozen=True, forbid_unknown_fields=True):
    """What a client says arrived over one transport: publication ids in their order, with the time from
    publication to arrival in ms (its own clock; None: it does not know)."""

    ids: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=128)], ...], Meta(max_length=MAX_REPORTED)
    ]
    latency_ms: Annotated[
        tuple[Annotated[float, Meta(ge=0, le=86_400_000)] | None, ...], Meta(max_length=MAX_REPORTED)
    ] = ()


def compare_reports(sse: Report, websocket: Report) -> Comparison:
    """Compares two reports of the same stretch: set and order."""
    first, second = set(sse.ids), set(websocket.ids)
    both = first & second
    found = [Difference("missing-on-websocket", i) for i in dict.fromkeys(sse.ids) if i not in second]
    found += [Difference("missing-on-sse", i) for i in dict.fromkeys(websocket.ids) if i not in first]
    one, other = ([i for i in dict.fromkeys(report.ids) if i in both] for report in (sse, websocket))
    found += [Difference("order-on-websocket", b) for a, b in zip(one, other, strict=True) if a != b][:1]
    return Comparison(len(first | second), len(found), tuple(found[:MAX_DIFFERENCES]))
