"""What every frame of the native WebSocket protocol is made of: the two roots and the bounded field types."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from dualcast.model.channel import MAX_CHANNEL_CHARACTERS

Ref = Annotated[
    str, Meta(max_length=64, description="Chosen by the client, echoed in the reply to this command.")
]
ChannelName = Annotated[str, Meta(max_length=MAX_CHANNEL_CHARACTERS, description="`kind:id` or `all`.")]
CursorText = Annotated[str, Meta(max_length=64, description="`<epoch>-<offset>`, opaque to clients.")]


class ClientFrame(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", kw_only=True):
    """A command of the client."""

    ref: Ref | None = None


class Referred(Struct, frozen=True):
    """What is read of a frame that is no command."""

    ref: Ref | None = None


class ServerFrame(Struct, frozen=True, omit_defaults=True, tag_field="type", kw_only=True):
    """A frame of the server."""


class InboxBadge(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Counters of the own inbox at one version (PROTO-42): `unread`, `unseen` and `revision`, or, on a
    tenant-wide publication, `tenant_revision` alone."""

    unread: int | None = None
    unseen: int | None = None
    revision: tuple[int, int] | None = None
    """[user revision, tenant revision]; neither ever falls."""
    tenant_revision: int | None = None
    """Whoever had the tenant revision before adds one to both counters."""
