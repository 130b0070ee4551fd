"""Parity over REST: what the server found, what clients report, and who may see it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dualcast.transport.encodings import NATIVE_SSE
from support.clients import open_socket, open_stream
from support.node import Node, running_node
from support.rest_app import admin, auth, code, publisher, rest

pytestmark = pytest.mark.anyio
OPERATOR = ("ops", "operator")


def report(sse: list[str], websocket: list[str], **fields: Any) -> dict[str, Any]:
    return {"instance": "tab-1", "sse": {"ids": sse}, "websocket": {"ids": websocket}, **fields}


async def parity(node: Node, wanted: Any) -> dict[str, Any]:
    """The answer, once `wanted` holds of it."""
    async with asyncio.timeout(20):
        while True:
            answer = await node.http.get("/v1/tenants/default/parity", headers=node.auth(*OPERATOR))
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json()
            if wanted(found):
                return found
            await asyncio.sleep(0.02)


async def test_who_may_see_the_parity_of_a_tenant() -> None:
    async with rest() as app:
        path = "/v1/tenants/other/parity"
        assert (await app.client.get(path)).status_code == 401
        for headers in (auth("alice", tenant="other"), publisher("other")):
            answer = await app.client.get(path, headers=headers)
            assert (answer.status_code, code(answer)) == (403, "admin-only")
        for tenant in ("other", "nobodys"):
            answer = await app.client.get(f"/v1/tenants/{tenant}/parity", headers=admin())
            assert (answer.status_code, code(answer)) == (404, "unknown-tenant")
        assert (await app.client.get(path, headers=admin("other"))).status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (report(["a"], ["a"], more=1), 422),
        (report([""], ["a"]), 422),
        (report(["x"] * 501, []), 422),
        (report([], [], instance=""), 422),
        ({**report(["a", "b"], ["a"]), "sse": {"ids": ["a", "b"], "latency_ms": [1.0]}}, 400),
        ({**report(["a"], ["a"]), "sse": {"ids": ["a"], "latency_ms": [-1]}}, 422),
    ],
)
async def test_bad_reports_are_refused_with_a_code(body: dict[str, Any], status: int) -> None:
    async with rest() as app:
        answer = await app.client.post("/v1/parity", json=body, headers=auth("ann"))
        assert answer.status_code == status, answer.text
        assert code(answer)


async def test_what_the_server_compares_and_what_clients_report_stand_side_by_side(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = NATIVE_SSE.encode
    monkeypatch.setattr(
        NATIVE_SSE, "encode", lambda entry: b"" if entry.publication.type == "lost" else real(entry)
    )
    async with (
        running_node("memory", tenancy={"stage": "shadow"}) as node,
        await open_stream(node.port, node.token("ann"), instance="tab-1") as stream,
        await open_socket(node.port, node.token("ann"), instance="tab-1") as socket,
    ):
        for client in (stream, socket):
            await client.welcome()
        watch = node.composition.witness.parity
        await watch.look()
        lost = (await node.publish("user:ann", kind="lost"))["id"]
        kept = (await node.publish("user:ann"))["id"]
        await stream.publications(1)
        await socket.publications(2)
        body = report([kept], [lost, kept])
        body["sse"]["latency_ms"] = [40.0]
        body["websocket"]["latency_ms"] = [None, 5.0]
        answer = await node.http.post("/v1/parity", json=body, headers=node.auth("ann"))
        assert answer.json() == {"compared": 2, "mismatches": 1, "recorded": True}
        found = await parity(node, lambda p: p["server"]["compared"] and p["clients"]["compared"])
        assert found["stage"] == "shadow"
        assert found["server"] == {"compared": 2, "mismatches": 1}
        clients = found["clients"]
        assert (clients["compared"], clients["mismatches"]) == (2, 1)
        assert (clients["sse"]["samples"], clients["websocket"]["samples"]) == (1, 1)
        assert clients["sse"]["p99_ms"] > clients["websocket"]["p99_ms"]
        assert {(one["source"], one["user"], one["instance"]) for one in found["mismatches"]} == {
            ("server", "ann", "tab-1"),
            ("client", "ann", "tab-1"),
        }
        for one in found["mismatches"]:
            assert [(d["kind"], d["id"]) for d in one["differences"]] == [("missing-on-sse", lost)]


async def test_reports_count_in_the_shadow_stage_only_and_not_without_end() -> None:
    async with running_node("memory", tenancy={"stage": "fallback"}) as node:
        answer = await node.http.post("/v1/parity", json=report(["a"], ["b"]), headers=node.auth("ann"))
        assert answer.json() == {"compared": 2, "mismatches": 2, "recorded": False}
    async with running_node("memory", tenancy={"stage": "shadow"}) as node:
        recorded = [
            (await node.http.post("/v1/parity", json=report(["a"], ["b"]), headers=node.auth("ann"))).json()[
                "recorded"
            ]
            for _ in range(14)
        ]
        assert recorded == [True] * 12 + [False] * 2
        found = await parity(node, lambda p: p["clients"]["compared"] == 24)
        assert found["server"] == {"compared": 0, "mismatches": 0}, (
            "the guard does not go by what clients say"
        )
        assert len(found["mismatches"]) == 12
