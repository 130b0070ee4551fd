"""The broadcasting calls of the older contract `conversations` (docs/contracts/legacy-wire.md 6.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypedDict, TypeVar

from msgspec.structs import replace

from . import calls
from .answers import Connection, Receipt
from .bodies import Broadcast
from .client import AsyncClient
from .default import default_client, default_sync_client
from .flow import Call
from .flows import connections_of, in_conversation
from .ids import new_id
from .shapes import message, user_ids
from .sync import Client

DIALECT = "conversations"
T = TypeVar("T")

AskParticipants = Callable[[str], Any]
"""Conversation id → its user ids (or, with asyncio, something to await that gives them)."""


class DeviceInfo(TypedDict):
    """One live connection of a user."""

    connection_id: str
    device_type: str | None
    """`mobile`, `desktop`, `tablet`, `web`."""
    device_id: str | None
    connected_at: str
    """RFC 3339, UTC."""
    instance_id: str


class BroadcastingService:
    """Tells the participants of conversations. `client`: None: the one of `configure`.

    The server has to know who takes part: `client.set_participants`, or `participants`, which is asked when a
    conversation is not known. Message, notification and reply objects are what clients get as `data`.
    """

    def __init__(
        self, client: AsyncClient | None = None, *, participants: AskParticipants | None = None
    ) -> None:
        self._client = client
        self._participants = participants

    @property
    def client(self) -> AsyncClient:
        return self._client or default_client()

    async def broadcast_message(
        self,
        conversation_id: str,
        message_data: Mapping[str, Any],
        exclude_user_id: str | int | None = None,
        exclude_connection_id: str | None = None,
    ) -> Receipt:
        """A message the caller has saved (`id`, `content`, `sender_id`, `message_type` …), to all
        participants, pushed to those without a live connection. The same `id` again is the same message.
        """
        said = Broadcast(
            kind="message",
            data=_identified(message_data),
            exclude_user=None if exclude_user_id is None else str(exclude_user_id),
            exclude_connection=exclude_connection_id or "",
        )
        return await self._tell(conversation_id, calls.broadcast(conversation_id, said))

    async def broadcast_consultation_reply(
        self, conversation_id: str, reply_data: Mapping[str, Any], consultant_id: str | int
    ) -> Receipt:
        """To all participants but the consultant, pushed to those without a live mobile connection."""
        said = Broadcast(kind="reply", data=reply_data, consultant_id=str(consultant_id))
        return await self._tell(conversation_id, calls.broadcast(conversation_id, said))

    async def send_mobile_only_notification(
        self,
        conversation_id: str,
        message_data: Mapping[str, Any],
        exclude_user_id: str | int | None = None,
    ) -> Receipt:
        """To mobile connections only, pushed to those without one: `title`, `content`, `action`."""
        exclude = None if exclude_user_id is None else str(exclude_user_id)
        said = Broadcast(kind="mobile", data=message_data, exclude_user=exclude)
        return await self._tell(conversation_id, calls.broadcast(conversation_id, said))

    async def broadcast_system_notification(
        self,
        conversation_id: str,
        notification_data: Mapping[str, Any],
        target_user_ids: Iterable[str | int] | None = None,
    ) -> Receipt | None:
        """To all participants, or to the targets, pushed to those without a live connection: `title`,
        `message`, `type`. An empty list reaches nobody: then nothing is sent at all (None).
        """
        targets = None if target_user_ids is None else user_ids(target_user_ids)
        if targets == []:
            return None
        said = Broadcast(kind="system", data=notification_data, targets=targets)
        return await self._tell(conversation_id, calls.broadcast(conversation_id, said))

    async def send_direct_message(self, user_id: str | int, message_data: Mapping[str, Any]) -> Receipt:
        """To one user in no conversation, pushed without a live connection: `title`, `content`, `type`."""
        return await self.client.direct_message(str(user_id), message_data)

    async def broadcast_typing_status(
        self, conversation_id: str, user_id: str | int, is_typing: bool
    ) -> None:
        """To the other participants who are connected now. `user_id` takes part."""
        await self._tell(conversation_id, calls.typing(conversation_id, is_typing, str(user_id)))

    async def broadcast_read_status(
        self, conversation_id: str, user_id: str | int, message_ids: Iterable[str | int]
    ) -> None:
        """To the other participants who are connected now. `user_id` takes part."""
        call = calls.read(conversation_id, user_ids(message_ids), str(user_id))
        await self._tell(conversation_id, call)

    async def get_user_device_info(self, user_id: str | int) -> list[DeviceInfo]:
        """The live connections of a user on all instances. Needs a token with role `admin`."""
        found = await self.client.run(connections_of(self.client.policy, str(user_id)))
        return [_device(one) for one in found]

    async def _tell(self, conversation_id: str, call: Call[T]) -> T:
        client = self.client
        return await client.run(in_conversation(client.policy, conversation_id, call, self._participants))


async def create_broadcasting_service(
    base_url: str = "",
    token: str = "",
    *,
    client: AsyncClient | None = None,
    participants: AskParticipants | None = None,
    db: object = None,
    **options: Any,
) -> BroadcastingService:
    """A service over `client`, over a client of its own for `base_url` (then `options` as of AsyncClient, and
    `service.client` is yours to close), or over the one of `configure`. `db` is taken because older backends
    give it, and not used.
    """
    if client is None and base_url:
        client = AsyncClient(base_url, token, **options)
    return BroadcastingService(client, participants=participants)


async def get_broadcasting_service_dependency(db: object = None) -> BroadcastingService:
    """`create_broadcasting_service` for frameworks that inject: a new service per request, over the one
    client of `configure`."""
    return await create_broadcasting_service(db=db)


class SyncBroadcastingService:
    """BroadcastingService for threads."""

    def __init__(self, client: Client | None = None, *, participants: AskParticipants | None = None) -> None:
        self._client = client
        self._participants = participants

    @property
    def client(self) -> Client:
        return self._client or default_sync_client()

    def broadcast_message(
        self,
        conversation_id: str,
        message_data: Mapping[str, Any],
        exclude_user_id: str | int | None = None,
        exclude_connection_id: str | None = None,
    ) -> Receipt:
        """A message the caller has saved (`id`, `content`, `sender_id`, `message_type` …), to all
        participants, pushed to those without a live connection. The same `id` again is the same message.
        """
        said = Broadcast(
            kind="message",
            data=_identified(message_data),
            exclude_user=None if exclude_user_id is None else str(exclude_user_id),
            exclude_connection=exclude_connection_id or "",
        )
        return self._tell(conversation_id, calls.broadcast(conversation_id, said))

    def broadcast_consultation_reply(
        self, conversation_id: str, reply_data: Mapping[str, Any], consultant_id: str | int
    ) -> Receipt:
        """To all participants but the consultant, pushed to those without a live mobile connection."""
        said = Broadcast(kind="reply", data=reply_data, consultant_id=str(consultant_id))
        return self._tell(conversation_id, calls.broadcast(conversation_id, said))

    def send_mobile_only_notification(
        self,
        conversation_id: str,
        message_data: Mapping[str, Any],
        exclude_user_id: str | int | None = None,
    ) -> Receipt:
        """To mobile connections only, pushed to those without one: `title`, `content`, `action`."""
        exclude = None if exclude_user_id is None else str(exclude_user_id)
        said = Broadcast(kind="mobile", data=message_data, exclude_user=exclude)
        return self._tell(conversation_id, calls.broadcast(conversation_id, said))

    def broadcast_system_notification(
        self,
        conversation_id: str,
        notification_data: Mapping[str, Any],
        target_user_ids: Iterable[str | int] | None = None,
    ) -> Receipt | None:
        """To all participants, or to the targets, pushed to those without a live connection: `title`,
        `message`, `type`. An empty list reaches nobody: then nothing is sent at all (None).
        """
        targets = None if target_user_ids is None else user_ids(target_user_ids)
        if targets == []:
            return None
        said = Broadcast(kind="system", data=notification_data, targets=targets)
        return self._tell(conversation_id, calls.broadcast(conversation_id, said))

    def send_direct_message(self, user_id: str | int, message_data: Mapping[str, Any]) -> Receipt:
        """To one user in no conversation, pushed without a live connection: `title`, `content`, `type`."""
        return self.client.direct_message(str(user_id), message_data)

    def broadcast_typing_status(self, conversation_id: str, user_id: str | int, is_typing: bool) -> None:
        """To the other participants who are connected now. `user_id` takes part."""
        self._tell(conversation_id, calls.typing(conversation_id, is_typing, str(user_id)))

    def broadcast_read_status(
        self, conversation_id: str, user_id: str | int, message_ids: Iterable[str | int]
    ) -> None:
        """To the other participants who are connected now. `user_id` takes part."""
        call = calls.read(conversation_id, user_ids(message_ids), str(user_id))
        self._tell(conversation_id, call)

    def get_user_device_info(self, user_id: str | int) -> list[DeviceInfo]:
        """The live connections of a user on all instances. Needs a token with role `admin`."""
        found = self.client.run(connections_of(self.client.policy, str(user_id)))
        return [_device(one) for one in found]

    def _tell(self, conversation_id: str, call: Call[T]) -> T:
        client = self.client
        return client.run(in_conversation(client.policy, conversation_id, call, self._participants))


def create_sync_broadcasting_service(
    base_url: str = "",
    token: str = "",
    *,
    client: Client | None = None,
    participants: AskParticipants | None = None,
    db: object = None,
    **options: Any,
) -> SyncBroadcastingService:
    """A service over `client`, over a client of its own for `base_url` (then `options` as of Client, and
    `service.client` is yours to close), or over the one of `configure`. `db` is taken because older backends
    give it, and not used.
    """
    if client is None and base_url:
        client = Client(base_url, token, **options)
    return SyncBroadcastingService(client, participants=participants)


def _identified(message_data: Mapping[str, Any]) -> Any:
    said = message(message_data)
    return said if said.id else replace(said, id=new_id())


def _device(one: Connection) -> DeviceInfo:
    # What the contract's clients call their connection is what they were told as `connection_id`.
    named = one.dialect == DIALECT and one.instance
    return {
        "connection_id": one.instance if named else one.id,
        "device_type": one.device or None,
        "device_id": one.device_id or None,
        "connected_at": one.connected_at,
        "instance_id": one.node,
    }
