"""To whom a notification goes: users, devices, one connection, all but somebody; what is stored and pushed
with it. The second half runs against a whole server with both transports.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from dualcast.bus.memory import MemoryBus
from dualcast.model.errors import BusUnavailable, DualcastError
from dualcast.model.publication import Draft, Quota, Receipt
from dualcast.publishing.service import PublishSettings
from support.clients import Client, open_socket, open_stream
from support.node import ENGINES, Node, running_node
from support.rest_app import NOTE, Rest, auth, problem, publisher, rest

pytestmark = pytest.mark.anyio
PHONES = {**NOTE, "push": "offline"}


class Noting(MemoryBus):
    """The memory engine, and what was asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self._noted: dict[str, Draft] = {}

    @property
    def drafts(self) -> list[Draft]:
        return list(self._noted.values())

    async def append(self, draft: Draft, quota: Quota | None = None) -> Receipt:
        self._noted[draft.id] = draft
        return await super().append(draft, quota)

    async def append_many(
        self, drafts: Sequence[Draft], quota: Quota | None = None
    ) -> list[Receipt | DualcastError]:
        self._noted |= {draft.id: draft for draft in drafts}
        return await super().append_many(drafts, quota)


@dataclass
class Hooks:
    """What the publisher is given by other rooms."""

    connections: dict[tuple[str, str], str] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    ready: list[str] = field(default_factory=list)
    poked: list[str] = field(default_factory=list)
    broken: bool = False

    async def resolve(self, tenant: str, connection: str) -> str | None:
        if self.broken:
            raise BusUnavailable("away")
        self.asked.append((tenant, connection))
        return self.connections.get((tenant, connection))

    async def prepare(self, tenant: str) -> None:
        if self.broken:
            raise BusUnavailable("away")
        self.ready.append(tenant)

    def options(self, **settings: Any) -> dict[str, Any]:
        return {
            "resolve_connection": self.resolve,
            "push_ready": self.prepare,
            "poke_push": self.poked.append,
            "settings": PublishSettings(**settings),
        }


async def notify(app: Rest, body: dict[str, Any], **headers: str) -> Any:
    return await app.client.post("/v1/notifications", headers={**publisher(), **headers}, json=body)


async def test_a_notification_for_one_connection_goes_to_its_user_and_stays_out_of_the_inbox() -> None:
    hooks, bus = Hooks({("default", "c1"): "alice"}), Noting()
    async with rest(bus=bus, publishing=hooks.options(default_push="offline")) as app:
        assert (await notify(app, {**NOTE, "to": {"connection": "c1"}})).status_code == 201
        (draft,) = bus.drafts
        assert draft.channels == ("user:alice",)
        assert draft.audience is not None and draft.audience.connections == ("c1",)
        assert draft.inbox is None and draft.push is None
        assert (hooks.ready, hooks.poked) == ([], [])


async def test_an_unknown_connection_or_one_of_another_tenant_is_404() -> None:
    hooks = Hooks({("other", "c1"): "alice"})
    async with rest(publishing=hooks.options()) as app:
        for name in ("c1", "c2"):
            problem(await notify(app, {**NOTE, "to": {"connection": name}}), 404, "unknown-connection")
        assert hooks.asked == [("default", "c1"), ("default", "c2")]
        assert await app.offset() == await app.offset("other") == 0
        hooks.broken = True
        problem(await notify(app, {**NOTE, "to": {"connection": "c1"}}), 503, "bus-unavailable")


async def test_without_presence_no_connection_is_known() -> None:
    async with rest() as app:
        problem(await notify(app, {**NOTE, "to": {"connection": "c1"}}), 404, "unknown-connection")


async def test_a_batch_asks_for_each_connection_once_and_fails_items_alone() -> None:
    hooks, bus = Hooks({("default", "c1"): "alice"}), Noting()
    async with rest(bus=bus, publishing=hooks.options()) as app:
        targets = [{"connection": "c1"}, {"connection": "gone"}, {"user": "bob"}, {"connection": "c1"}]
        items = [{**NOTE, "to": to} for to in targets]
        answer = await app.client.post("/v1/notifications/batch", headers=publisher(), json=items)
        results = answer.json()["results"]
        assert [result["status"] for result in results] == [201, 404, 201, 201]
        assert results[1]["code"] == "unknown-connection"
        assert sorted(hooks.asked) == [("default", "c1"), ("default", "gone")]
        assert [draft.channels for draft in bus.drafts] == [("user:alice",), ("user:bob",), ("user:alice",)]


