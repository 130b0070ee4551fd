"""One person's things on the native protocol, from end to end: badges, inbox, conversations, presence, tasks.

The laptop is an event stream, the phone a socket, both of alice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from support.clients import Client, Got, WsClient, open_client, open_socket, open_stream
from support.node import ENGINES, Node, running_node

pytestmark = pytest.mark.anyio
SETUPS = [*((engine, True) for engine in ENGINES), ("memory", False)]


@pytest.fixture(params=SETUPS, ids=lambda setup: f"{setup[0]}-{'detached' if setup[1] else 'plain'}")
async def node(request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    engine, detach = request.param
    async with running_node(engine, detach=detach) as running:
        yield running


@pytest.fixture
async def phone(node: Node) -> AsyncIterator[WsClient]:
    async with await open_socket(node.port, node.token()) as client:
        await client.welcome()
        yield client


@pytest.fixture
async def laptop(node: Node) -> AsyncIterator[Client]:
    async with await open_stream(node.port, node.token()) as client:
        await client.welcome()
        yield client


async def backend(node: Node, method: str, path: str, body: Any = None, tenant: str = "default") -> Any:
    answer = await node.http.request(
        method, path, json=body, headers=node.auth("backend", "publisher", tenant=tenant)
    )
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


async def notify(node: Node, to: Any = "alice", *, tenant: str = "default", **fields: Any) -> str:
    """A notification's id. `to`: a user, or `all`."""
    target = {"all": True} if to == "all" else {"user": to}
    body = {"to": target, "title": "Hello", **fields}
    return str((await backend(node, "POST", "/v1/notifications", body, tenant))["id"])


def full(badge: dict[str, Any]) -> tuple[int, int]:
    assert set(badge) == {"unread", "unseen", "revision"} and len(badge["revision"]) == 2
    return badge["unread"], badge["unseen"]


async def event(client: Client, name: str) -> Got:
    return await client.until("publication", lambda got: got.body["event"] == name)


async def test_what_is_kept_says_what_the_badge_is_on_both_transports(
    node: Node, phone: WsClient, laptop: Client
) -> None:
    await notify(node)
    await notify(node)
    await notify(node, "all")
    await node.publish("user:alice", "plain")
    for client in (phone, laptop):
        first, second, wide, plain = await client.publications(4)
        assert [full(got.body["inbox"]) for got in (first, second)] == [(1, 1), (2, 2)]
        assert first.body["inbox"]["revision"] < second.body["inbox"]["revision"]
        assert set(wide.body["inbox"]) == {"tenant_revision"}
        assert wide.body["inbox"]["tenant_revision"] == second.body["inbox"]["revision"][1] + 1
        assert "inbox" not in plain.body
    reply = await phone.ask("counters")
    assert (reply.kind, full(reply.body["inbox"])) == ("inbox_counters", (3, 3))
    assert reply.body["inbox"]["revision"][1] == wide.body["inbox"]["tenant_revision"]


@pytest.mark.parametrize("transport", ["sse", "ws"])
async def test_coming_back_the_badges_of_the_past_come_in_their_order(node: Node, transport: str) -> None:
    async with await open_client(transport, node.port, node.token()) as client:
        cursor = (await client.welcome()).cursor
    for _ in range(3):
        await notify(node)
    async with await open_client(transport, node.port, node.token(), cursor=cursor) as client:
        await client.welcome()
        badges = [full(got.body["inbox"]) for got in await client.publications(3)]
        assert badges == [(1, 1), (2, 2), (3, 3)]


async def test_read_on_the_phone_clears_the_badge_on_the_laptop(
    node: Node, phone: WsClient, laptop: Client
) -> None:
    one, two = await notify(node), await notify(node)
    await phone.publications(2)
    await laptop.publications(2)
    reply = await phone.ask("read", ids=[one, "nothing"])
    assert (reply.kind, reply.body["action"], reply.body["ids"]) == ("marked", "read", [one])
    assert (reply.body["count"], reply.body["unknown"]) == (1, ["nothing"])
    assert full(reply.body["inbox"]) == (1, 1)
    told = await event(laptop, "inbox")
    assert told.data["action"] == "read" and told.data["ids"] == [one]
    assert {key: told.data[key] for key in ("unread", "unseen", "revision")} == reply.body["inbox"]
    # The phone had its reply; what comes next there is something else.
    await node.publish("user:alice", "next")
    assert (await phone.publications(1))[0].data == "next"
    page = (await phone.ask("inbox", states=["unseen"])).body
    assert [item["id"] for item in page["notifications"]] == [two]


