"""Channel names: `kind:id` inside a tenant, or `all` for the whole tenant.

Ids are opaque UTF-8 without control characters: e-mail addresses, `auth0|1` and Chinese room names are ids.
They have 1 to 256 bytes, those of rooms and topics up to 1024: people name them, and the older contracts
allow 200 characters of any script. A channel is carried as one canonical `str` ("user:alice"); keys and URLs
percent-encode it.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from urllib.parse import quote

from .errors import BadChannel

KINDS = frozenset({"user", "task", "batch", "topic", "room", "conversation", "presence"})
ALL = "all"
MAX_ID_BYTES = 256
NAMED = frozenset({"room", "topic"})
"""Kinds whose ids are names."""
MAX_NAME_BYTES = 1024
MAX_CHANNEL_CHARACTERS = 1100
"""More than any channel has: beyond it a name is refused with the whole request."""
_TENANT = re.compile(r"[a-z0-9-]{1,63}\Z")
# C0, DEL and C1 controls, and the two Unicode line separators that some log viewers break lines at.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def check_tenant(text: str) -> str:
    """`text` if it is a tenant id (`[a-z0-9-]{1,63}`); raises BadChannel otherwise."""
    if not _TENANT.match(text):
        raise BadChannel("a tenant id is 1 to 63 characters of a-z, 0-9 and '-'", code="bad-tenant")
    return text


def check_id(text: str, *, max_bytes: int = MAX_ID_BYTES) -> str:
    """`text` if it is a valid user id; raises BadChannel otherwise. Of channels: `check_channel_id`."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise BadChannel("an id must be valid UTF-8") from None
    if not 1 <= size <= max_bytes:
        raise BadChannel(f"an id has 1 to {max_bytes} bytes")
    if _CONTROL.search(text):
        raise BadChannel("an id must not contain control characters")
    return text


def check_channel_id(kind: str, ident: str) -> str:
    """`ident` if it is a valid id of a channel of this kind; raises BadChannel otherwise."""
    return check_id(ident, max_bytes=MAX_NAME_BYTES if kind in NAMED else MAX_ID_BYTES)


def check_channel(text: str) -> str:
    """The canonical channel name for `text`; raises BadChannel when it is not one."""
    if text == ALL:
        return ALL
    kind, colon, ident = text.partition(":")
    if not colon or kind not in KINDS:
        raise BadChannel("a channel is 'all' or kind:id with a kind of " + ", ".join(sorted(KINDS)))
    check_channel_id(kind, ident)
    return text


def user_channel(user: str) -> str:
    """The channel of user id `user`; raises BadChannel when the id is not valid."""
    return "user:" + check_id(user)


def key_part(channel: str) -> str:
    """A channel name as it appears in bus keys and URLs: percent-encoded, `:` kept."""
    return quote(channel, safe=":@.-_~")


def matches(pattern: str, channel: str) -> bool:
    """Whether a `channels` claim or public pattern (`topic:*`, exact names) covers `channel`.

    `*` and `?` work inside the id only: the kind must be spelt out, so `*` alone never opens a tenant.
    """
    kind, colon, ident = pattern.partition(":")
    if not colon:
        return pattern == channel
    ckind, _, cident = channel.partition(":")
    if kind != ckind or kind not in KINDS:
        return False
    # fnmatch gives '[' a meaning; ids are opaque, so it is made literal.
    return fnmatchcase(cident, ident.replace("[", "[[]"))
