"""`?view=` on a running server (PROTO-66): beside the stream it is a view of, on both transports."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from support.clients import TRANSPORTS, Client, Got, open_client, open_socket, open_stream
from support.legacy_node import Stream, stream
from support.node import Node, running_node

pytestmark = pytest.mark.anyio

PATHS = {
    "notifications": "/api/notifications/stream",
    "task:T 1": "/api/stream/tasks/T%201",
    "batch:B1": "/api/stream/batches/B1",
}


@pytest.fixture
async def one() -> AsyncIterator[Node]:
    async with running_node("memory") as made:
        await made_tasks(made)
        yield made


async def made_tasks(node: Node) -> None:
    await call(node, "PUT", "/v1/batches/B1", owner="alice", total=2)
    await call(node, "PUT", "/v1/tasks/T%201", owner="alice", total_steps=3, batch="B1")
    await call(node, "PUT", "/v1/tasks/T2", owner="alice", batch="B1")


async def call(node: Node, method: str, path: str, **body: Any) -> Any:
    answer = await node.http.request(method, path, json=body, headers=node.auth("backend", "publisher"))
    assert answer.is_success, answer.text
    return answer.json()


async def notify(node: Node, title: str, user: str = "alice") -> None:
    await call(node, "POST", "/v1/notifications", to={"user": user}, title=title, data={"f": 1.0})


async def watch(node: Node, transport: str, view: str, sub: str = "alice", **how: Any) -> Client:
    return await open_client(transport, node.port, node.token(sub), view=view, **how)


async def events(client: Client, count: int) -> list[tuple[str, str]]:
    """The next events, those of the welcome among them; signals are passed over."""
    found: list[tuple[str, str]] = []
    while len(found) < count:
        got = await client.next()
        told = got.body.get("view" if got.kind == "welcome" else "events", ())
        found += [(one["event"], one["data"]) for one in told]
    assert len(found) == count, found
    return found


async def legacy_events(client: Stream, count: int) -> list[tuple[str, str]]:
    found = []
    for block in await client.blocks(count):
        lines = dict(line.split(": ", 1) for line in block.strip().split("\n"))
        found.append((lines["event"], lines["data"]))
    return found


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("view", "detach"), [(view, True) for view in PATHS] + [("task:T 1", False)], ids=[*PATHS, "plain-asgi"]
)
async def test_a_view_says_what_the_stream_says(view: str, detach: bool, transport: str) -> None:
    async with running_node("memory", detach=detach) as node:
        await made_tasks(node)
        await compare(node, view, transport)


async def compare(node: Node, view: str, transport: str) -> None:
    """A view and its stream, side by side."""
    async with await watch(node, transport, view) as client, await stream(node, PATHS[view], "alice") as old:
        first = 1 if view == "notifications" or view.startswith("task") else 2
        assert await events(client, first) == await legacy_events(old, first)
        await node.session_of("alice", 2)
        await notify(node, '你好 "<&>\\')
        await call(node, "POST", "/v1/tasks/T%201", step=1, message="一")
        await call(node, "POST", "/v1/tasks/T%201", state="completed", result={"f": 1.0}, message="完成")
        await call(node, "POST", "/v1/tasks/T2", state="failed", error="no")
        last = {"notifications": "notification", "task:T 1": "completed", "batch:B1": "finished"}[view]
        told: list[tuple[str, str]] = []
        while not told or told[-1][0] != last:
            told += [(one["event"], one["data"]) for one in (await client.next()).body.get("events", ())]
        assert told == await legacy_events(old, len(told))


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_cursor_goes_on_over_both_transports_and_the_older_stream(one: Node, transport: str) -> None:
    async with await watch(one, transport, "notifications") as client:
        await events(client, 1)
        await notify(one, "first")
        await events(client, 1)
        cursor = client.cursor
    for number in range(3):
        await notify(one, f"n{number}")
    for other in TRANSPORTS:
        async with await watch(one, other, "notifications", cursor=cursor) as client:
            found = await events(client, 4)
            assert [json.loads(data).get("title") for _, data in found] == [None, "n0", "n1", "n2"]
    headers = {"last-event-id": cursor or ""}
    async with await stream(one, PATHS["notifications"], "alice", headers=headers) as old:
        assert await legacy_events(old, 4) == found


async def test_a_state_is_told_to_whoever_begins_and_not_to_whoever_goes_on(one: Node) -> None:
    await call(one, "POST", "/v1/tasks/T%201", step=1, message="before")
    async with await watch(one, "sse", "task:T 1") as client:
        welcome = await client.welcome()
        told = [(event["event"], json.loads(event["data"]).get("message")) for event in welcome.body["view"]]
        assert told == [("connected", "已连接进度流"), ("progress", "before")]
        cursor, known = client.cursor, welcome.body["told"]
    for given in (known, "", "no.such", "9" * 70):
        async with await watch(one, "ws", "task:T 1", cursor=cursor, told=given) as client:
            welcome = await client.welcome()
            assert [event["event"] for event in welcome.body["view"]] == ["connected"]
            assert welcome.body.get("told") == (known if given == known else None)
    # What that state holds is not told again, though it was announced after the position.
    before = (cursor or "").partition("-")[0] + "-0"
    async with await watch(one, "ws", "task:T 1", cursor=before, told=known) as client:
        await client.welcome()
        await call(one, "POST", "/v1/tasks/T%201", step=2, message="after")
        ((_, data),) = await events(client, 1)
        assert json.loads(data)["message"] == "after"
    async with await watch(one, "ws", "task:T 1", cursor=before) as client:
        await client.welcome()
        assert [json.loads(data)["message"] for _, data in await events(client, 2)] == ["before", "after"]


async def test_a_task_whose_history_is_gone_is_told_as_it_stands(one: Node) -> None:
    await call(one, "POST", "/v1/tasks/T%201", step=1, message="here")
    async with await watch(one, "ws", "task:T 1", cursor="nolog-7") as client:
        welcome = await client.welcome()
        assert [event["event"] for event in welcome.body["view"]] == ["connected", "progress"]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_is_somebody_elses_is_refused_as_it_is_there(one: Node, transport: str) -> None:
    for view in ("task:T 1", "batch:B1", "task:none", "batch:none", "task:\n"):
        await refused(one, view, transport)


async def refused(one: Node, view: str, transport: str) -> None:
    """Mallory may not, and is told what the stream says."""
    kind = view.partition(":")[0]
    async with await watch(one, transport, view, "mallory") as client:
        if transport == "ws":
            ended = await client.end()
            assert (ended.code, ended.reason) == (4003, f"unknown-{kind}")
            return
        assert client.status == 404  # type: ignore[attr-defined]
        problem = json.loads(client.wire.response.body)  # type: ignore[attr-defined]
    assert (problem["detail"], problem["code"]) == (f"{kind.capitalize()} not found", f"unknown-{kind}")
    if "\n" not in view:
        path = (
            PATHS.get(view) or {"task": "/api/stream/tasks/none", "batch": "/api/stream/batches/none"}[kind]
        )
        async with await stream(one, path, "mallory") as old:
            assert (old.status, json.loads(old.body)["detail"]) == (404, problem["detail"])


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_admins_and_members_may_have_it(one: Node, transport: str) -> None:
    admin = one.token("root", roles=["admin"])
    async with await open_client(transport, one.port, admin, view="task:T 1") as client:
        await client.welcome()
    await one.grant("task:T%201", "mallory")
    async with await watch(one, transport, "task:T 1", "mallory") as client:
        await client.welcome()


async def test_the_channels_of_a_view_are_its_own(one: Node) -> None:
    async with await open_socket(one.port, one.token("alice"), view="notifications") as client:
        await client.welcome()
        for command in ("subscribe", "unsubscribe"):
            reply = await client.ask(command, channels=["topic:a"])
            assert (reply.kind, reply.body["code"]) == ("error", "fixed-channel")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_views_there_are_not(one: Node, transport: str) -> None:
    too_long = "task:" + "x" * 257
    for view in (
        "none",
        "notifications:alice",
        "notifications:",
        "task",
        "task:",
        "rooms",
        "/v1/stream",
        ":",
        too_long,
    ):
        async with await watch(one, transport, view) as client:
            if transport == "ws":
                ended = await client.end()
                known = (4003, "unknown-task") if view is too_long else (4000, "unknown-view")
                assert (ended.code, ended.reason) == known, view
                continue
            status = 404 if view is too_long else 400
            assert client.status == status, view  # type: ignore[attr-defined]
            if status == 400:
                problem = json.loads(client.wire.response.body)  # type: ignore[attr-defined]
                assert problem["code"] == "unknown-view"


async def test_a_server_without_the_contract_has_no_view() -> None:
    async with running_node("memory", legacy={"dialects": ["rooms"]}) as node:
        async with await open_stream(node.port, node.token("alice"), view="notifications") as client:
            assert client.status == 400
        async with await open_stream(node.port, view="notifications") as client:
            assert client.status == 401


async def test_a_tenant_sees_its_own(one: Node) -> None:
    other = one.token("alice", tenant="other")
    async with await open_socket(one.port, other, view="task:T 1") as client:
        assert (await client.end()).code == 4003
    async with (
        await open_socket(one.port, other, view="notifications") as theirs,
        await watch(one, "ws", "notifications") as ours,
    ):
        await theirs.welcome()
        await ours.welcome()
        await notify(one, "ours")
        body = {"to": {"user": "alice"}, "title": "theirs"}
        headers = one.auth("backend", "publisher", tenant="other")
        assert (await one.http.post("/v1/notifications", json=body, headers=headers)).status_code == 201
        for client, title in ((ours, "ours"), (theirs, "theirs")):
            ((_, data),) = await events(client, 1)
            assert json.loads(data)["title"] == title


async def test_channels_are_the_views_own_and_signals_are_the_protocols(one: Node) -> None:
    async with await watch(one, "ws", "task:T 1", channels=["task:foreign"]) as client:
        welcome = await client.welcome()
        assert welcome.body["channels"] == ["user:alice", "all", "task:T 1"]
        assert welcome.body["stage"] and welcome.cursor
        assert (await client.ask("ping")).kind == "pong"  # type: ignore[attr-defined]


async def test_a_view_and_the_protocols_own_events_do_not_mute_one_another(one: Node) -> None:
    same = {"instance": "page"}
    async with (
        await watch(one, "sse", "notifications", **same) as viewed,
        await open_socket(one.port, one.token("alice"), **same) as native,
        await watch(one, "ws", "task:T 1", **same) as other,
    ):
        for client in (viewed, native, other):
            await client.welcome()
        await notify(one, "one")
        assert (await events(viewed, 1))[0][0] == "notification"
        assert not any(session.muted for session in one.sessions)
        async with await watch(one, "ws", "notifications", **same) as twin:
            await twin.welcome()
            await twin.send("ack", cursor=twin.cursor)  # type: ignore[attr-defined]
            stream_session = one.sessions[0]
            await one.until(lambda: stream_session.muted, "the view's own stream is muted by its socket")
        await one.until(lambda: not stream_session.muted, "and delivers again")
        await notify(one, "two")
        assert (await events(viewed, 1))[0][0] == "notification"


def limited_node() -> Any:
    return running_node("memory", legacy={"connections_per_user": 2}, limits={"connections_per_user": 1})


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_one_name_for_all_connections_is_no_way_around_the_limit(transport: str) -> None:
    async with limited_node() as node:
        other = await watch(node, "ws" if transport == "sse" else "sse", "notifications", instance="same")
        await other.welcome()
        clients = []
        for _ in range(4):
            clients.append(await watch(node, transport, "notifications", instance="same"))
            await clients[-1].welcome()
        for client in clients[:2]:
            assert (await client.end()).code in (4009, None)
        assert len(node.sessions) == 3
        await asyncio.gather(*(client.close() for client in (other, *clients)))


async def test_the_newest_pages_stay_where_the_contract_has_a_limit() -> None:
    async with limited_node() as node:
        pages: list[Client] = []
        for number in range(3):
            for transport in TRANSPORTS:  # each page has both for a while
                pages.append(await watch(node, transport, "notifications", instance=f"p{number}"))
                await pages[-1].welcome()
        for client in pages[:2]:
            ended = await client.end()
            assert ended.code in (4009, None)
            last: list[Got] = client.history[-2:]
            assert last[0].body["events"] == [
                {"event": "replaced", "data": '{"reason":"connection limit","limit":2}'}
            ]
            assert (last[1].kind, last[1].body["reason"]) == ("bye", "replaced")
        await notify(node, "left")
        for client in pages[3::2]:
            await events(client, 1)
        await asyncio.gather(*(client.close() for client in pages))
