"""The native dialect on both transports: frames as bytes, client text as commands (docs/protocol.md)."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote

import msgspec

from dualcast.model.errors import BadRequest
from dualcast.model.inbox import Badge
from dualcast.model.publication import Entry, Gap

from .native_base import Referred, ServerFrame
from .native_types import ClientCommand, GapFrame

_encode = msgspec.json.Encoder().encode
_encode_str = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[ClientCommand] = msgspec.json.Decoder(ClientCommand)
_referred: msgspec.json.Decoder[Referred] = msgspec.json.Decoder(Referred)
_JSON_MEMO = "native-json"


def rfc3339(time_ms: int) -> str:
    """Unix milliseconds as RFC 3339 UTC with milliseconds and `Z`."""
    return (
        datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{time_ms % 1000:03d}Z"
    )


def _inbox(badge: Badge) -> bytes:
    """The member `inbox` of a publication that was kept in one."""
    if badge.unread < 0:
        return b'"inbox":{"tenant_revision":%d},' % badge.tenant_revision
    return b'"inbox":{"unread":%d,"unseen":%d,"revision":[%d,%d]},' % (
        badge.unread,
        badge.unseen,
        badge.user_revision,
        badge.tenant_revision,
    )


def _json(entry: Entry) -> bytes:
    """The part of the object both transports share, from `"channel"` on; made once per entry."""
    memo = entry.frames.get(_JSON_MEMO)
    if memo is None:
        pub = entry.publication
        memo = b'"channel":%b,"id":%b,"event":%b,"time":"%b",%b"data":%b}' % (
            _encode_str(entry.channel),
            _encode_str(pub.id),
            _encode_str(pub.type),
            rfc3339(pub.time_ms).encode(),
            b"" if pub.badge is None else _inbox(pub.badge),
            pub.data,
        )
        entry.frames[_JSON_MEMO] = memo
    return memo


def socket_publication(entry: Entry) -> bytes:
    """The JSON text of a `publication` frame."""
    if entry.offset:
        cursor = b"%b-%d" % (entry.publication.epoch.encode(), entry.offset)
        return b'{"type":"publication","cursor":"' + cursor + b'",' + _json(entry)
    return b'{"type":"publication",' + _json(entry)


def socket_recovered(entry: Entry) -> bytes:
    """The JSON text of a `publication` frame that does not move the cursor."""
    return b'{"type":"publication","recovered":true,' + _json(entry)


def socket_frame(frame: ServerFrame) -> bytes:
    """The JSON text of any server frame."""
    return _encode(frame)


def stream_publication(entry: Entry) -> bytes:
    """The SSE block of a publication: `id` (resumable ones only), `event`, `data`. `type` was checked at
    publish: no CR, LF."""
    event = entry.publication.type.encode()
    if entry.offset:
        return b"id: %b-%d\nevent: %b\ndata: {%b\n\n" % (
            entry.publication.epoch.encode(),
            entry.offset,
            event,
            _json(entry),
        )
    return b"event: %b\ndata: {%b\n\n" % (event, _json(entry))


def stream_frame(
    frame: ServerFrame, *, cursor: str | None = None, retry_ms: int | None = None, event: str = ""
) -> bytes:
    """The SSE block of a signal: event name = the frame's tag (or `event`), data = the same object without
    `type`."""
    fields = msgspec.to_builtins(frame)
    tag = fields.pop("type")
    head = f"retry: {retry_ms}\n" if retry_ms is not None else ""
    if cursor:
        head += f"id: {cursor}\n"
    return b"%bevent: %b\ndata: %b\n\n" % (head.encode(), (event or tag).encode(), _encode(fields))


def _state(channel: str, data: bytes | None, status: str) -> bytes:
    if data is not None:
        return b'"channel":%b,"data":%b}' % (_encode_str(channel), data)
    return b'"channel":%b,"data":null,"status":%b}' % (_encode_str(channel), _encode_str(status))


def socket_state(channel: str, data: bytes | None, status: str) -> bytes:
    """The JSON text of a `state` frame. `data`: minified JSON without newlines; None: see `status`."""
    return b'{"type":"state",' + _state(channel, data, status)


def stream_state(channel: str, data: bytes | None, status: str) -> bytes:
    """The SSE block of a `state` event. It carries no `id`: it moves no position."""
    return b"event: state\ndata: {" + _state(channel, data, status) + b"\n\n"


def stream_position(cursor: str) -> bytes:
    """A block that moves `lastEventId` and fires no event (WHATWG: empty data dispatches nothing)."""
    return b"id: " + cursor.encode() + b"\n\n"


HEARTBEAT_COMMENT = b":\n\n"


def gap_frame(gap: Gap, epoch: str, cursor: str | None) -> GapFrame:
    """The `gap` signal for `gap`; `cursor` is where delivery goes on."""
    after = f"{epoch}-{gap.after}"
    return GapFrame(
        channel=gap.channel,
        after=after,
        oldest=f"{epoch}-{gap.oldest}" if gap.oldest else None,
        reason=gap.reason,
        cursor=cursor,
        history_url=f"/v1/channels/{quote(gap.channel, safe=':')}/history?after={after}",
    )


def command_ref(text: str) -> str | None:
    """The `ref` of a frame that is no command, so that whoever waits for its answer gets one (PROTO-21); None
    where it has none that could be sent back."""
    try:
        return _referred.decode(text).ref
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def decode_command(text: str) -> ClientCommand:
    """The client command in `text`; raises BadRequest with a stable code when it is not one."""
    try:
        return _decoder.decode(text)
    except msgspec.ValidationError as error:
        # The message names the path and the expected type, never a value of another user or server text.
        raise BadRequest(str(error)[:200], code="bad-command") from None
    except (msgspec.DecodeError, UnicodeError):
        raise BadRequest("a frame is one JSON object", code="malformed-json") from None
    except RecursionError:
        raise BadRequest("nested too deep", code="too-deep") from None
