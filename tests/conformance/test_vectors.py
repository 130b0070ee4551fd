"""The native protocol as data: what a publication, a signal or a command is, byte for byte.

`vectors/*.json` are read by every implementation of the protocol. `publications.json`: publication → SSE
block and WebSocket text, live and recovered. `signals.json`: frame → both. `commands.json`: client text →
command or error code. `close_codes.json`: code → what a client does. Here they are
checked against the encoders, and on the wire of a running server.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dualcast.dialects import native, native_types
from dualcast.model.codes import RESERVED_TYPES, Close, action
from dualcast.model.errors import DualcastError
from dualcast.model.inbox import Badge
from dualcast.model.publication import Draft, Entry, Publication
from dualcast.transport import frames
from dualcast.transport.encodings import NATIVE_SSE, NATIVE_WS
from support.clients import SseParser
from support.node import Node, running_node
from support.raw_http import open_sse, open_websocket

FOLDER = Path(__file__).parent / "vectors"


def load(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["vectors"]
    return found


def named(name: str) -> list[Any]:
    return [pytest.param(vector, id=vector["name"]) for vector in load(name)]


def entry_of(vector: dict[str, Any]) -> Entry:
    given = vector["publication"]
    publication = Publication(
        tenant="default",
        epoch=given["epoch"],
        offset=given["offset"],
        id=given["id"],
        type=given["event"],
        data=given["data_json"].encode(),
        time_ms=given["time_ms"],
        badge=Badge(*given["badge"]) if "badge" in given else None,
    )
    return Entry(publication, given["channel"])


@pytest.mark.parametrize("vector", named("publications"))
def test_a_publication_is_these_bytes(vector: dict[str, Any]) -> None:
    entry = entry_of(vector)
    assert native.stream_publication(entry).decode() == vector["sse"]
    assert native.socket_publication(entry).decode() == vector["websocket"]
    assert native.socket_recovered(entry).decode() == vector["websocket_recovered"]


@pytest.mark.parametrize("vector", named("publications"))
def test_a_publication_reads_back_as_what_was_published(vector: dict[str, Any]) -> None:
    given = vector["publication"]
    cursor = f"{given['epoch']}-{given['offset']}" if given["offset"] else None
    body = {
        "channel": given["channel"],
        "id": given["id"],
        "event": given["event"],
        "time": vector["time"],
        **({"inbox": vector["inbox"]} if "inbox" in vector else {}),
        "data": json.loads(given["data_json"]),
    }
    parser = SseParser()
    ((event, data, last_id, retry),) = parser.feed(vector["sse"].encode())
    assert (event, json.loads(data), last_id, retry) == (given["event"], body, cursor or "", None)
    frame = json.loads(vector["websocket"])
    assert frame == {"type": "publication", **({"cursor": cursor} if cursor else {}), **body}
    assert json.loads(vector["websocket_recovered"]) == {"type": "publication", "recovered": True, **body}
    msgspec.json.decode(vector["websocket"], type=native_types.Published)


@pytest.mark.parametrize("vector", named("publications"))
def test_an_sse_block_in_any_pieces_is_one_event(vector: dict[str, Any]) -> None:
    data, parser, events = vector["sse"].encode(), SseParser(), []
    for index in range(len(data)):
        events += parser.feed(data[index : index + 1])
    assert len(events) == 1


@pytest.mark.parametrize("vector", named("signals"))
def test_a_signal_is_these_bytes(vector: dict[str, Any]) -> None:
    frame = msgspec.convert(vector["frame"], type=native_types.ServerMessage)
    assert native.socket_frame(frame).decode() == vector["websocket"]
    if vector["frame"]["type"] == "state":
        # States are spliced: what the room that knows them encoded is never decoded here.
        data, status = vector["frame"]["data"], vector["frame"].get("status", "")
        raw = None if data is None else msgspec.json.encode(data)
        assert native.socket_state(vector["frame"]["channel"], raw, status).decode() == vector["websocket"]
        assert native.stream_state(vector["frame"]["channel"], raw, status).decode() == vector["sse"]
    if "sse" in vector:
        block = native.stream_frame(
            frame,
            cursor=vector["sse_cursor"],
            retry_ms=vector["sse_retry_ms"],
        )
        assert block.decode() == vector["sse"]
        ((event, data, last_id, retry),) = SseParser().feed(block)
        body = dict(vector["frame"])
        assert event == body.pop("type")
        assert json.loads(data) == body
        assert (last_id, retry) == (vector["sse_cursor"] or "", vector["sse_retry_ms"])


def test_every_frame_of_the_server_has_a_vector() -> None:
    tags = {frame.__struct_config__.tag for frame in native_types.ServerMessage.__args__}
    assert {vector["frame"]["type"] for vector in load("signals")} | {"publication"} == tags


@pytest.mark.parametrize("vector", named("commands"))
def test_a_command_is_understood_or_refused_with_its_code(vector: dict[str, Any]) -> None:
    try:
        command = native.decode_command(vector["text"])
    except DualcastError as error:
        assert error.code == vector.get("error")
    else:
        assert json.loads(msgspec.json.encode(command)) == vector["command"]


def test_every_command_has_a_vector() -> None:
    tags = {command.__struct_config__.tag for command in native_types.ClientCommand.__args__}
    assert {vector["command"]["type"] for vector in load("commands") if "command" in vector} == tags


@pytest.mark.parametrize("vector", named("close_codes"))
def test_a_close_code_tells_the_client_what_to_do(vector: dict[str, Any]) -> None:
    assert action(vector["code"]) == vector["action"]
    if vector["name"] in Close.__members__:
        assert Close[vector["name"]] == vector["code"]
        assert Close(vector["code"]).reason == vector["reason"]


def test_every_close_code_has_a_vector() -> None:
    assert set(Close.__members__) <= {vector["name"] for vector in load("close_codes")}


def test_no_publisher_may_use_the_name_of_a_signal_bug_bye_was_free() -> None:
    """A publication of type `bye` was an SSE event that clients took for the server's last words."""
    on_streams = {vector["frame"]["type"] for vector in load("signals") if "sse" in vector}
    assert on_streams <= RESERVED_TYPES


