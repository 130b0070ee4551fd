"""The REST endpoints of the contract `progress`: statistics (section 7.5) and, of `--dev`, the demo endpoints
(section 7.6) with the frames their jobs send.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dualcast.bus.announcing import Announcer
from dualcast.bus.memory import MemoryBus
from dualcast.dialects.progress import DIALECT, Frames
from dualcast.gateway.legacy.demo import DemoJobs, demo_routes
from dualcast.telemetry.counters import Counters
from support.rest_app import PARTS, Rest, admin, auth, rest

pytestmark = pytest.mark.anyio
U1, U2 = auth("u1"), auth("u2")
STATS = "/api/websocket/stats"


# ── statistics ──


@pytest.mark.covers("R16")
async def test_r16_statistics_are_for_administrators() -> None:
    async with rest() as app:
        assert (await app.client.get(STATS)).status_code == 401
        assert (await app.client.get(STATS, headers=U1)).status_code == 403
        answer = await app.client.get(STATS, headers=admin())
        assert answer.json() == {
            "total_connections": 0,
            "active_count": 0,
            "messages_sent": 0,
            "messages_received": 0,
            "active_connections": [],
            "connection_details": {},
        }


def test_the_counts_of_a_dialect_are_counts_of_the_tenant_too() -> None:
    counters = Counters()
    whole = counters.delivery("default", "ws")
    whole.delivered += 1
    part, other = counters.part("default", "ws", DIALECT), counters.part("default", "ws", "rooms")
    assert counters.part("default", "ws", DIALECT) is part
    part.delivered += 2
    other.delivered += 4
    part.connections += 3
    part.connections -= 1
    part.latency(int(time.time() * 1000), 5)
    assert (part.delivered, other.delivered, whole.delivered) == (2, 4, 7)
    assert (part.connections, whole.connections) == (2, 2)
    assert (whole.latency_count, sum(whole.latency_buckets)) == (5, 5)
    assert counters.delivery("other", "ws").delivered == 0


# ── demo ──


class Demo:
    """The application with demo endpoints, and what its jobs published."""

    def __init__(self, app: Rest) -> None:
        self.app = app

    async def call(self, method: str, path: str, headers: dict[str, str] = U1, **how: Any) -> Any:
        return await self.app.client.request(method, path, headers=headers, **how)

    async def start(self, path: str, body: Any) -> Any:
        answer = await self.call("POST", path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def frames(self, count: int, user: str = "u1") -> list[dict[str, Any]]:
        """The first frames of a user, once there are `count`."""
        async with asyncio.timeout(10):
            while len(found := await self.app.appended(f"user:{user}")) < count:
                await asyncio.sleep(0.005)
        encode = Frames()
        return [json.loads(encode(entry)) for entry in found]


@asynccontextmanager
async def demo(**how: Any) -> AsyncIterator[Demo]:
    bus = MemoryBus(parts=PARTS)
    jobs = DemoJobs(Announcer(bus), lambda: 1_769_860_800_000, **{"step_s": 0.0, **how})
    async with rest(bus=bus, extra_handlers=demo_routes(jobs)) as app:
        run = asyncio.create_task(jobs.run())
        try:
            yield Demo(app)
        finally:
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)


async def test_without_dev_there_are_no_demo_endpoints() -> None:
    async with rest() as app:
        for method, path in (
            ("POST", "/token"),
            ("GET", "/api/info"),
            ("POST", "/api/reports/batch/generate"),
            ("POST", "/api/data/import"),
            ("POST", "/api/data/upload"),
        ):
            assert (await app.client.request(method, path, headers=admin(), json={})).status_code == 404, path


async def test_the_demo_account_and_the_information() -> None:
    async with demo() as one:
        good = await one.call("POST", "/token", {}, data={"username": "admin", "password": "adminpass"})
        assert (good.status_code, good.json()) == (200, {"access_token": "admin", "token_type": "bearer"})
        for form in ({"username": "admin", "password": "x"}, {"username": "root"}, {}):
            assert (await one.call("POST", "/token", {}, data=form)).status_code == 400
        info = (await one.call("GET", "/api/info", {})).json()
        assert info == {"title": "dualcast", "version": info["version"], "status": "运行中", "features": []}


async def test_demo_endpoints_want_a_token() -> None:
    async with demo() as one:
        for path in (
            "/api/reports/batch/generate",
            "/api/data/import",
            "/api/reports/multi-industry/generate",
        ):
            assert (await one.call("POST", path, {}, json={})).status_code == 401
        assert (
            await one.call("POST", "/api/data/upload", {}, files={"file": ("a.csv", b"x")})
        ).status_code == 401


@pytest.mark.covers("S4.10", "S4.13", "S4.18", "S4.27")
async def test_a_batch_of_reports_sends_its_frames_and_ends() -> None:
    async with demo() as one:
        body = {
            "report_ids": ["r1", "r2"],
            "output_format": "pdf",
            "include_charts": True,
            "async_generation": True,
        }
        made = await one.start("/api/reports/batch/generate", body)
        ident = made["batch_id"]
        assert made == {
            "batch_id": ident,
            "total_reports": 2,
            "completed_reports": 0,
            "failed_reports": 0,
            "status": "processing",
            "created_at": "2026-01-31T12:00:00.000000Z",
            "completed_at": None,
            "reports": [],
        }
        found = await one.frames(3)
        assert [(f["status"], f["progress"], f["total"], f["percentage"]) for f in found] == [
            ("processing", 0, 2, 0.0),
            ("processing", 1, 2, 50.0),
            ("completed", 2, 2, 100.0),
        ]
        assert {f["type"] for f in found} == {"batch_report_progress"} and {f["batch_id"] for f in found} == {
            ident
        }
        assert found[1]["message"] == "正在处理报告 r2 (2/2)" and found[1]["current_report"] == "r2"
        assert (found[2]["completed"], found[2]["failed"]) == (2, 0)
        after = (await one.call("GET", f"/api/reports/batch/{ident}/status")).json()
        assert (after["status"], after["completed_reports"]) == ("completed", 2)
        assert after["completed_at"] == "2026-01-31T12:00:00.000000Z"
        answer = await one.call("POST", f"/api/reports/batch/{ident}/cancel")
        assert answer.status_code == 400, "it has ended"


async def test_a_batch_that_is_cancelled_says_so_and_stops() -> None:
    async with demo(step_s=0.05) as one:
        ident = (await one.start("/api/reports/batch/generate", {"report_ids": ["r"] * 50}))["batch_id"]
        await one.frames(1)
        answer = await one.call("POST", f"/api/reports/batch/{ident}/cancel")
        assert (answer.status_code, answer.json()) == (200, {"message": "批量报告生成已取消"})
        while (found := await one.frames(1))[-1]["status"] == "processing":
            await asyncio.sleep(0.005)
        assert found[-1]["status"] == "cancelled" and len(found) < 50
        assert {"progress", "total", "percentage"} <= found[-1].keys()
        assert (await one.call("GET", f"/api/reports/batch/{ident}/status")).json()["status"] == "cancelled"


async def test_demo_endpoints_refuse_in_the_words_of_the_contract() -> None:
    """Section 1.3, as every other endpoint of the contracts."""
    async with demo() as one:
        for method, path, headers, more, status, title in (
            ("POST", "/token", {}, {"data": {}}, 400, "Bad Request"),
            ("POST", "/api/data/import", {}, {"json": {}}, 401, "Unauthorized"),
            ("GET", "/api/data/import/x/status", U1, {}, 404, "Not Found"),
            ("POST", "/api/data/import", U1, {"json": []}, 422, "Unprocessable Entity"),
        ):
            answer = await one.call(method, path, headers, **more)
            told = answer.json()
            assert (answer.status_code, told["type"], told["title"]) == (status, "about:blank", title), path
            assert answer.headers["content-type"] == "application/problem+json"
            assert ("www-authenticate" in answer.headers) == (status == 401)


async def test_what_is_not_there_is_404_also_for_another_user() -> None:
    async with demo() as one:
        ident = (await one.start("/api/reports/batch/generate", {"report_ids": ["r1"]}))["batch_id"]
        for path, text in (
            ("/api/reports/batch/{}/status", "批次不存在"),
            ("/api/data/import/{}/status", "导入任务不存在"),
        ):
            for headers, name in ((U1, "unknown"), (U2, ident)):
                answer = await one.call("GET", path.format(name), headers)
                assert (answer.status_code, answer.json()["detail"]) == (404, text)


@pytest.mark.covers("S4.11", "S4.19", "S4.28")
async def test_an_import_sends_its_frames_and_ends() -> None:
    async with demo() as one:
        body = {"source_type": "csv", "file_path": "/etc/passwd", "data_type": "sales", "overwrite": False}
        made = await one.start("/api/data/import", body)
        ident = made["import_id"]
        assert made == {
            "import_id": ident,
            "status": "processing",
            "imported_records": 0,
            "total_records": 0,
            "errors": [],
            "created_at": "2026-01-31T12:00:00.000000Z",
            "completed_at": None,
        }
        found = await one.frames(5)
        assert [f["progress"] for f in found] == [0, 25, 50, 75, 100]
        assert found[-1] == {
            "type": "data_import_progress",
            "import_id": ident,
            "status": "completed",
            "message": "数据导入完成，共处理 200 条记录",
            "progress": 100,
            "total": 100,
            "percentage": 100.0,
            "imported_records": 200,
            "total_records": 200,
            "timestamp": found[-1]["timestamp"],
        }
        assert (await one.call("GET", f"/api/data/import/{ident}/status")).json()["status"] == "completed"


@pytest.mark.covers("S4.12", "S4.20", "S4.29")
async def test_an_upload_sends_its_frames_and_is_imported() -> None:
    async with demo() as one:
        files = {"file": ("../../a.csv", b"a,b\n" * 50_000)}
        answer = await one.call("POST", "/api/data/upload", files=files, data={"data_type": "sales"})
        assert answer.status_code == 200, answer.text
        ident = answer.json()["import_id"]
        assert answer.json() == {"message": "文件上传成功", "import_id": ident, "file_path": "a.csv"}
        found = await one.frames(8)
        uploads = [f for f in found if f["type"] == "file_upload_progress"]
        assert [(f["status"], f["progress"], f["percentage"]) for f in uploads] == [
            ("uploading", 0, 0.0),
            ("uploaded", 50, 50.0),
            ("processing", 100, 100.0),
        ]
        assert uploads[1]["message"] == "文件上传完成，正在创建导入任务..."
        assert {f["filename"] for f in uploads} == {"a.csv"} and uploads[2]["import_id"] == ident
        for name in ("a.exe", "csv", ""):
            files = {"file": (name, b"x")}
            assert (await one.call("POST", "/api/data/upload", files=files)).status_code == 400
        assert (await one.call("POST", "/api/data/upload", data={"data_type": "x"})).status_code == 400


async def test_several_industries() -> None:
    async with demo() as one:
        answer = await one.start("/api/reports/multi-industry/generate", ["零售", "金融"])
        assert answer == {
            "success": True,
            "message": "多行业报告生成任务已启动",
            "task_id": answer["task_id"],
            "industries": ["零售", "金融"],
            "estimated_time": "2-3分钟",
        }
        found = await one.frames(2)
        assert [(f["status"], f["progress"], f["total"]) for f in found] == [
            ("started", 0, 2),
            ("completed", 2, 2),
        ]
        assert len(found[1]["reports"]) == 2


async def test_jobs_are_bounded() -> None:
    async with demo(step_s=60, workers=1, waiting=2, kept=2) as one:
        answers = [
            await one.call("POST", "/api/reports/batch/generate", json={"report_ids": ["r1"]})
            for _ in range(6)
        ]
        codes = [answer.status_code for answer in answers]
        assert codes.count(200) in (2, 3) and codes.count(429) == 6 - codes.count(200)
        assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 429)
        first = answers[0].json()["batch_id"]
        if codes.count(200) == 3:
            assert (await one.call("GET", f"/api/reports/batch/{first}/status")).status_code == 404, (
                "forgotten"
            )
