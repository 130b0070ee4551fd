"""`/v1/batches`: tasks that belong together, and how many of them have ended how."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Response, get, put
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, JSONBody
from msgspec import Meta, Struct

from dualcast.model.principal import PUBLISHER
from dualcast.publishing.requests import Name
from dualcast.tasks.errors import UnknownBatch
from dualcast.tasks.model import Batch, Task

from .authentication import ROLE
from .services import Caller, Injected
from .tasks import Members, PageMark, PageSize, Title, id_of, may_see

_PATH = "/v1/batches/{batch:str}"


class BatchBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A batch. What is missing stays as it was."""

    owner: Name
    """User id. The owner may read the batch and subscribe to `batch:<id>`; its tasks have the same owner."""
    members: Members = []
    total: Annotated[int, Meta(ge=1)] | None = None
    """How many tasks there will be. With it the batch takes no more, and has ended for good when so many
    have; without it, it goes on when a task joins later.
    """
    title: Title | None = None
    data: dict[str, Any] | None = None
    """The publisher's own keys, merged; null takes a key away. At most 16 KiB in all."""


class BatchView(Struct, frozen=True):
    """A batch, and a page of its tasks in the order they joined; ask again with `after=next` until `next` is
    empty.
    """

    batch: Batch
    tasks: list[Task]
    next: str


@put(
    _PATH,
    opt={ROLE: PUBLISHER},
    responses={201: ResponseSpec(Batch, description="It is new")},
    summary="Register a batch",
    tags=["tasks"],
    operation_id="RegisterBatch",
)
async def register_batch(
    services: Injected, caller: Caller, batch: FromPath[str], data: JSONBody[BatchBody]
) -> Response[Batch]:
    """Registers a batch with its owner, or completes what is known of it; 201 when it is new. An equal
    registration changes nothing. 409 `batch-exists` when the id has another owner, `batch-full` when more
    tasks than `total` have joined already.
    """
    registered = await services.tasks.put_batch(
        caller.tenant,
        id_of(batch),
        data.owner,
        total=data.total,
        title=data.title,
        data=data.data,
        members=data.members,
    )
    return Response(registered.batch, status_code=201 if registered.created else 200)


@get(_PATH, summary="Read a batch", tags=["tasks"], operation_id="ReadBatch")
async def read_batch(
    services: Injected,
    caller: Caller,
    batch: FromPath[str],
    after: PageMark = "",
    limit: PageSize = 50,
) -> BatchView:
    """The batch with its counters, and its tasks, for backends and whoever may subscribe to `batch:<id>`. For
    everybody else it does not exist.
    """
    found = await services.tasks.batch(caller.tenant, id_of(batch))
    if not await may_see(services, caller, "batch:" + found.id, found.owner):
        raise UnknownBatch
    page = await services.tasks.members(caller.tenant, found.id, after=after, limit=limit)
    return BatchView(found, page.tasks, page.next)


ROUTES = (register_batch, read_batch)
"""The handlers of this module."""
