"""What a device push says."""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct

MAX_TEXT = 50
"""Characters of a push's text; longer ones are cut and end in `...` (contract section 6.4)."""


class PushMessage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One notification as a phone shows it."""

    id: str
    """The publication's id, and the collapse id: a device shows two pushes of one id once."""
    title: str
    text: str = ""
    priority: str = "normal"
    """`low`, `normal`, `high` or `urgent`."""
    data: Raw = Raw(b"{}")
    """A JSON object for the application (`conversation_id`, `action`, `link` …)."""
    devices: tuple[str, ...] = ()
    """Device kinds it is meant for; (): any."""


def cut(text: str) -> str:
    """`text` as a push shows it."""
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "..."


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(PushMessage).decode


def encode_push(message: PushMessage) -> bytes:
    """The stored form."""
    return _encode(message)


def decode_push(data: bytes) -> PushMessage:
    """The message of a stored form. Raises msgspec.DecodeError."""
    return _decode(data)
