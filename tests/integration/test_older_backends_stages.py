"""Old servers beside us while a tenant is moved: mirror and ingest in every stage, as its record says."""

from __future__ import annotations

import msgspec
import pytest

from dualcast_migration.policy import StageRecord
from dualcast_migration.stage import Stage
from support.clients import open_stream
from support.node import place
from support.older_backend import OlderBackend, OlderNode, older_node
from support.redis_server import RedisServer

pytestmark = pytest.mark.anyio


def record(node: OlderNode) -> StageRecord:
    tenant = node.composition.tenants.current("default")
    assert tenant is not None
    return tenant.stage


async def put_record(node: OlderNode, record: StageRecord) -> None:
    tenant = node.composition.tenants.current("default")
    assert tenant is not None
    await node.composition.tenants.put(msgspec.structs.replace(tenant, stage=record))


async def test_a_tenant_is_mirrored_and_heard_in_every_stage_as_its_record_says() -> None:
    with RedisServer() as redis:
        await moved(redis)


async def moved(redis: RedisServer) -> None:
    async with (
        place("redis", redis_url=redis.url) as where,
        older_node(where) as one,
        older_node(where) as two,
        OlderBackend(redis.url, sse={"alice"}) as old,
    ):
        headers = one.auth("backend", "publisher")
        stream = await open_stream(two.port, two.token("alice"))
        async with stream:
            await stream.welcome()
            due: list[str] = []
            for stage in Stage:
                for mirror in ("always", "off"):
                    await put_record(one, StageRecord(stage=stage, mirror=mirror))  # type: ignore[arg-type]
                    await two.until(
                        lambda wanted=mirror: record(two).mirror == wanted, "the other node knows"
                    )
                    ident = f"{stage}-{mirror}"
                    body = {"to": {"user": "alice"}, "title": "t", "id": ident}
                    for node, extra in ((one, ""), (two, "-2")):
                        sent = await node.http.post(
                            "/v1/notifications", json={**body, "id": ident + extra}, headers=headers
                        )
                        assert sent.status_code == 201, sent.text
                        due += [ident + extra] if mirror == "always" else []
                await old.notify("alice", f"old-{stage}", title="from an old backend")
                got = await stream.until("publication", lambda got, s=stage: got.data["id"] == f"old-{s}")
                assert got.data["title"] == "from an old backend"
            await old.until(lambda: len(old.delivered) >= len(due) + len(Stage), "all copies")
            mirrored = [said["id"] for _, said in old.delivered if not said["id"].startswith("old-")]
            assert sorted(mirrored) == sorted(due)
