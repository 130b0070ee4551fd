"""Administration over the Python client: tenants, keys, migration, grants, connections, revocations."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from dualcast_client import admin_calls
from support.client_package import package
from support.client_rig import Threaded
from support.node import Node, running_node

pytestmark = pytest.mark.anyio
SECRET = "a secret of a tenant that is long enough"


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with running_node("memory") as running:
        yield running


class Both:
    """The administration of either client, awaited."""

    def __init__(self, kind: str, node: Node) -> None:
        token = node.token("root", roles=["operator", "admin"])
        self.threads = kind == "threads"
        self.client: Any = (package.Client if self.threads else package.AsyncClient)(node.base_url, token)
        self.admin: Any = Threaded(self.client.admin) if self.threads else self.client.admin

    async def all(self, made: Any) -> list[Any]:
        if self.threads:
            found = await made
            return await asyncio.to_thread(list, found)
        return [one async for one in made]

    async def close(self) -> None:
        await (asyncio.to_thread(self.client.close) if self.threads else self.client.aclose())


@pytest.fixture(params=["asyncio", "threads"])
async def both(request: pytest.FixtureRequest, node: Node) -> AsyncIterator[Both]:
    made = Both(request.param, node)
    yield made
    await made.close()


async def fails(work: Any, code: str) -> None:
    with pytest.raises(package.DualcastError) as caught:
        await work
    assert caught.value.code == code


async def test_tenants_their_settings_and_keys(both: Both) -> None:
    admin = both.admin
    key = package.NewKey(algorithm="HS256", kid="k1", secret=SECRET)
    assert SECRET not in repr(key)
    made = await admin.make_tenant(
        "acme", settings=package.SettingsChange(publish_burst=7), keys=[key], stage="sse", why="new"
    )
    assert (made.id, made.stage, made.settings.publish_burst) == ("acme", "sse", 7)
    assert [one.kid for one in made.keys] == ["k1"]
    await fails(admin.make_tenant("acme"), "tenant-exists")
    changed = await admin.change_tenant(
        "acme", package.SettingsChange(publish_burst=None, origins=("https://a.example",)), made.version
    )
    assert (changed.settings.publish_burst, changed.settings.origins) == (None, ("https://a.example",))
    await fails(admin.change_tenant("acme", package.SettingsChange(), made.version), "version-conflict")
    other = package.NewKey(algorithm="HS256", secret=SECRET + "2")
    changed = await admin.add_key("acme", other, changed.version)
    assert len(changed.keys) == 2
    changed = await admin.remove_key("acme", position=1, expected=changed.version, why="k2 has leaked")
    assert [one.kid for one in changed.keys] == ["k1"]
    await fails(admin.remove_key("acme", "k9"), "unknown-key")
    assert (await admin.remove_key("acme", "k1")).keys == ()
    assert (await admin.tenant("acme")).keys == ()
    entries = await both.all(admin.audit("acme"))
    assert [(one.action, one.why) for one in entries[:3]] == [
        ("keys", "not said"),
        ("keys", "k2 has leaked"),
        ("keys", "not said"),
    ]
    (gone,) = entries[1].changes
    assert (gone.field, gone.before["algorithm"], gone.after) == ("keys", "HS256", None)
    assert {one.id for one in await both.all(admin.tenants())} >= {"acme", "default", "other"}
    await fails(admin.tenant("nobody"), "unknown-tenant")


async def test_a_migration_and_what_is_known_about_it(both: Both) -> None:
    admin = both.admin
    begun = await admin.migration("other")
    moved = await admin.set_stage("other", "sse", "back to the start", force=True)
    assert moved.record.stage == "sse" and moved.last is not None and moved.last.why == "back to the start"
    record = replace(
        moved.record,
        stage="shadow",
        cohort=package.Cohort(percent=10, allow=("alice",)),
        brownouts=(package.Brownout(2_000_000_000, 5),),
    )
    shadow = await admin.change_migration("other", record, "a few", expected=moved.version)
    assert (shadow.record.stage, shadow.record.cohort.percent) == ("shadow", 10)
    assert replace(shadow.record, held_until=0) == replace(record, held_until=0)
    await fails(admin.change_migration("other", record, "late", expected=moved.version), "version-conflict")
    await fails(admin.set_stage("other", "websocket", "too far"), "illegal-stage-move")
    assert (await admin.roll_back("other", "no", expected=shadow.version)).record.stage == "sse"
    entries = await both.all(admin.audit("other"))
    assert [one.why for one in entries][:3] == ["no", "a few", "back to the start"]
    assert entries[0].before is not None and entries[0].before.stage == "shadow"
    assert begun.tenant == "other"
    census = await admin.census("other", "ws")
    assert (census.tenant, census.rows) == ("other", [])
    readiness = await admin.readiness("other")
    assert (readiness.stage, readiness.next) == ("sse", "shadow")
    assert readiness.window["websocket_opens"] == 0
    parity = await admin.parity("other")
    assert (parity.tenant, parity.mismatches, parity.next) == ("other", [], 0)


async def test_grants_let_in_and_take_away(both: Both, node: Node) -> None:
    admin = both.admin
    assert (await admin.grant("topic:secret,1")).version == 0
    granted = await admin.set_grant("topic:secret,1", ["alice"], owner="bob", version=0)
    assert (granted.owner, granted.members) == ("bob", ("alice",))
    changed = await admin.change_grant("topic:secret,1", add=["carol"], remove=["bob"])
    assert set(changed.members) == {"alice", "carol"}
    async with (
        package.AsyncClient(node.base_url, node.token("alice")) as client,
        client.subscribe(["topic:secret,1"]) as stream,
    ):
        await admin.delete_grant("topic:secret,1")
        async with asyncio.timeout(15):
            async for event in stream.events():
                if isinstance(event, package.Unsubscribed):
                    assert event.channels == ("topic:secret,1",)
                    break
    with pytest.raises(TypeError, match="list"):
        await admin.set_grant("topic:x", "alice")


async def test_connections_are_listed_and_closed_and_tokens_revoked(both: Both, node: Node) -> None:
    admin = both.admin
    async with (
        package.AsyncClient(node.base_url, node.token("alice", jti="t1")) as client,
        client.subscribe(instance="page 1", transport="sse") as one,
        client.subscribe(instance="page 2") as two,
    ):
        assert one.welcome is not None and two.welcome is not None
        async with asyncio.timeout(15):
            while len(found := await both.all(admin.connections("alice"))) < 2:
                await asyncio.sleep(0.05)
        assert {(at.transport, at.instance) for at in found} == {("sse", "page 1"), ("ws", "page 2")}
        assert (await admin.connection(one.welcome.connection)).token_id == "t1"
        await fails(admin.connection("no-such"), "unknown-connection")
        assert (await admin.close_connection(one.welcome.connection)).closing
        await fails(ended(one), "revoked")
        assert (await admin.revoke(token_id="t1")).revoked
        await fails(ended(two), "revoked")
        assert [at.token_id for at in await both.all(admin.revocations())] == ["t1"]
        await admin.take_back(token_id="t1")
        assert await both.all(admin.revocations("token")) == []
    async with (
        package.AsyncClient(node.base_url, node.token("alice", jti="t2")) as client,
        client.subscribe() as three,
    ):
        assert (await admin.close_connections(user="alice", revoke=False)).revoked is False
        async with asyncio.timeout(15):
            async for event in three.events():
                if isinstance(event, package.Disconnected):
                    break
    for bad in ({}, {"user": "a", "token_id": "b"}):
        with pytest.raises(ValueError, match="exactly one"):
            await admin.revoke(**bad)


async def ended(stream: package.Stream) -> None:
    async with asyncio.timeout(15):
        async for _ in stream:
            pass


async def test_whoever_is_no_operator_is_told_so(node: Node) -> None:
    async with package.AsyncClient(node.base_url, node.token("alice")) as client:
        await fails(client.admin.tenant("default"), "admin-only")
        await fails(client.admin.revoke(user="bob"), "admin-only")


async def test_every_operation_the_client_has_is_one_of_the_server(node: Node) -> None:
    document = (await node.http.get("/docs/openapi.json")).json()
    paths = {re.sub(r"\{\w+(:\w+)?\}", "*", path): set(found) for path, found in document["paths"].items()}
    record = package.StageRecord(stage="sse")
    made = [
        admin_calls.make_tenant("t", None, (), None, ""),
        admin_calls.tenants(""),
        admin_calls.change_tenant("t", package.SettingsChange(), None),
        admin_calls.add_key("t", package.NewKey(algorithm="HS256"), None),
        admin_calls.change_migration("t", record, "w", None, False),
        admin_calls.roll_back("t", "w", None, False),
        admin_calls.parity("t", 0, 1),
        admin_calls.census("t", "", 1),
        admin_calls.readiness("t"),
        admin_calls.audit("t", 0, 1),
        admin_calls.delete_grant("topic"),
        admin_calls.take_back("u", ""),
    ]
    for call in made:
        path = re.sub(r"/(t|topic)(?=/|$)", "/*", call.path)
        assert call.method.lower() in paths[path], call
