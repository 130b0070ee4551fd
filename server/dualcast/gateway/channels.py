"""`GET /v1/channels/{channel}/history`: pages of what was published, for whoever may subscribe."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import unquote_to_bytes

from litestar import get
from litestar.params import FromPath, QueryParameter
from msgspec import Raw, Struct

from dualcast.dialects.native import rfc3339
from dualcast.model.channel import check_channel
from dualcast.model.cursor import Cursor, parse_cursor
from dualcast.model.errors import BadChannel, Forbidden
from dualcast.model.principal import Principal
from dualcast.model.publication import Audience, Entry, Gap

from .services import Caller, Injected, Services


class HistoryEntry(Struct, frozen=True, omit_defaults=True):
    """One publication of the channel."""

    cursor: str
    id: str
    event: str
    time: str
    """RFC 3339, UTC, milliseconds; the same text as on streams and sockets."""
    data: Raw


class HistoryGap(Struct, frozen=True, omit_defaults=True):
    """Publications after `after` and before `oldest` are gone. `oldest` missing: nothing of the channel is
    left.
    """

    channel: str
    reason: str
    """`trimmed`, `epoch` (the log was restored or lost) or `unknown` (the cursor is not one of ours)."""
    after: str = ""
    oldest: str = ""


class HistoryPage(Struct, frozen=True, kw_only=True):
    """One page, oldest first. Ask again with `after=next` while `more`."""

    channel: str
    publications: list[HistoryEntry]
    gaps: list[HistoryGap]
    next: str
    """Everything up to here is in this page or in a gap."""
    more: bool


@get(
    "/v1/channels/{channel:str}/history",
    summary="Read a channel's history",
    tags=["channels"],
    operation_id="ChannelHistory",
)
async def history(
    services: Injected,
    caller: Caller,
    channel: FromPath[str],
    after: Annotated[
        str, QueryParameter(description="Cursor; without it from the oldest kept", max_length=64)
    ] = "",
    limit: Annotated[int, QueryParameter(description="Publications per page", ge=1, le=1000)] = 100,
) -> HistoryPage:
    """Pages of a channel by cursor, with the gaps that history limits have made. An unknown, future or
    foreign cursor is no error: the page starts at the oldest entry kept and says so in `gaps`.
    """
    name = channel_of(channel)
    if not await services.access.may_subscribe(caller, name):
        raise Forbidden("this channel is not yours to read")
    start, gaps = await _start(services, caller, name, after)
    page = await services.bus.read(caller.tenant, (name,), start, limit)
    # Without a cursor nothing was promised before the oldest entry, so its absence is no gap.
    gaps += [_gap(page.epoch, gap) for gap in page.gaps] if after and not gaps else []
    publications = [_entry(entry) for entry in page.entries if _due(entry.publication.audience, caller)]
    return HistoryPage(
        channel=name,
        publications=publications,
        gaps=gaps,
        next=str(Cursor(page.epoch, page.next)),
        more=page.next < page.top,
    )


def id_of(kind: str, segment: str) -> str:
    """The id of a channel of this kind that stands alone in such a segment; raises BadChannel."""
    return channel_of(f"{kind}:{segment}").partition(":")[2]


def channel_of(segment: str) -> str:
    """The channel of a path segment that is still percent-encoded (the edge leaves it so); raises
    BadChannel.
    """
    try:
        return check_channel(unquote_to_bytes(segment).decode())
    except UnicodeDecodeError:
        raise BadChannel("a channel name is UTF-8") from None


async def _start(
    services: Services, caller: Principal, channel: str, after: str
) -> tuple[int, list[HistoryGap]]:
    if not after:
        return 0, []
    cursor = parse_cursor(after)
    head = await services.bus.head(caller.tenant)
    if cursor.epoch == head.epoch and cursor.offset <= head.offset:
        return cursor.offset, []
    if cursor.epoch != head.epoch and await services.bus.known_epoch(caller.tenant, cursor.epoch):
        return min(cursor.offset, head.offset), [HistoryGap(channel, "epoch", after)]
    return 0, [HistoryGap(channel, "unknown", after)]


def _entry(entry: Entry) -> HistoryEntry:
    found = entry.publication
    return HistoryEntry(
        str(Cursor(found.epoch, found.offset)), found.id, found.type, rfc3339(found.time_ms), Raw(found.data)
    )


def _gap(epoch: str, gap: Gap) -> HistoryGap:
    return HistoryGap(
        gap.channel,
        gap.reason,
        str(Cursor(epoch, gap.after)),
        str(Cursor(epoch, gap.oldest)) if gap.oldest else "",
    )


def _due(audience: Audience | None, caller: Principal) -> bool:
    """Whether a reader of history belongs to the audience. A request has no device and no connection: what
    asks for one is left out.
    """
    if audience is None:
        return True
    if audience.users is not None and caller.sub not in audience.users:
        return False
    if audience.roles and caller.roles.isdisjoint(audience.roles):
        return False
    return not (audience.devices or audience.connections or caller.sub in audience.exclude_users)
