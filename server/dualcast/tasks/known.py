"""What is known of a task or batch, from wherever: dualcast's own first, then the older queue."""

from __future__ import annotations

from dualcast.model.channel import check_channel

from .errors import UnknownBatch, UnknownTask
from .older_queue import OlderQueue
from .service import TaskService


class KnownTasks:
    """Whom a `task:` or `batch:` channel belongs to, and how it stands. Methods raise BusUnavailable and, for
    what is no channel, BadChannel."""

    def __init__(self, tasks: TaskService, older: OlderQueue | None = None) -> None:
        self._tasks = tasks
        self._older = older

    async def owner(self, tenant: str, channel: str) -> str | None:
        """A user id; None: there is no such task or batch. "": it belongs to nobody (admins may see it)."""
        kind, _, ident = check_channel(channel).partition(":")
        try:
            if kind == "task":
                return (await self._tasks.get(tenant, ident)).owner
            if kind == "batch":
                return (await self._tasks.batch(tenant, ident)).owner
        except (UnknownTask, UnknownBatch):
            return await self._older.owner(tenant, channel) if self._older else None
        return None

    async def state(self, tenant: str, channel: str) -> bytes | None:
        """The JSON of a Task or Batch; None: not known, or another kind of channel."""
        found = await self._tasks.state(tenant, channel)
        if found is None and self._older:
            return await self._older.state(tenant, channel)
        return found
