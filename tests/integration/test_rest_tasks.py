"""Tasks and batches over REST: registering, reporting, reading, refusals, and tenants apart."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from dualcast.model.principal import Principal
from support.rest_app import Rest, admin, auth, code, problem, publisher, rest

pytestmark = pytest.mark.anyio
TASK = "/v1/tasks/T1"
BATCH = "/v1/batches/B1"
ROUTES: tuple[tuple[str, str, Any], ...] = (
    ("PUT", TASK, {"owner": "alice"}),
    ("POST", TASK, {}),
    ("DELETE", TASK, None),
    ("PUT", BATCH, {"owner": "alice"}),
    ("GET", TASK, None),
    ("GET", BATCH, None),
    ("GET", "/v1/tasks", None),
)
"""Every route once; the first four write."""


async def put(app: Rest, path: str, status: int = 201, /, **body: Any) -> dict[str, Any]:
    """PUT as a backend of `default`."""
    answer = await app.client.put(path, headers=publisher(), json={"owner": "alice", **body})
    assert answer.status_code == status, answer.text
    return dict(answer.json())


async def post(app: Rest, path: str = TASK, status: int = 200, /, **body: Any) -> dict[str, Any]:
    """POST as a backend of `default`."""
    answer = await app.client.post(path, headers=publisher(), json=body)
    assert answer.status_code == status, answer.text
    return dict(answer.json())


async def test_a_task_from_registration_to_its_end() -> None:
    async with rest() as app:
        made = await put(app, TASK, kind="analysis", title="分析", total_steps=5, data={"stock": "000001"})
        assert set(made) == {
            *("id", "owner", "batch", "kind", "title", "state", "step", "total_steps", "percent", "message"),
            *("result", "error", "data", "sequence", "created_ms", "started_ms", "updated_ms"),
            *("completed_ms", "revision"),
        }
        assert (made["id"], made["owner"], made["state"], made["revision"]) == ("T1", "alice", "queued", 1)
        again = await put(app, TASK, 200, kind="analysis", title="分析", total_steps=5)
        assert again == made
        told = await post(app, step=1, message="正在分析...", data={"eta": 3})
        assert (told["state"], told["percent"], told["data"]) == (
            "processing",
            20.0,
            {"stock": "000001", "eta": 3},
        )
        assert (await put(app, TASK, 200, step=2, sequence=9))["percent"] == 40.0
        assert (await post(app, step=1, sequence=8))["step"] == 2, "a late report is no error"
        ended = await post(app, state="completed", result={"score": [1, 2.5]}, message="完成")
        assert (ended["percent"], ended["result"], ended["revision"]) == (100.0, {"score": [1, 2.5]}, 4)
        assert (await app.client.get(TASK, headers=auth("alice"))).json() == ended
        entries = await app.appended("task:T1")
        assert [entry.publication.type for entry in entries] == ["task"] * 4
        problem(await app.client.post(TASK, headers=publisher(), json={"step": 3}), 409, "task-finished")
        problem(await app.client.delete(TASK, headers=publisher()), 409, "task-finished")
        assert (await post(app, state="completed")) == ended
        assert len(await app.appended("task:T1")) == 4


async def test_cancelling() -> None:
    async with rest() as app:
        await put(app, TASK)
        for _ in range(2):
            answer = await app.client.delete(TASK, headers=publisher())
            assert (answer.status_code, answer.json()["state"], answer.json()["revision"]) == (
                200,
                "cancelled",
                2,
            )
        problem(
            await app.client.post(TASK, headers=publisher(), json={"state": "completed"}),
            409,
            "task-finished",
        )
        problem(await app.client.delete("/v1/tasks/none", headers=publisher()), 404, "unknown-task")


async def test_a_batch_and_its_tasks() -> None:
    async with rest() as app:
        made = await put(app, BATCH, total=3, title="T", data={"format": "pdf"})
        assert (made["state"], made["total"], made["progress"], made["revision"]) == ("processing", 3, 0.0, 1)
        assert (await put(app, BATCH, 200, total=3))["revision"] == 1
        for ident in ("1", "2", "3"):
            await put(app, "/v1/tasks/" + ident, batch="B1")
        await post(app, "/v1/tasks/1", state="completed")
        await post(app, "/v1/tasks/2", state="failed", error="no")
        answer = await app.client.get(BATCH, headers=auth("alice"), params={"limit": 2})
        page = answer.json()
        assert (page["batch"]["completed"], page["batch"]["failed"], page["batch"]["progress"]) == (
            1,
            1,
            66.7,
        )
        assert [task["id"] for task in page["tasks"]] == ["1", "2"] and page["next"]
        more = await app.client.get(BATCH, headers=auth("alice"), params={"after": page["next"]})
        assert [task["id"] for task in more.json()["tasks"]] == ["3"] and more.json()["next"] == ""
        await post(app, "/v1/tasks/3", state="completed")
        last = (await app.appended("batch:B1"))[-1].publication
        assert last.type == "batch" and last.terminal and b'"state":"partial"' in last.data
        refused = await app.client.put(
            "/v1/tasks/4", headers=publisher(), json={"owner": "alice", "batch": "B1"}
        )
        problem(refused, 409, "batch-finished")
        refused = await app.client.put(
            "/v1/tasks/5", headers=publisher(), json={"owner": "bob", "batch": "B1"}
        )
        problem(refused, 409, "foreign-batch")
        problem(await app.client.put(BATCH, headers=publisher(), json={"owner": "bob"}), 409, "batch-exists")


async def test_lists() -> None:
    async with rest() as app:
        for number in range(5):
            await put(app, f"/v1/tasks/{number}", owner="alice" if number % 2 else "bob")
        await post(app, "/v1/tasks/1", state="completed")

        async def listed(headers: dict[str, str], **params: Any) -> list[str]:
            found: list[str] = []
            while True:
                page = (await app.client.get("/v1/tasks", headers=headers, params=params)).json()
                found += [task["id"] for task in page["tasks"]]
                if not page["next"]:
                    return found
                params["after"] = page["next"]

        assert await listed(publisher(), limit=2) == ["4", "3", "2", "1", "0"]
        assert await listed(admin(), owner="bob", limit=1) == ["4", "2", "0"]
        assert await listed(publisher(), owner="alice", state="queued") == ["3"]
        assert await listed(auth("alice")) == ["3", "1"] == await listed(auth("alice"), owner="alice")
        assert await listed(auth("carol")) == [] == await listed(publisher("other"))
        problem(
            await app.client.get("/v1/tasks", headers=auth("carol"), params={"owner": "bob"}),
            403,
            "publisher-only",
        )
        for params in ({"state": "done"}, {"limit": 0}, {"limit": 201}, {"after": "x"}, {"after": "-1"}):
            answer = await app.client.get("/v1/tasks", headers=publisher(), params=params)
            assert answer.status_code == 422, params
            assert code(answer) == ("bad-cursor" if "after" in params else "invalid-query")


async def test_who_may_read_and_who_may_write() -> None:
    async with rest() as app:
        await put(app, TASK, members=["carol"], batch="B1")
        readers = [
            auth("alice"),
            auth("carol"),
            auth("dave", channels=["task:T1"]),
            publisher(),
            admin(),
        ]
        for reader in readers:
            assert (await app.client.get(TASK, headers=reader)).status_code == 200
        stranger = await app.client.get(TASK, headers=auth("mallory"))
        nothing = await app.client.get("/v1/tasks/nothing", headers=auth("mallory"))
        assert problem(stranger, 404, "unknown-task") == problem(nothing, 404, "unknown-task")
        assert (await app.client.get(BATCH, headers=auth("alice"))).status_code == 200
        for path in (BATCH, "/v1/batches/nothing"):
            problem(await app.client.get(path, headers=auth("carol")), 404, "unknown-batch")
        for method, path, body in ROUTES[:4]:
            answer = await app.client.request(method, path, headers=auth("alice"), json=body)
            problem(answer, 403, "publisher-only")
        for method, path, body in ROUTES:
            problem(await app.client.request(method, path, json=body), 401, "unauthorized")
        assert await app.services.access.may_subscribe(Principal("default", "alice"), "task:T1")
        assert not await app.services.access.may_subscribe(Principal("default", "mallory"), "task:T1")


async def test_tenants_do_not_meet_on_any_route() -> None:
    async with rest() as app:
        await put(app, TASK, batch="B1", title="secret")
        before = (await app.client.get(BATCH, headers=publisher())).json()
        other = publisher("other")
        for path, unknown in ((TASK, "unknown-task"), (BATCH, "unknown-batch")):
            for headers in (other, admin("other"), auth("alice", tenant="other")):
                problem(await app.client.get(path, headers=headers), 404, unknown)
        problem(await app.client.post(TASK, headers=other, json={"state": "failed"}), 404, "unknown-task")
        problem(await app.client.delete(TASK, headers=other), 404, "unknown-task")
        assert (await app.client.get("/v1/tasks", headers=other)).json()["tasks"] == []
        answer = await app.client.put(TASK, headers=other, json={"owner": "bob", "batch": "B1"})
        assert (answer.status_code, answer.json()["title"]) == (201, "")
        answer = await app.client.put(BATCH, headers=other, json={"owner": "bob", "title": "mine"})
        assert (answer.status_code, answer.json()["queued"]) == (200, 1)
        await app.client.post(TASK, headers=other, json={"state": "failed"})
        assert (await app.client.get(BATCH, headers=publisher())).json() == before
        assert not await app.services.grants.allows("default", "task:T1", "bob")
        assert not await app.services.grants.allows("other", "task:T1", "alice")
        assert len(await app.appended("task:T1")) == 1


async def test_bad_reports_name_the_path() -> None:
    async with rest() as app:
        await put(app, TASK, total_steps=5)
        for body, path in (
            ({"state": "done"}, "$.state"),
            ({"percent": 100.5}, "$.percent"),
            ({"percent": -1}, "$.percent"),
            ({"step": -1}, "$.step"),
            ({"step": 6}, "$.step"),
            ({"step": 1.5}, "$.step"),
            ({"step": 4, "total_steps": 3}, "$.step"),
            ({"total_steps": -1}, "$.total_steps"),
            ({"total_steps": 2**53}, "$.total_steps"),
            ({"sequence": -1}, "$.sequence"),
            ({"message": "x" * 4097}, "$.message"),
            ({"result": 1}, "$.result"),
            ({"error": "e"}, "$.error"),
        ):
            found = problem(await app.client.post(TASK, headers=publisher(), json=body), 422, "invalid-body")
            assert [error["path"] for error in found["errors"]] == [path], (body, found)
        for body in ({"data": []}, {"owner": "alice"}, {"step": 1, "x": 1}):
            problem(await app.client.post(TASK, headers=publisher(), json=body), 422, "invalid-body")
        for body in ({}, {"owner": ""}, {"owner": "a", "kind": "k" * 129}, {"owner": "a", "members": [""]}):
            problem(await app.client.put("/v1/tasks/n", headers=publisher(), json=body), 422, "invalid-body")
        problem(
            await app.client.put("/v1/tasks/n", headers=publisher(), json={"owner": "a\u0000"}),
            422,
            "bad-channel",
        )
        for body in ({"owner": "a", "total": 0}, {"owner": "a", "total": 10_001}, {"owner": "a", "x": 1}):
            problem(await app.client.put(BATCH, headers=publisher(), json=body), 422, "invalid-body")
        big = {"data": {"x": "y" * 17_000}}
        problem(await app.client.post(TASK, headers=publisher(), json=big), 413, "data-too-large")
        answer = await app.client.post(
            TASK,
            headers={**publisher(), "Content-Type": "application/json"},
            content=b'{"data":' + b'{"a":' * 100 + b"1" + b"}" * 101,
        )
        problem(answer, 422, "too-deep")
        task = (await app.client.get(TASK, headers=publisher())).json()
        assert task["revision"] == 1, "nothing of it was taken"


async def test_documented() -> None:
    async with rest() as app:
        paths = (await app.client.get("/docs/openapi.json")).json()["paths"]
        assert set(paths["/v1/tasks/{task}"]) >= {"put", "post", "get", "delete"}
        assert set(paths["/v1/batches/{batch}"]) >= {"put", "get"} and "get" in paths["/v1/tasks"]
        assert "task-finished" in paths["/v1/tasks/{task}"]["post"]["description"]


@pytest.mark.parametrize("ident", ["任务 1", "a/b", "100%25", "auth0|1", "a:b", "import-2026.01", "é" * 128])
async def test_ids_are_opaque(ident: str) -> None:
    async with rest() as app:
        path = "/v1/tasks/" + quote(ident, safe="")
        made = await put(app, path, batch=ident)
        assert (made["id"], made["batch"]) == (ident, ident)
        assert (await app.client.get(path, headers=auth("alice"))).json() == made
        page = (await app.client.get("/v1/batches/" + quote(ident, safe=""), headers=auth("alice"))).json()
        assert [task["id"] for task in page["tasks"]] == [ident]
        assert len(await app.appended("task:" + ident)) == 1


async def test_ids_that_are_none() -> None:
    async with rest() as app:
        for ident in ("a%0Ab", "x" * 257, "%FF"):
            answer = await app.client.get("/v1/tasks/" + ident, headers=publisher())
            problem(answer, 422, "bad-channel")
        for body in ({"owner": "alice", "batch": "a\nb"}, {"owner": "alice", "members": ["a\nb"]}):
            problem(await app.client.put(TASK, headers=publisher(), json=body), 422, "bad-channel")
        problem(await app.client.get(TASK, headers=publisher()), 404, "unknown-task")
