"""Demo endpoints of the contract `progress` (docs/contracts/legacy-wire.md section 7.6), in `--dev` only:
small fake jobs that send the real frames, so that old test pages and scripts run unchanged.

Nothing here reads or writes a file. Jobs are bounded in number and in what they keep; `DemoJobs.run` owns
them and belongs into the application's task group.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from pathlib import PurePosixPath
from typing import Annotated, Any, NoReturn

import msgspec
import structlog
from litestar import Request, get, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta, Struct

from dualcast.bus.announcing import Announcer
from dualcast.dialects.progress import BATCH, FRAME, IMPORT, INDUSTRIES, UPLOAD
from dualcast.gateway.authentication import PUBLIC
from dualcast.gateway.services import Caller, Injected
from dualcast.model.channel import user_channel
from dualcast.model.errors import BadRequest, DualcastError, NotFound, RateLimited
from dualcast.model.principal import Principal
from dualcast.model.times import utc_text

from .notices import refusals

log = structlog.get_logger("dualcast.gateway")

UPLOADS = (".csv", ".json", ".xlsx", ".xls")
MAX_UPLOAD_BYTES = 10 * 1024 * 1024
RECORDS = 200
"""In every pretended import."""
_TAG = ["demo"]
_SAID = refusals("Unauthorized", "Forbidden")
_Name = Annotated[str, Meta(min_length=1, max_length=128)]
_Names = Annotated[list[_Name], Meta(min_length=1, max_length=50)]


class BatchBody(Struct, frozen=True):
    report_ids: _Names
    output_format: str = "pdf"
    include_charts: bool = True
    async_generation: bool = True


class ImportBody(Struct, frozen=True):
    source_type: Annotated[str, Meta(max_length=64)] = "csv"
    file_path: Annotated[str, Meta(max_length=1024)] = ""
    """Never opened."""
    data_type: Annotated[str, Meta(max_length=64)] = ""
    overwrite: bool = False


class Batch(Struct, kw_only=True):
    """A pretended batch of reports."""

    batch_id: str
    total_reports: int
    completed_reports: int = 0
    failed_reports: int = 0
    status: str = "processing"
    created_at: str
    completed_at: str | None = None
    reports: list[dict[str, Any]] = []


class Import(Struct, kw_only=True):
    """A pretended import."""

    import_id: str
    status: str = "processing"
    imported_records: int = 0
    total_records: int = 0
    errors: list[str] = []
    created_at: str
    completed_at: str | None = None


Job = Callable[[], Awaitable[None]]


class DemoJobs:
    """The jobs of one process. `step_s`: how long a job pretends to work between two frames; `now_ms`: Unix
    milliseconds."""

    def __init__(
        self,
        announcer: Announcer,
        now_ms: Callable[[], int],
        *,
        step_s: float = 0.3,
        workers: int = 8,
        waiting: int = 32,
        kept: int = 500,
    ) -> None:
        self._announcer = announcer
        self._now_ms = now_ms
        self._step_s = step_s
        self._workers = workers
        self._kept = kept
        self._waiting: asyncio.Queue[Job] = asyncio.Queue(waiting)
        self._things: OrderedDict[tuple[str, str, str], Batch | Import] = OrderedDict()

    async def run(self) -> NoReturn:
        """Does the jobs, for ever."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())
        raise AssertionError("workers do not end")

    async def _work(self) -> NoReturn:
        while True:
            job = await self._waiting.get()
            try:
                await job()
            except DualcastError as error:
                log.warning("a demo job ended early", code=error.code)

    # ── what the endpoints do ──

    def batch(self, caller: Principal, reports: list[str]) -> Batch:
        """Starts a batch of reports. Raises RateLimited."""
        made = Batch(batch_id=_ident(), total_reports=len(reports), created_at=self._time())
        self._begin(caller, made.batch_id, made, lambda: self._reports(caller, made, reports))
        return made

    def cancel(self, caller: Principal, batch_id: str) -> None:
        """Ends a batch at its next report. Raises NotFound, BadRequest when it has ended."""
        batch = self.batch_of(caller, batch_id)
        if batch.status != "processing":
            raise BadRequest("批次已结束")
        batch.status, batch.completed_at = "cancelled", self._time()

    def batch_of(self, caller: Principal, batch_id: str) -> Batch:
        """Raises NotFound."""
        found = self._things.get((caller.tenant, caller.sub, batch_id))
        if not isinstance(found, Batch):
            raise NotFound("批次不存在")
        return found

    def data_import(self, caller: Principal) -> Import:
        """Starts an import. Raises RateLimited."""
        made = Import(import_id=_ident(), created_at=self._time())
        self._begin(caller, made.import_id, made, lambda: self._records(caller, made))
        return made

    def import_of(self, caller: Principal, import_id: str) -> Import:
        """Raises NotFound."""
        found = self._things.get((caller.tenant, caller.sub, import_id))
        if not isinstance(found, Import):
            raise NotFound("导入任务不存在")
        return found

    def upload(self, caller: Principal, filename: str) -> Import:
        """Pretends that a file arrived, then imports it. Raises RateLimited."""
        made = Import(import_id=_ident(), created_at=self._time())
        self._begin(caller, made.import_id, made, lambda: self._file(caller, made, filename))
        return made

    def industries(self, caller: Principal, names: list[str]) -> str:
        """Starts a report for several industries; its id. Raises RateLimited."""
        task_id = _ident()
        self._begin(caller, "", None, lambda: self._industries(caller, names))
        return task_id

    # ── the jobs ──

    async def _reports(self, caller: Principal, batch: Batch, reports: list[str]) -> None:
        head = {"type": BATCH, "batch_id": batch.batch_id}
        for number, report in enumerate(reports):
            if batch.status != "processing":
                break
            message = f"正在处理报告 {report} ({number + 1}/{len(reports)})"
            numbers = {"progress": number, "total": len(reports), "current_report": report}
            await self._tell(caller, {**head, "status": "processing", "message": message, **numbers})
            await asyncio.sleep(self._step_s)
            if batch.status == "processing":
                batch.completed_reports = number + 1
                batch.reports = [*batch.reports, {"report_id": report, "status": "completed"}]
        done = {"progress": batch.completed_reports, "total": len(reports)}
        if batch.status == "processing":
            batch.status, batch.completed_at = "completed", self._time()
            message = "批量报告生成完成"
        else:
            message = "批量报告生成已取消"
        ends = {"completed": batch.completed_reports, "failed": batch.failed_reports}
        await self._tell(caller, {**head, "status": batch.status, "message": message, **done, **ends})

    async def _records(self, caller: Principal, found: Import) -> None:
        head = {"type": IMPORT, "import_id": found.import_id}
        found.total_records = RECORDS
        for percent in (0, 25, 50, 75):
            found.imported_records = RECORDS * percent // 100
            await self._tell(
                caller,
                {
                    **head,
                    "status": "processing",
                    "message": f"正在导入数据 ({percent}%)",
                    "progress": percent,
                    "total": 100,
                    "imported_records": found.imported_records,
                    "total_records": RECORDS,
                },
            )
            await asyncio.sleep(self._step_s)
        found.imported_records = RECORDS
        found.status, found.completed_at = "completed", self._time()
        message = f"数据导入完成，共处理 {RECORDS} 条记录"
        ends = {"imported_records": RECORDS, "total_records": RECORDS}
        await self._tell(
            caller, {**head, "status": "completed", "message": message, "progress": 100, "total": 100, **ends}
        )

    async def _file(self, caller: Principal, found: Import, filename: str) -> None:
        head = {"type": UPLOAD, "filename": filename}
        for status, percent, message in (
            ("uploading", 0, f"正在上传文件 {filename}"),
            ("uploaded", 50, "文件上传完成，正在创建导入任务..."),
            ("processing", 100, "导入任务已创建，正在处理数据..."),
        ):
            extra = {"import_id": found.import_id} if status == "processing" else {}
            numbers = {"progress": percent, "total": 100, **extra}
            await self._tell(caller, {**head, "status": status, "message": message, **numbers})
            await asyncio.sleep(self._step_s)
        await self._records(caller, found)

    async def _industries(self, caller: Principal, names: list[str]) -> None:
        head = {"type": INDUSTRIES}
        start = {"status": "started", "message": "开始生成多行业分析报告...", "progress": 0}
        await self._tell(caller, {**head, **start, "total": len(names)})
        await asyncio.sleep(self._step_s)
        end = {"status": "completed", "message": "多行业分析报告生成完成", "progress": len(names)}
        reports = [f"{name}分析报告" for name in names]
        await self._tell(caller, {**head, **end, "total": len(names), "reports": reports})

    # ── inside ──

    def _begin(self, caller: Principal, ident: str, thing: Batch | Import | None, job: Job) -> None:
        try:
            self._waiting.put_nowait(job)
        except asyncio.QueueFull:
            raise RateLimited("too many demo jobs", retry_after_s=1) from None
        if thing is not None:
            self._things[caller.tenant, caller.sub, ident] = thing
            if len(self._things) > self._kept:
                self._things.popitem(last=False)

    async def _tell(self, caller: Principal, frame: dict[str, Any]) -> None:
        data = msgspec.json.encode(frame)
        await self._announcer.announce(caller.tenant, (user_channel(caller.sub),), FRAME, data)

    def _time(self) -> str:
        return utc_text(self._now_ms())


