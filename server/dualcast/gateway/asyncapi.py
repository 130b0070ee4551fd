"""`/asyncapi.yaml`: the native protocol as an AsyncAPI 3.0 document, generated from the frame types
themselves.
"""

from __future__ import annotations

from functools import cache
from typing import Any, get_args

import msgspec
import yaml
from litestar import Response, get

from dualcast.dialects.native_types import ClientCommand, ServerMessage

from .authentication import PUBLIC

MEDIA_TYPE = "application/yaml"
_ABOUT = (
    "Native WebSocket protocol (text frames of one JSON object, tag `type`) and native event stream. "
    "Cursors are the same on both and over REST."
)
_ABOUT_STREAM = (
    "`id:` is the cursor, `event:` the type, `data:` the object without its `type`; "
    "publications come under their own event type, with `?view=` those of an older stream as `publication`."
)
_SCHEMAS = "#/components/schemas/"
_SOCKET_ONLY = frozenset(
    {"subscribed", "authenticated", "error", "pong", "bye", "publication", "view"}
    | {"inbox_page", "inbox_counters", "marked", "sent", "done", "presence_state"}
)
"""Server frames without an event of that name on `/v1/stream`; a publication has its own type as event name
there, what a view says is called `publication`.
"""


def document(version: str) -> dict[str, Any]:
    """The document as plain values. Actions are the server's: it `receive`s commands and `send`s frames."""
    commands, frames = get_args(ClientCommand), get_args(ServerMessage)
    _, schemas = msgspec.json.schema_components((*commands, *frames), ref_template=_SCHEMAS + "{name}")
    events = [frame for frame in frames if _tag(frame) not in _SOCKET_ONLY]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "dualcast",
            "version": version,
            "description": _ABOUT,
        },
        "defaultContentType": "application/json",
        "channels": {
            "socket": {
                "address": "/v1/socket",
                "title": "WebSocket",
                "bindings": {"ws": {"method": "GET"}},
                "messages": {_tag(kind): _message_ref(kind) for kind in (*commands, *frames)},
            },
            "stream": {
                "address": "/v1/stream",
                "title": "Server-sent events",
                "description": _ABOUT_STREAM,
                "bindings": {"http": {}},
                "messages": {_tag(kind): _message_ref(kind) for kind in (*events, _publication(frames))},
            },
        },
        "operations": {
            "receiveCommands": _operation("receive", "socket", commands),
            "sendFrames": _operation("send", "socket", frames),
            "sendEvents": _operation("send", "stream", (*events, _publication(frames))),
        },
        "components": {
            "messages": {
                kind.__name__: {
                    "name": _tag(kind),
                    "summary": (kind.__doc__ or "").strip().split("\n")[0],
                    "payload": {"$ref": _SCHEMAS + kind.__name__},
                }
                for kind in (*commands, *frames)
            },
            "schemas": schemas,
        },
    }


@cache
def render(version: str) -> bytes:
    """The document as YAML."""
    text: str = yaml.safe_dump(document(version), sort_keys=False, allow_unicode=True, width=110)
    return text.encode()


def asyncapi_route(version: str) -> Any:
    """The handler of `/asyncapi.yaml`."""

    @get("/asyncapi.yaml", opt={PUBLIC: True}, name="asyncapi", include_in_schema=False, sync_to_thread=False)
    def asyncapi() -> Response[bytes]:
        return Response(render(version), media_type=MEDIA_TYPE)

    return asyncapi


def _tag(kind: Any) -> str:
    tag = kind.__struct_config__.tag
    assert isinstance(tag, str)
    return tag


def _publication(frames: tuple[Any, ...]) -> Any:
    return next(frame for frame in frames if _tag(frame) == "publication")


def _message_ref(kind: Any) -> dict[str, str]:
    return {"$ref": f"#/components/messages/{kind.__name__}"}


def _operation(action: str, channel: str, kinds: tuple[Any, ...]) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{_tag(kind)}"} for kind in kinds],
    }
