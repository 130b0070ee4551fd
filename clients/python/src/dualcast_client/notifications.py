"""The publishing calls of the older contract `notifications` (docs/contracts/legacy-wire.md sections 3.1 to
3.5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import publications, shapes
from .answers import Receipt, Task
from .bodies import State, TaskRegistration
from .client import AsyncClient
from .default import default_client, default_sync_client
from .flows import progressed
from .sync import Client


class NotificationPublisher:
    """Publishes notifications and the progress of tasks. Without a client it speaks through the one of
    `configure`.
    """

    def __init__(self, client: AsyncClient | None = None) -> None:
        self._client = client

    @property
    def client(self) -> AsyncClient:
        return self._client or default_client()

    async def publish_notification(self, user_id: str | int, notification: Mapping[str, Any]) -> Receipt:
        """`id`, `type`, `title`, `content`, `link`, `source`, `status`, `created_at`; all but `title` may be
        missing. A new one is unread, whatever `status` says. Stored, then pushed over WebSocket and SSE.
        Raises ValueError without a title.
        """
        call = publications.to_user(user_id, lambda to: shapes.plain_notification(to, notification))
        return await self.client.call(call)

    async def register_task(
        self, task_id: str, owner: str | int, *, total_steps: int | None = None, batch: str = ""
    ) -> Task:
        """Makes a task known, which the owner then may follow."""
        known = TaskRegistration(owner=str(owner), total_steps=total_steps, batch=batch)
        return await self.client.register_task(task_id, known)

    async def task_progress(
        self,
        task_id: str,
        message: str | None = None,
        step: int | None = None,
        total_steps: int | None = None,
        *,
        owner: str | int | None = None,
        status: State | None = None,
        result: Any = None,
        error: str | None = None,
    ) -> Task:
        """Tells whoever follows the task. `status`: `completed`, `failed` and `cancelled` end it (`result`,
        `error`). With `owner` an unknown task is registered in the same step. Raises DualcastError
        `unknown-task`, `task-finished`.
        """
        call = progressed(task_id, message, step, total_steps, owner, status, result, error)
        return await self.client.call(call)


class SyncNotificationPublisher:
    """NotificationPublisher for threads."""

    def __init__(self, client: Client | None = None) -> None:
        self._client = client

    @property
    def client(self) -> Client:
        return self._client or default_sync_client()

    def publish_notification(self, user_id: str | int, notification: Mapping[str, Any]) -> Receipt:
        """`id`, `type`, `title`, `content`, `link`, `source`, `status`, `created_at`; all but `title` may be
        missing. A new one is unread, whatever `status` says. Stored, then pushed over WebSocket and SSE.
        Raises ValueError without a title.
        """
        call = publications.to_user(user_id, lambda to: shapes.plain_notification(to, notification))
        return self.client.call(call)

    def register_task(
        self, task_id: str, owner: str | int, *, total_steps: int | None = None, batch: str = ""
    ) -> Task:
        """Makes a task known, which the owner then may follow."""
        known = TaskRegistration(owner=str(owner), total_steps=total_steps, batch=batch)
        return self.client.register_task(task_id, known)

    def task_progress(
        self,
        task_id: str,
        message: str | None = None,
        step: int | None = None,
        total_steps: int | None = None,
        *,
        owner: str | int | None = None,
        status: State | None = None,
        result: Any = None,
        error: str | None = None,
    ) -> Task:
        """Tells whoever follows the task. `status`: `completed`, `failed` and `cancelled` end it (`result`,
        `error`). With `owner` an unknown task is registered in the same step. Raises DualcastError
        `unknown-task`, `task-finished`.
        """
        call = progressed(task_id, message, step, total_steps, owner, status, result, error)
        return self.client.call(call)
