"""Close codes of the native WebSocket protocol. The range says what a client does (protocol rule PROTO-30):

4000–4099 stop · 4100–4199 reconnect after the given delay · 4200–4299 reconnect now with the cursor.
Clients assert equality with this table.
"""

from __future__ import annotations

from enum import IntEnum


class Close(IntEnum):
    """Name → code. The close reason text is the name in kebab-case."""

    BAD_REQUEST = 4000
    UNAUTHORIZED = 4001
    PROTOCOL_ERROR = 4002
    FORBIDDEN = 4003
    REVOKED = 4004
    FRAME_TOO_BIG = 4005
    REPLACED = 4009
    """A newer connection of the same user took its place: stop until the page is shown again."""
    STAGE = 4010
    """This tenant's stage has no WebSocket for this user: use SSE."""
    DRAIN = 4100
    TRY_LATER = 4101
    """A connection limit was reached."""
    RATE_LIMITED = 4102
    INTERNAL = 4103
    LAGGING = 4200
    TOKEN_EXPIRED = 4201
    """Fetch a new token first."""
    STALE = 4202
    """Nothing was heard from the client for too long."""

    @property
    def reason(self) -> str:
        return self.name.lower().replace("_", "-")


def action(code: int) -> str:
    """`stop`, `later` or `now`: what a client does after close code `code`; other codes reconnect after a
    delay."""
    if 4000 <= code < 4100:
        return "stop"
    return "now" if 4200 <= code < 4300 else "later"


RESERVED_TYPES = frozenset(
    {
        "auth_expired",
        "auth_expiring",
        "batch",
        "bye",
        "conversation.direct",
        "conversation.frame",
        "conversation.message",
        "conversation.mobile",
        "conversation.participants",
        "conversation.read",
        "conversation.reply",
        "conversation.system",
        "conversation.typing",
        "drain",
        "error",
        "gap",
        "inbox",
        "message",
        "migrate",
        "open",
        "presence",
        "publication",
        "replaced",
        "stage",
        "state",
        "status",
        "task",
        "unsubscribed",
        "welcome",
    }
)
"""Event names a publisher may not use: the protocol's own signals, those `EventSource` gives a meaning, and
events that only dualcast writes (so that dialects may rely on their shape)."""
