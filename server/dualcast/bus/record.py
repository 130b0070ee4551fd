"""The stored form of a publication, the same in every engine that keeps bytes.

A msgpack array `[id, type, data, time_ms, expires_ms, conflation_key, terminal, audience, badge]`; the badge
is there for publications kept in an inbox only, and always last, so that whoever stores one per channel
replaces the tail. Tenant, epoch and offset are not in it: the engine knows them from the place the record
stands in. Fields may only be added at the end, with a default.
"""

from __future__ import annotations

import msgspec

from dualcast.model.inbox import Badge
from dualcast.model.publication import Audience, Draft, Publication


class _Body(msgspec.Struct, frozen=True, array_like=True, gc=False):
    id: str
    type: str
    data: bytes
    time_ms: int
    expires_ms: int = 0
    conflation_key: str = ""
    terminal: bool = False
    audience: Audience | None = None
    badge: Badge | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Body).decode


def encode_body(draft: Draft) -> bytes:
    """The record of `draft`: without a badge, or with the place of one (nil) when it has an inbox rider."""
    if draft.inbox is not None:
        return _encode(
            (
                draft.id,
                draft.type,
                draft.data,
                draft.time_ms,
                draft.expires_ms,
                draft.conflation_key,
                draft.terminal,
                draft.audience,
                None,
            )
        )
    return _encode(
        (
            draft.id,
            draft.type,
            draft.data,
            draft.time_ms,
            draft.expires_ms,
            draft.conflation_key,
            draft.terminal,
            draft.audience,
        )
    )


def with_badge(body: bytes, badge: Badge | None) -> bytes:
    """`body`, the record of a draft with an inbox rider, with `badge` in its place."""
    return body if badge is None else body[:-1] + _encode(badge)


def decode(tenant: str, epoch: str, offset: int, body: bytes | memoryview) -> Publication:
    """The publication whose record is `body`. Raises msgspec.DecodeError when it is not a record."""
    b = _decode(body)
    return Publication(
        tenant,
        epoch,
        offset,
        b.id,
        b.type,
        b.data,
        b.time_ms,
        b.expires_ms,
        b.conflation_key,
        b.terminal,
        b.audience,
        b.badge,
    )


def publication_of(draft: Draft, epoch: str, offset: int, badge: Badge | None = None) -> Publication:
    """What `decode` of the draft's record (with `badge`) would give, without the detour."""
    return Publication(
        draft.tenant,
        epoch,
        offset,
        draft.id,
        draft.type,
        draft.data,
        draft.time_ms,
        draft.expires_ms,
        draft.conflation_key,
        draft.terminal,
        draft.audience,
        badge,
    )