# ── on the wire ─────────


@pytest.fixture
async def node() -> Any:
    async with running_node("memory") as running:
        yield running


@pytest.mark.anyio
async def test_the_wire_carries_exactly_these_bytes(node: Node) -> None:
    bearer = f"Bearer {node.token(roles=['admin'])}"
    channels = list(dict.fromkeys(vector["publication"]["channel"] for vector in load("publications")))
    stream = await open_sse(node.port, "/v1/stream", authorization=bearer)
    socket = await open_websocket(node.port, "/v1/socket", authorization=bearer)
    async with stream, socket:
        await stream.chunk()
        while (await socket.frame()).opcode != frames.PING:
            pass
        session_channels = [name for name in channels if name != "all"]
        hub = node.composition.hub
        for session in node.sessions:
            feeds = [hub.channel("default", name) for name in session_channels]
            await node.until(lambda feeds=feeds: all(feed.complete_from >= 0 for feed in feeds))  # type: ignore[misc]
            session.subscribe(feeds)
        for vector in load("publications"):
            given = vector["publication"]
            if "badge" in given:
                continue  # the log's own inbox would count, not the vector
            receipt = await node.composition.bus.append(
                Draft(
                    tenant="default",
                    channels=(given["channel"],),
                    id=given["id"],
                    type=given["event"],
                    data=given["data_json"].encode(),
                    time_ms=given["time_ms"],
                    ephemeral=not given["offset"],
                )
            )
            # The log's own epoch and offset take the place of the vector's.
            old, new = f"{given['epoch']}-{given['offset']}", receipt.cursor
            block = vector["sse"].replace(f"id: {old}\n", f"id: {new}\n")
            text = vector["websocket"].replace(f'"cursor":"{old}"', f'"cursor":"{new}"')
            assert (await stream.chunk()).decode() == block
            frame = await socket.frame()
            assert (frame.opcode, frame.payload.decode(), frame.rsv1) == (frames.TEXT, text, False)


@pytest.mark.parametrize("vector", named("publications"))
def test_an_encoding_frames_the_block_as_one_chunk_and_the_text_as_one_frame(vector: dict[str, Any]) -> None:
    entry = entry_of(vector)
    block, text = vector["sse"].encode(), vector["websocket"].encode()
    assert NATIVE_SSE.frame(entry) == b"%x\r\n" % len(block) + block + b"\r\n"
    assert NATIVE_WS.frame(entry) == frames.frame(frames.TEXT, text)
    assert NATIVE_WS.frame(entry) is NATIVE_WS.frame(entry), "made once"
