"""`/v1/tasks`: backends register tasks and report their progress; who may subscribe to one reads it."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

from litestar import Response, delete, get, post, put
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta, Struct

from dualcast.model.channel import check_id
from dualcast.model.errors import BadChannel, Forbidden
from dualcast.model.principal import PUBLISHER, Principal
from dualcast.publishing.requests import Name
from dualcast.tasks.errors import UnknownTask
from dualcast.tasks.model import MAX_KIND, MAX_MESSAGE, MAX_NUMBER, MAX_TITLE, State, Task
from dualcast.tasks.port import TaskPage
from dualcast.tasks.rules import Report

from .authentication import ROLE
from .services import Caller, Injected, Services

Number = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
Members = Annotated[list[Name], Meta(max_length=1000)]
Title = Annotated[str, Meta(max_length=MAX_TITLE)]
Message = Annotated[str, Meta(max_length=MAX_MESSAGE)]
Percent = Annotated[float, Meta(ge=0, le=100)]
PageMark = Annotated[str, QueryParameter(description="`next` of the page before", max_length=16)]
PageSize = Annotated[int, QueryParameter(ge=1, le=200)]
_BACKEND = {ROLE: PUBLISHER}
_PATH = "/v1/tasks/{task:str}"


class ReportBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a worker says of a task. What is missing stays as it was."""

    state: State | None = None
    """`processing` when missing. `completed`, `failed` and `cancelled` are final."""
    step: Number | None = None
    """At most `total_steps`."""
    total_steps: Number | None = None
    percent: Percent | None = None
    """Computed from `step` and `total_steps` when missing; 100 when completed."""
    message: Message | None = None
    result: Any = None
    """Any JSON value of at most 16 KiB; of a finished task only."""
    error: Message | None = None
    """Why it failed or was cancelled."""
    data: dict[str, Any] | None = None
    """Merged into what the task has, key by key; null takes a key away. At most 16 KiB in all."""
    sequence: Number | None = None
    """Grows with every report of a task. A report whose sequence is not above the last one's is late: it
    changes nothing and is answered with the present state.
    """


class TaskBody(ReportBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A task's registration, and a report in the same step when it has one of a report's fields."""

    owner: Name
    """User id. The owner may read the task and subscribe to `task:<id>`."""
    members: Members = []
    """Users who may do so as well."""
    batch: Annotated[str, Meta(max_length=256)] = ""
    """The batch it belongs to; one is made when there is none. It cannot be changed later."""
    kind: Annotated[str, Meta(max_length=MAX_KIND)] | None = None
    """The publisher's own word for it (`analysis`, `import` …)."""
    title: Title | None = None


@put(
    _PATH,
    opt=_BACKEND,
    responses={201: ResponseSpec(Task, description="It is new")},
    summary="Register a task",
    tags=["tasks"],
    operation_id="RegisterTask",
)
async def register_task(
    services: Injected, caller: Caller, task: FromPath[str], data: JSONBody[TaskBody]
) -> Response[Task]:
    """Registers a task with its owner, or completes what is known of it; 201 when it is new. An equal
    registration changes nothing. 409 `task-exists` when the id has another owner or another batch.
    """
    told = (data.state, data.step, data.percent, data.message, data.result, data.error, data.sequence)
    registered = await services.tasks.register(
        caller.tenant,
        id_of(task),
        data.owner,
        batch=data.batch,
        kind=data.kind,
        title=data.title,
        total_steps=data.total_steps,
        data=data.data,
        members=data.members,
        report=_report(data, with_data=False) if any(value is not None for value in told) else None,
    )
    return Response(registered.task, status_code=201 if registered.created else 200)


@post(
    _PATH, opt=_BACKEND, status_code=200, summary="Report a task", tags=["tasks"], operation_id="ReportTask"
)
async def report_task(
    services: Injected, caller: Caller, task: FromPath[str], data: JSONBody[ReportBody]
) -> Task:
    """Progress, or the end of a task. Stored first, then published to `task:<id>` as event `task` (and to
    `batch:<id>` as event `batch` when the batch has changed). The same end again changes nothing; anything
    else after the end is a 409 `task-finished`.
    """
    return await services.tasks.report(caller.tenant, id_of(task), _report(data))


@delete(
    _PATH, opt=_BACKEND, status_code=200, summary="Cancel a task", tags=["tasks"], operation_id="CancelTask"
)
async def cancel_task(services: Injected, caller: Caller, task: FromPath[str]) -> Task:
    """Finishes a task as `cancelled`. It stays readable until its retention ends."""
    return await services.tasks.finish(caller.tenant, id_of(task), "cancelled")


@get(_PATH, summary="Read a task", tags=["tasks"], operation_id="ReadTask")
async def read_task(services: Injected, caller: Caller, task: FromPath[str]) -> Task:
    """The last known state, for backends and whoever may subscribe to `task:<id>`. For everybody else it does
    not exist.
    """
    found = await services.tasks.get(caller.tenant, id_of(task))
    if not await may_see(services, caller, "task:" + found.id, found.owner):
        raise UnknownTask
    return found


@get("/v1/tasks", summary="List tasks", tags=["tasks"], operation_id="ListTasks")
async def list_tasks(
    services: Injected,
    caller: Caller,
    owner: Annotated[str, QueryParameter(description="Only of this user", max_length=256)] = "",
    only: Annotated[State | None, QueryParameter(name="state", description="Only in this state")] = None,
    after: PageMark = "",
    limit: PageSize = 50,
) -> TaskPage:
    """Newest first. Users see their own, backends everybody's."""
    if not caller.may_publish:
        if owner not in ("", caller.sub):
            raise Forbidden("only a backend sees other users' tasks", code="publisher-only")
        owner = caller.sub
    return await services.tasks.list(caller.tenant, owner=owner, state=only, after=after, limit=limit)


async def may_see(services: Services, caller: Principal, channel: str, owner: str) -> bool:
    """Whether the caller is a backend, the owner, or may subscribe to the channel."""
    if caller.may_publish or caller.sub == owner:
        return True
    return await services.access.may_subscribe(caller, channel)


def id_of(segment: str) -> str:
    """The id in a path segment that is still percent-encoded (the edge leaves it so); raises BadChannel."""
    try:
        return check_id(unquote_to_bytes(segment).decode())
    except UnicodeDecodeError:
        raise BadChannel("an id is UTF-8") from None


def _report(body: ReportBody, *, with_data: bool = True) -> Report:
    return Report(
        state=body.state or "processing",
        step=body.step,
        total_steps=body.total_steps,
        percent=body.percent,
        message=body.message,
        result=body.result,
        error=body.error,
        data=body.data if with_data else None,
        sequence=body.sequence,
    )


ROUTES = (register_task, report_task, cancel_task, read_task, list_tasks)
"""The handlers of this module."""