async def test_the_inbox_is_paged_filtered_and_counted(node: Node, phone: WsClient) -> None:
    ids = [await notify(node, type="alert" if number % 2 else "system") for number in range(5)]
    wide = await notify(node, "all", type="system")
    page = (await phone.ask("inbox", limit=4)).body
    rest = (await phone.ask("inbox", limit=4, before=page["next"])).body
    listed = [*page["notifications"], *rest["notifications"]]
    assert [item["id"] for item in listed] == [wide, *reversed(ids)]
    assert "next" not in rest
    assert {(item["state"], item["scope"]) for item in listed} == {("unseen", "user"), ("unseen", "tenant")}
    assert full(page["inbox"]) == (6, 6)
    alerts = (await phone.ask("inbox", kinds=["alert"])).body["notifications"]
    assert [item["id"] for item in alerts] == [ids[3], ids[1]]
    assert (await phone.ask("counters", by_kind=True)).body["kinds"] == {"alert": 2, "system": 4}
    over_rest = await node.http.get("/v1/users/alice/notifications", headers=node.auth("alice"))
    assert over_rest.json()["notifications"] == listed


async def test_every_marking_does_what_it_says(node: Node, phone: WsClient) -> None:
    one, two = await notify(node), await notify(node)
    steps: list[tuple[str, dict[str, Any], tuple[int, int]]] = [
        ("seen", {"all": True}, (2, 0)),
        ("read", {"ids": [one]}, (1, 0)),
        ("unread", {"ids": [one]}, (2, 0)),
        ("read", {"all": True}, (0, 0)),
        ("archive", {"ids": [two]}, (0, 0)),
    ]
    for command, fields, counts in steps:
        reply = await phone.ask(command, **fields)
        assert reply.kind == "marked" and full(reply.body["inbox"]) == counts, command
    states = {item["id"]: item["state"] for item in (await phone.ask("inbox")).body["notifications"]}
    assert states == {one: "read", two: "archived"}
    assert (await phone.ask("delete", ids=[one])).body["action"] == "deleted"
    reply = await phone.ask("delete", all=True)
    assert (reply.body["ids"], reply.body["count"]) == (None, 1)
    assert (await phone.ask("inbox")).body["notifications"] == []


async def test_nobody_reaches_anothers_inbox(node: Node, phone: WsClient) -> None:
    theirs = await notify(node, "bob")
    other = await notify(node, "alice", tenant="other")
    for command in ("read", "delete"):
        reply = await phone.ask(command, ids=[theirs, other])
        assert (reply.body["ids"], sorted(reply.body["unknown"])) == ([], sorted([theirs, other]))
    assert (await phone.ask("inbox")).body["notifications"] == []
    for sub, tenant, ident in (("bob", "default", theirs), ("alice", "other", other)):
        async with await open_socket(node.port, node.token(sub, tenant=tenant)) as client:
            await client.welcome()
            page = (await client.ask("inbox")).body
            assert [(item["id"], item["state"]) for item in page["notifications"]] == [(ident, "unseen")]
            foreign = page["notifications"][0]["id"]
            assert (await phone.ask("read", ids=[foreign])).body["ids"] == []
    for fields in ({"before": "rubbish"}, {"before": "7-00000000"}):
        assert (await phone.ask("inbox", **fields)).body["code"] == "bad-cursor"


async def test_a_conversation_on_the_socket(node: Node, phone: WsClient, laptop: Client) -> None:
    await backend(node, "PUT", "/v1/conversations/c1/participants", {"participants": ["alice", "bob"]})
    async with await open_socket(node.port, node.token("bob")) as bob:
        await bob.welcome()
        reply = await phone.ask("message", conversation="c1", content="你好", id="m1")
        assert (reply.kind, reply.body["id"], reply.body["seq"]) == ("sent", "m1", 1)
        for client in (bob, laptop):
            got = await event(client, "conversation.message")
            assert (got.data["id"], got.data["content"], got.data["sender_id"]) == ("m1", "你好", "alice")
        again = await phone.ask("message", conversation="c1", content="你好", id="m1")
        assert (again.kind, again.body["seq"]) == ("sent", 1)
        assert (await phone.ask("message", conversation="c1", content="no", id="m1")).body["code"] == (
            "idempotency-conflict"
        )
        assert (await phone.ask("typing", conversation="c1")).kind == "done"
        typing = await event(bob, "conversation.typing")
        assert typing.data == {"conversation_id": "c1", "user_id": "alice", "is_typing": True}
        assert typing.cursor is None
        reply = await bob.ask("message_read", conversation="c1", ids=["m1", "m9"])
        assert (reply.kind, reply.body["unread"], reply.body["unknown"]) == ("done", 0, ["m9"])
        assert (await event(phone, "conversation.read")).data["user_id"] == "bob"
        assert not [got for got in phone.history if got.body.get("event") == "conversation.message"]