def demo_routes(jobs: DemoJobs) -> tuple[Any, ...]:
    """The handlers; only for `--dev`."""

    @post(
        "/token",
        status_code=200,
        opt={PUBLIC: True},
        exception_handlers=_SAID,
        tags=_TAG,
        operation_id="DemoToken",
    )
    async def demo_token(request: Request[Any, Any, Any]) -> dict[str, str]:
        """The demo token of the one demo account; a form."""
        form = await request.form()
        if (form.get("username"), form.get("password")) != ("admin", "adminpass"):
            raise BadRequest("用户名或密码错误")
        return {"access_token": "admin", "token_type": "bearer"}

    @get("/api/info", opt={PUBLIC: True}, exception_handlers=_SAID, tags=_TAG, operation_id="DemoInfo")
    async def info(services: Injected) -> dict[str, Any]:
        """What this is."""
        version = services.settings.version
        return {"title": "dualcast", "version": version, "status": "运行中", "features": []}

    @post(
        "/api/reports/batch/generate",
        status_code=200,
        exception_handlers=_SAID,
        tags=_TAG,
        operation_id="DemoBatch",
    )
    async def batch(caller: Caller, data: JSONBody[BatchBody]) -> Batch:
        """Starts a batch of reports."""
        return jobs.batch(caller, data.report_ids)

    @get(
        "/api/reports/batch/{batch_id:str}/status",
        exception_handlers=_SAID,
        tags=_TAG,
        operation_id="DemoBatchStatus",
    )
    async def batch_status(caller: Caller, batch_id: FromPath[str]) -> Batch:
        """How far it is."""
        return jobs.batch_of(caller, batch_id)

    @post(
        "/api/reports/batch/{batch_id:str}/cancel",
        status_code=200,
        exception_handlers=_SAID,
        tags=_TAG,
        operation_id="DemoBatchCancel",
    )
    async def batch_cancel(caller: Caller, batch_id: FromPath[str]) -> dict[str, str]:
        """Ends it at its next report."""
        jobs.cancel(caller, batch_id)
        return {"message": "批量报告生成已取消"}

    @post(
        "/api/reports/multi-industry/generate",
        status_code=200,
        exception_handlers=_SAID,
        tags=_TAG,
        operation_id="DemoIndustries",
    )
    async def industries(caller: Caller, data: JSONBody[_Names]) -> dict[str, Any]:
        """Starts a report for several industries."""
        return {
            "success": True,
            "message": "多行业报告生成任务已启动",
            "task_id": jobs.industries(caller, data),
            "industries": data,
            "estimated_time": "2-3分钟",
        }

    @post("/api/data/import", status_code=200, exception_handlers=_SAID, tags=_TAG, operation_id="DemoImport")
    async def data_import(caller: Caller, data: JSONBody[ImportBody]) -> Import:
        """Starts an import."""
        return jobs.data_import(caller)

    @get(
        "/api/data/import/{import_id:str}/status",
        exception_handlers=_SAID,
        tags=_TAG,
        operation_id="DemoImportStatus",
    )
    async def import_status(caller: Caller, import_id: FromPath[str]) -> Import:
        """How far it is."""
        return jobs.import_of(caller, import_id)

    @post(
        "/api/data/upload",
        status_code=200,
        request_max_body_size=MAX_UPLOAD_BYTES,
        exception_handlers=_SAID,
        tags=_TAG,
        operation_id="DemoUpload",
    )
    async def upload(request: Request[Any, Any, Any], caller: Caller) -> dict[str, str]:
        """Takes a file, forgets it, and pretends to import it; multipart."""
        filename = getattr((await request.form()).get("file"), "filename", "")
        name = PurePosixPath(str(filename).replace("\\", "/")).name[:128]
        if not name.lower().endswith(UPLOADS):
            raise BadRequest("不支持的文件类型，仅支持 " + " ".join(UPLOADS))
        started = jobs.upload(caller, name)
        return {"message": "文件上传成功", "import_id": started.import_id, "file_path": name}

    return (
        demo_token,
        info,
        batch,
        batch_status,
        batch_cancel,
        industries,
        data_import,
        import_status,
        upload,
    )


def _ident() -> str:
    return secrets.token_hex(8)
