"""The Python client against a running node: published once whatever answers are lost, no token told, examples
that run.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from support.client_package import FOLDER, bodies, conversations, flow, lossy_line, package, rooms
from support.client_rig import Backend, Line, heard, published, say_end
from support.node import Node, running_node

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "redis"])
async def node(request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    async with running_node(request.param) as running:
        yield running


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    async with AsyncExitStack() as stack:
        yield Line(stack)


# ── once, whatever is lost ──


async def test_what_was_published_is_published_once_although_the_answers_were_lost(
    node: Node, line: Line
) -> None:
    admin = node.token("root", role="admin")
    native = await line.native(node, "alice", "all")
    room = await line.socket(node, "/api/v1/ws/alice", "alice", 2)
    chat_socket = await line.socket(node, "/api/v1/ws", "alice")

    async def lost(kind: str, call: Callable[[Backend], Any]) -> Any:
        async with lossy_line(node.port, lose=2) as broken:
            backend = Backend(kind, broken.url, admin, retries=flow.Retries(base_s=0.01))
            try:
                found = await call(backend)
            finally:
                await backend.close()
            assert broken.lost == 2
            return found

    async def message(backend: Backend) -> Any:
        chat = await backend.chat()
        return await chat.broadcast_message("c", {"content": "hi", "sender_id": "bob"})

    async def direct(backend: Backend) -> Any:
        return await (await backend.chat()).send_direct_message("alice", {"title": "D"})

    note = bodies.Notification(to=bodies.Target(user="alice"), title="native")
    async with package.AsyncClient(node.base_url, admin) as client:
        await client.set_participants("c", ["alice", "bob"])
        await client.register_task("t", bodies.TaskRegistration(owner="alice"))
        watcher = await line.native(node, "alice", "task:t")
        for kind in ("asyncio", "threads"):
            receipt = await lost(kind, lambda one: one.rooms.send_notification("alice", {"title": "rooms"}))
            assert receipt.duplicate
            (receipt,) = await lost(kind, lambda one: one.rooms.send_system_message({"m": 1}))
            assert receipt.duplicate
            (result,) = await lost(kind, lambda one: one.native.notify_many([note]))
            assert result.status == 200 and result.duplicate
            await lost(kind, message)
            await lost(kind, direct)
            await lost(kind, lambda one, kind=kind: one.notifications.task_progress("t", kind))
            kept = bodies.Message(content=kind, sender_id="bob")
            await lost(kind, lambda one, kept=kept: one.native.send_message("c", kept))
        for channel in ("all", "task:t"):
            await client.publish(bodies.Publication(channel=channel, type="end"))
        await say_end(await conversations.create_broadcasting_service(client=client))
        listed = await client.messages("c")
    assert [one.content for one in listed.messages] == ["threads", "asyncio"]
    each = ["notification", "system_message", "notification", "conversation.message", "conversation.direct"]
    each.append("conversation.message")
    seen = [
        kind
        for _, kind, _ in await published(native)
        if kind not in ("presence", "conversation.participants", "inbox", "task")
    ]
    assert seen == each * 2
    reports = [data["message"] for channel, _, data in await published(watcher) if channel == "task:t"]
    assert reports == ["asyncio", "threads"]
    kinds = ["notification", "system_message", "notification"]
    assert [json.loads(text)["type"] for text in await room.texts(6)] == kinds * 2
    events = [one["event"] for one in await heard(chat_socket, "system_notification")]
    assert events == ["new_message", "direct_message", "new_message"] * 2


async def test_a_user_who_is_no_backend_is_refused_at_once(node: Node) -> None:
    async with package.AsyncClient(node.base_url, node.token("alice")) as client:
        with pytest.raises(package.DualcastError) as caught:
            await rooms.NotificationBroadcaster(client).send_sync_update("bob", {})
        assert (caught.value.code, caught.value.status) == ("publisher-only", 403)
        with pytest.raises(package.DualcastError, match="publisher-only"):
            await client.typing("c", True, user="bob")


# ── secrets and documents ──


@pytest.mark.covers("R50")
async def test_the_token_is_in_no_log_line_repr_or_error(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = node.token("backend", roles=["publisher"])
    bad = token[:-4] + "AAAA"
    texts = []
    for given in (token, bad):
        client = package.AsyncClient(node.base_url, given)
        async with client:
            texts += [repr(client), repr(client.policy)]
            try:
                await client.notify(bodies.Notification(to=bodies.Target(user="a"), title="T"))
            except package.DualcastError as error:
                assert error.code == "unauthorized"
                texts += [repr(error), str(error), repr(error.__dict__), repr(error.__context__)]
        with package.Client(node.base_url, given) as sync:
            texts.append(repr(sync))
    texts += [record.getMessage() + repr(record.args) for record in caplog.records]
    assert len(texts) > 10
    signature = token.rpartition(".")[2][:20]
    assert not [text for text in texts if signature in text]


async def test_the_examples_of_the_readme_run(
    node: Node, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    examples = re.findall("^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(examples) == 4
    token = node.token("backend", roles=["publisher"], channels=["topic:*"])
    for example in examples:
        names: dict[str, Any] = {}
        exec(compile(example, "README.md", "exec"), names)
        try:
            await names["main"](node.base_url, token)
        finally:
            await package.close_default()
    printed = capsys.readouterr().out
    for line in ("invalid-body 422", "doing {'n': 1}", "forbidden-channel", "1 unread", "live websocket"):
        assert line in printed
