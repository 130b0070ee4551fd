"""The publishing calls of the older contract `topics` (docs/contracts/legacy-wire.md section 5.5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from . import publications, shapes
from .answers import Receipt
from .client import AsyncClient
from .default import default_client, default_sync_client
from .flows import each
from .sync import Client


class WebSocketManager:
    """Publishes to topics. Without a client it speaks through the one of `configure`."""

    def __init__(self, client: AsyncClient | None = None) -> None:
        self._client = client

    @property
    def client(self) -> AsyncClient:
        return self._client or default_client()

    async def send_import_progress(self, task_id: str | int, progress: Mapping[str, Any]) -> Receipt:
        """To topic `import:<task_id>`: `status`, `total`, `processed`, `progress` …; what is missing of the
        contract's 13 keys is added. Only the task's owner may subscribe: register the task first.
        """
        return await self.client.call(publications.import_progress(task_id, progress))

    async def send_wallet_update(self, wallet_address: str, data: Mapping[str, Any]) -> Receipt:
        """To topic `wallet_updates`."""
        return await self.client.call(publications.wallet_update(wallet_address, data))

    async def send_system_status(self, status: Mapping[str, Any]) -> Receipt:
        """To topic `system_status`."""
        return await self.client.call(publications.system_status(status))

    async def send_notification(
        self, notification: Mapping[str, Any], target_users: Iterable[str | int] | None = None
    ) -> tuple[Receipt, ...]:
        """`title`, `content`, `level` …: to all (anonymous connections among them, and in nobody's inbox), or
        stored for and pushed to `target_users`. An empty list reaches nobody: then nothing is sent at all.
        Raises ValueError without a title.
        """
        calls = publications.to_users(target_users, lambda to: shapes.topics_notification(to, notification))
        return await self.client.run(each(self.client.policy, calls))

    async def publish(self, topic: str, message: Mapping[str, Any]) -> Receipt:
        """To the subscribers of any topic. `topic`, `type` and `timestamp` are added where missing."""
        return await self.client.call(publications.topic_message(topic, message))


class SyncWebSocketManager:
    """WebSocketManager for threads."""

    def __init__(self, client: Client | None = None) -> None:
        self._client = client

    @property
    def client(self) -> Client:
        return self._client or default_sync_client()

    def send_import_progress(self, task_id: str | int, progress: Mapping[str, Any]) -> Receipt:
        """To topic `import:<task_id>`: `status`, `total`, `processed`, `progress` …; what is missing of the
        contract's 13 keys is added. Only the task's owner may subscribe: register the task first.
        """
        return self.client.call(publications.import_progress(task_id, progress))

    def send_wallet_update(self, wallet_address: str, data: Mapping[str, Any]) -> Receipt:
        """To topic `wallet_updates`."""
        return self.client.call(publications.wallet_update(wallet_address, data))

    def send_system_status(self, status: Mapping[str, Any]) -> Receipt:
        """To topic `system_status`."""
        return self.client.call(publications.system_status(status))

    def send_notification(
        self, notification: Mapping[str, Any], target_users: Iterable[str | int] | None = None
    ) -> tuple[Receipt, ...]:
        """`title`, `content`, `level` …: to all (anonymous connections among them, and in nobody's inbox), or
        stored for and pushed to `target_users`. An empty list reaches nobody: then nothing is sent at all.
        Raises ValueError without a title.
        """
        calls = publications.to_users(target_users, lambda to: shapes.topics_notification(to, notification))
        return self.client.run(each(self.client.policy, calls))

    def publish(self, topic: str, message: Mapping[str, Any]) -> Receipt:
        """To the subscribers of any topic. `topic`, `type` and `timestamp` are added where missing."""
        return self.client.call(publications.topic_message(topic, message))


ws_manager = WebSocketManager()
"""The one of `configure`, under the name older backends import."""
