"""The publishing calls of the older contract `rooms` (docs/contracts/legacy-wire.md section 4.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from . import publications, shapes
from .answers import Receipt
from .client import AsyncClient
from .default import default_client, default_sync_client
from .flows import each
from .sync import Client


class NotificationBroadcaster:
    """Pushes to the clients of `rooms` (and, for notifications, of every contract that has them). Without a
    client it speaks through the one of `configure`.
    """

    def __init__(self, client: AsyncClient | None = None) -> None:
        self._client = client

    @property
    def client(self) -> AsyncClient:
        return self._client or default_client()

    async def send_notification(self, user_id: str | int, data: Mapping[str, Any]) -> Receipt:
        """Stored, then pushed to all devices of the user. `data`: `title`, `message`, `type` (info, success,
        warning, error) …; keys beyond the contract's reach the clients of `rooms`. Raises ValueError without
        a title.
        """
        call = publications.to_user(user_id, lambda to: shapes.rooms_notification(to, data))
        return await self.client.call(call)

    async def send_sync_update(self, user_id: str | int, data: Mapping[str, Any]) -> Receipt:
        """Tells a user's devices to synchronise: `data` as it is, live and in no inbox."""
        return await self.client.call(publications.user_event(user_id, "sync_update", data))

    async def send_knowledge_update(self, user_id: str | int, data: Mapping[str, Any]) -> Receipt:
        """Tells a user's devices that contents have changed."""
        return await self.client.call(publications.user_event(user_id, "knowledge_update", data))

    async def send_system_message(
        self, data: Mapping[str, Any], target_users: Iterable[str | int] | None = None
    ) -> tuple[Receipt, ...]:
        """To all, or to `target_users`. An empty list reaches nobody: then nothing is sent at all."""
        calls = publications.events(target_users, "system_message", data)
        return await self.client.run(each(self.client.policy, calls))

    async def send_to_room(self, message: Mapping[str, Any], room: str) -> Receipt:
        """To everybody in a room. A message with a `type` is the frame; without one, it is the `data` of a
        `room_message`.
        """
        return await self.client.call(publications.room_message(message, room))


class SyncNotificationBroadcaster:
    """NotificationBroadcaster for threads."""

    def __init__(self, client: Client | None = None) -> None:
        self._client = client

    @property
    def client(self) -> Client:
        return self._client or default_sync_client()

    def send_notification(self, user_id: str | int, data: Mapping[str, Any]) -> Receipt:
        """Stored, then pushed to all devices of the user. `data`: `title`, `message`, `type` (info, success,
        warning, error) …; keys beyond the contract's reach the clients of `rooms`. Raises ValueError without
        a title.
        """
        call = publications.to_user(user_id, lambda to: shapes.rooms_notification(to, data))
        return self.client.call(call)

    def send_sync_update(self, user_id: str | int, data: Mapping[str, Any]) -> Receipt:
        """Tells a user's devices to synchronise: `data` as it is, live and in no inbox."""
        return self.client.call(publications.user_event(user_id, "sync_update", data))

    def send_knowledge_update(self, user_id: str | int, data: Mapping[str, Any]) -> Receipt:
        """Tells a user's devices that contents have changed."""
        return self.client.call(publications.user_event(user_id, "knowledge_update", data))

    def send_system_message(
        self, data: Mapping[str, Any], target_users: Iterable[str | int] | None = None
    ) -> tuple[Receipt, ...]:
        """To all, or to `target_users`. An empty list reaches nobody: then nothing is sent at all."""
        calls = publications.events(target_users, "system_message", data)
        return self.client.run(each(self.client.policy, calls))

    def send_to_room(self, message: Mapping[str, Any], room: str) -> Receipt:
        """To everybody in a room. A message with a `type` is the frame; without one, it is the `data` of a
        `room_message`.
        """
        return self.client.call(publications.room_message(message, room))