async def test_the_push_queue_is_told_of_new_pushes_only() -> None:
    hooks = Hooks()
    async with rest(publishing=hooks.options()) as app:
        await notify(app, NOTE)
        await notify(app, {**PHONES, "id": "n1", "push": "never"})
        assert (hooks.ready, hooks.poked) == ([], [])
        await notify(app, {**PHONES, "id": "n2"})
        await notify(app, {**PHONES, "id": "n2"})
        assert hooks.ready == ["default"] * 2
        assert hooks.poked == ["default"]
        items = [NOTE, PHONES, PHONES]
        await app.client.post("/v1/notifications/batch", headers=publisher("other"), json=items)
        assert hooks.ready[2:] == hooks.poked[1:] == ["other"]


async def test_push_that_is_not_ready_does_not_stop_the_notification() -> None:
    hooks, bus = Hooks(broken=True), Noting()
    async with rest(bus=bus, publishing=hooks.options()) as app:
        assert (await notify(app, PHONES)).status_code == 201
        assert bus.drafts[0].push is not None and bus.drafts[0].inbox is not None


@pytest.mark.parametrize(
    ("body", "code", "path"),
    [
        ({"to": {"channel": "topic:x"}, "store": True}, "bad-store", "$.to"),
        ({"to": {"all": True}, "push": "always"}, "bad-push", "$.to"),
        ({"audience": {"devices": ["phone"]}}, "bad-device", "$.audience.devices[0]"),
        ({"push_devices": ["tv"]}, "bad-device", "$.push_devices[0]"),
        ({"push": "sometimes"}, "invalid-body", "$.push"),
        ({"store": "yes"}, "invalid-body", "$.store"),
        ({"to": {"connection": ""}}, "invalid-body", "$.to.connection"),
        ({"to": {"connection": "c1", "user": "alice"}}, "bad-target", "$.to"),
        ({"to": {"connection": "c1"}, "store": True}, "bad-store", "$.to.connection"),
    ],
)
async def test_what_cannot_be_is_refused_with_its_place(body: dict[str, Any], code: str, path: str) -> None:
    hooks = Hooks({("default", "c1"): "alice"})
    async with rest(publishing=hooks.options()) as app:
        found = problem(await notify(app, {**NOTE, **body}), 422, code)
        assert [error["path"] for error in found["errors"]] == [path]
        assert await app.offset() == 0


async def test_a_grant_given_on_publish_is_recorded_before_the_publication() -> None:
    async with rest() as app:
        body = {"channel": "room:r1", "type": "t", "grant": {"owner": "alice", "members": ["bob"]}}
        versions = set()
        for _ in range(2):
            answer = await app.client.post("/v1/publish", headers=publisher(), json=body)
            assert answer.status_code == 201
            found = (await app.client.get("/v1/channels/room:r1/grants", headers=publisher())).json()
            assert (found["owner"], found["members"]) == ("alice", ["bob"])
            versions.add(found["version"])
        assert len(versions) == 1, "repeating it writes nothing"
        more = {**body, "grant": {"members": ["carol"]}}
        await app.client.post("/v1/publish", headers=publisher(), json=more)
        read = await app.client.get("/v1/channels/room:r1/grants", headers=publisher())
        assert (read.json()["owner"], read.json()["members"]) == ("alice", ["bob", "carol"])
        elsewhere = await app.client.get("/v1/channels/room:r1/grants", headers=publisher("other"))
        assert elsewhere.json()["version"] == 0


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"channels": ["room:a", "room:b"], "grant": {"owner": "x"}}, 422, "bad-target"),
        ({"channel": "all", "grant": {"owner": "x"}}, 422, "bad-channel"),
        ({"channel": "room:a", "grant": {"owner": "x\n"}}, 422, "bad-channel"),
        ({"channel": "room:a", "grant": {"members": ["x"] * 1001}}, 422, "invalid-body"),
        ({"channel": "room:a", "grant": {"who": "x"}}, 422, "invalid-body"),
    ],
)
async def test_bad_grants_append_nothing(body: dict[str, Any], status: int, code: str) -> None:
    async with rest() as app:
        answer = await app.client.post("/v1/publish", headers=publisher(), json={"type": "t", **body})
        problem(answer, status, code)
        assert await app.offset() == 0


