"""The publishing calls of the older contract `progress` (docs/contracts/legacy-wire.md section 7.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import publications
from .answers import Receipt
from .client import AsyncClient
from .default import default_client, default_sync_client
from .sync import Client


class ConnectionManager:
    """Sends progress frames. Without a client it speaks through the one of `configure`."""

    def __init__(self, client: AsyncClient | None = None) -> None:
        self._client = client

    @property
    def client(self) -> AsyncClient:
        return self._client or default_client()

    async def send_json_to_user(self, data: Mapping[str, Any], client_id: str | int) -> Receipt:
        """To all progress connections of a user, or with a suffix (`u1:tab2`) to that client id alone. The
        numbers a frame leaves out, and its `timestamp`, are added.
        """
        return await self.client.call(publications.progress_frame(client_id, data))

    async def broadcast_json(
        self, data: Mapping[str, Any], exclude_client: str | int | None = None
    ) -> Receipt:
        """To everybody, but for a user, or with a suffix for that client id alone."""
        return await self.client.call(publications.progress_to_all(data, exclude_client))


class SyncConnectionManager:
    """ConnectionManager for threads."""

    def __init__(self, client: Client | None = None) -> None:
        self._client = client

    @property
    def client(self) -> Client:
        return self._client or default_sync_client()

    def send_json_to_user(self, data: Mapping[str, Any], client_id: str | int) -> Receipt:
        """To all progress connections of a user, or with a suffix (`u1:tab2`) to that client id alone. The
        numbers a frame leaves out, and its `timestamp`, are added.
        """
        return self.client.call(publications.progress_frame(client_id, data))

    def broadcast_json(self, data: Mapping[str, Any], exclude_client: str | int | None = None) -> Receipt:
        """To everybody, but for a user, or with a suffix for that client id alone."""
        return self.client.call(publications.progress_to_all(data, exclude_client))