async def test_a_conversation_of_others_is_closed(node: Node, phone: WsClient) -> None:
    await backend(node, "PUT", "/v1/conversations/c2/participants", {"participants": ["bob"]})
    commands: list[tuple[str, dict[str, Any]]] = [
        ("message", {"content": "x"}),
        ("typing", {}),
        ("message_read", {"ids": ["m1"]}),
    ]
    for command, fields in commands:
        reply = await phone.ask(command, conversation="c2", **fields)
        assert (reply.kind, reply.body["code"]) == ("error", "not-a-participant"), command
        reply = await phone.ask(command, conversation="nowhere", **fields)
        assert (reply.kind, reply.body["code"]) == ("error", "unknown-conversation"), command
    reply = await phone.ask("message", conversation="c2", content={"x": "y" * 20_000})
    assert reply.body["code"] == "data-too-large"


@pytest.mark.parametrize("transport", ["sse", "ws"])
async def test_presence_state_first_then_who_comes_and_goes(node: Node, transport: str) -> None:
    channel = "presence:lobby"
    rights = {"channels": ["presence:*"]}
    async with await open_client(
        transport, node.port, node.token("watcher", **rights), channels=[channel]
    ) as watcher:
        await watcher.welcome()
        state = await watcher.next()
        assert (state.kind, state.body["channel"]) == ("state", channel)
        known = state.body["data"]["revision"]
        members = {one["user"] for one in state.body["data"]["members"]}

        async def until(wanted: set[str]) -> None:
            nonlocal known
            while members != wanted:
                got = (await event(watcher, "presence")).data
                if got["revision"] <= known and got["revision"] <= state.body["data"]["revision"]:
                    continue
                members.difference_update(got["left"])
                members.update(got["joined"])
                if members == wanted:
                    assert got["count"] == len(wanted)

        await until({"watcher"})
        async with await open_socket(node.port, node.token("bob", **rights), channels=[channel]) as bob:
            await bob.welcome()
            await until({"watcher", "bob"})
            reply = await bob.ask("presence", channel=channel)
            assert reply.kind == "presence_state" and reply.body["data"]["count"] == 2
            assert (await bob.ask("presence", users=["bob"])).body["users"] == {"bob": True}
            assert (await bob.ask("presence", users=["watcher"])).body["code"] == "publisher-only"
        await until({"watcher"})


async def test_presence_of_a_channel_that_is_not_allowed(node: Node, phone: WsClient) -> None:
    assert (await phone.ask("presence", channel="presence:secret")).body["code"] == "forbidden-channel"


@pytest.mark.parametrize("transport", ["sse", "ws"])
async def test_a_task_as_it_stands_and_then_its_progress(node: Node, transport: str) -> None:
    await backend(node, "PUT", "/v1/tasks/T1", {"owner": "alice", "total_steps": 4})
    await backend(node, "POST", "/v1/tasks/T1", {"step": 1})
    async with await open_client(transport, node.port, node.token(), channels=["task:T1"]) as client:
        await client.welcome()
        state = await client.next()
        assert state.kind == "state"
        task = state.body["data"]
        assert (task["id"], task["step"], task["percent"]) == ("T1", 1, 25.0)
        await backend(node, "POST", "/v1/tasks/T1", {"step": 2})
        await backend(node, "POST", "/v1/tasks/T1", {"state": "completed", "result": {"ok": True}})
        steps = [(await event(client, "task")).data for _ in range(2)]
        assert [one["revision"] for one in steps] == [task["revision"] + 1, task["revision"] + 2]
        assert steps[-1]["state"] == "completed" and steps[-1]["result"] == {"ok": True}


async def test_a_task_that_ended_before_is_told_at_once(node: Node, phone: WsClient) -> None:
    await backend(node, "PUT", "/v1/tasks/T2", {"owner": "alice", "state": "failed", "error": "no disk"})
    await phone.send("subscribe", channels=["task:T2"])
    state = await phone.next()
    assert (state.kind, state.body["data"]["state"]) == ("state", "failed")
    assert (await phone.next()).kind == "subscribed"
    assert (await phone.ask("subscribe", channels=["task:unknown"])).kind == "error"