async def test_only_backends_grant_on_publish() -> None:
    async with rest() as app:
        body = {"channel": "room:r1", "type": "t", "grant": {"owner": "alice"}}
        answer = await app.client.post("/v1/publish", headers=auth("alice"), json=body)
        problem(answer, 403, "publisher-only")
        read = await app.client.get("/v1/channels/room:r1/grants", headers=publisher())
        assert read.json()["version"] == 0


async def test_the_document_describes_what_a_notification_may_ask_for() -> None:
    async with rest() as app:
        schemas = (await app.client.get("/docs/openapi.json")).json()["components"]["schemas"]
        fields = schemas["NotificationRequest"]["properties"]
        assert {"store", "push", "push_devices", "audience", "to"} <= fields.keys()
        assert set(fields["push"]["enum"]) == {"never", "offline", "always", None}
        assert "connection" in schemas["Target"]["properties"]
        assert {"owner", "members"} == schemas["GrantRequest"]["properties"].keys()
        assert not {"store", "push"} & schemas["PublishRequest"]["properties"].keys()


# ── with connected devices ─────────


@pytest.fixture(params=ENGINES)
async def node(request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    async with running_node(request.param) as running:
        yield running


async def sent(node: Node, to: dict[str, Any], title: str, **fields: Any) -> None:
    body = {"to": to, "title": title, **fields}
    headers = node.auth("backend", "publisher")
    answer = await node.http.post("/v1/notifications", json=body, headers=headers)
    assert answer.status_code == 201, answer.text


async def known(node: Node, count: int) -> None:
    """Waits until presence knows of so many connections: it learns of them a moment after their welcome."""
    async with asyncio.timeout(10):
        while True:
            answer = await node.http.get("/v1/connections", headers=node.auth("root", "admin"))
            if len(answer.json()["connections"]) == count:
                return
            await asyncio.sleep(0.01)


async def titles(client: Client) -> list[str]:
    """Titles received up to the notification `end`."""
    found: list[str] = []
    while not found or found[-1] != "end":
        got = await client.next()
        if got.kind == "publication" and got.body["event"] == "notification":
            found.append(got.data["title"])
    return found[:-1]


@pytest.mark.covers("S3.71", "S3.72", "S3.73")
async def test_every_rule_reaches_exactly_the_devices_it_names(node: Node) -> None:
    token = node.token("alice")
    async with (
        await open_socket(node.port, token, device="mobile") as phone,
        await open_stream(node.port, token, device="desktop") as laptop,
        await open_socket(node.port, node.token("bob"), device="desktop") as other,
    ):
        on_phone = (await phone.welcome()).body["connection"]
        await laptop.welcome()
        await other.welcome()
        await known(node, 3)
        alice = {"user": "alice"}
        await sent(node, alice, "both")
        await sent(node, alice, "phone", audience={"devices": ["mobile"]})
        await sent(node, alice, "laptop", audience={"devices": ["desktop", "tablet"]})
        await sent(node, {"connection": on_phone}, "connection")
        await sent(node, alice, "but", audience={"exclude_connections": [on_phone]})
        await sent(node, {"users": ["alice", "bob"]}, "not alice", audience={"exclude_users": ["alice"]})
        await sent(node, {"all": True}, "everybody")
        await sent(node, {"all": True}, "all but", audience={"exclude_users": ["alice"]})
        await sent(node, {"all": True}, "end")
        assert await titles(phone) == ["both", "phone", "connection", "everybody"]
        assert await titles(laptop) == ["both", "laptop", "but", "everybody"]
        assert await titles(other) == ["not alice", "everybody", "all but"]
