"""The stored form of a publication, the same in every engine that keeps bytes.

A msgpack array `[id, type, data, time_ms, expires_ms, conflation_key, terminal, audience]`. Tenant, epoch
and offset are not in it: the engine knows them from the place the record stands in. Fields may only be
added at the end, with a default.
"""

from __future__ import annotations

import msgspec

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


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Body).decode


def encode_body(draft: Draft) -> bytes:
    """The record of `draft`."""
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
    )


def publication_of(draft: Draft, epoch: str, offset: int) -> Publication:
    """What `decode(encode_body(draft))` would give, without the detour."""
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
    )
