"""The live connections of this node: listing them, and closing them on command or revocation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from itertools import islice

from dualcast.hub.subscriber import Subscriber
from dualcast.identity.jwks import KeysUnavailable
from dualcast.identity.revocation import Revocations
from dualcast.model.channel import user_channel
from dualcast.model.codes import Close
from dualcast.model.principal import Principal
from dualcast.session.node import Node
from dualcast.session.session import Session
from dualcast.state.port import StateStore

from .commands import SKEW_S, read_close
from .services import ConnectionInfo


class Directory:
    """A `services.ConnectionDirectory` over the node's sessions."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._rekeyed: dict[str, int] = {}
        """Tenant → how often its keys were looked at."""

    def list(
        self, tenant: str, user: str | None = None, after: str = "", limit: int = 100
    ) -> list[ConnectionInfo]:
        sessions = self._of(tenant, user)
        newer = (session for session in sessions if session.id > after)
        return [self._info(session) for session in islice(newer, limit)]

    def find(self, tenant: str, connection: str) -> ConnectionInfo | None:
        """One connection of this node; None: the tenant has no such here."""
        session = self._node.hub.sessions.get(connection)
        if not isinstance(session, Session) or session.principal.tenant != tenant:
            return None
        return self._info(session)

    def _of(self, tenant: str, user: str | None) -> Iterable[Session]:
        """Sessions oldest first, which is also the order of their ids. Those of a user are found by the
        channel each of them has, so that asking for them does not cost more the more others there are.
        """
        among: Iterable[Subscriber] = self._node.hub.sessions.values()
        if user is not None:
            channel = self._node.hub.known(tenant, user_channel(user))
            among = channel.sessions if channel is not None else ()
        for session in list(among):
            if (
                isinstance(session, Session)
                and session.principal.tenant == tenant
                and (user is None or session.principal.sub == user)
            ):
                yield session

    def _info(self, session: Session) -> ConnectionInfo:
        age_s = self._node.loop.time() - session.attached_at
        connected = datetime.fromtimestamp(self._node.now_s() - age_s, UTC)
        return ConnectionInfo(
            id=session.id,
            user=session.principal.sub,
            transport=session.encoding.transport,
            dialect=session.dialect.name,
            channels=tuple(feed.name for feed in session.channels),
            connected_at=connected.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            token_id=session.principal.token_id,
            device=session.device,
            device_id=session.device_id,
            instance=session.instance,
            cursor=session.cursor or "",
            live=session.live,
            node=self._node.id,
        )

    def close(
        self,
        tenant: str,
        *,
        connection: str = "",
        user: str = "",
        token_id: str = "",
        code: Close,
        opened_before_s: float = float("inf"),
    ) -> int:
        """Closes what matches every member that is not empty and was open at Unix time `opened_before_s`;
        returns
        how many connections that were.
        """
        opened_by = self._node.loop.time() - self._node.now_s() + opened_before_s
        matching = [
            session
            for session in self._of(tenant, user or None)
            if session.attached_at <= opened_by
            and (not connection or session.id == connection)
            and (not token_id or session.principal.token_id == token_id)
        ]
        for session in matching:
            session.close(code)
        return len(matching)

    async def rekeyed(self, tenant: str, vouches_for: Callable[[Principal], Awaitable[bool]]) -> None:
        """Ends the sessions of `tenant` whose token no key of it vouches for any more (a key was removed).

        Returns at once: a tenant's identity provider may be slow or away, and nobody else's changes wait for
        it. Whose keys cannot be fetched is asked about again until they can.
        """
        turn = self._rekeyed[tenant] = self._rekeyed.get(tenant, 0) + 1
        self._node.spawn(self._end_unvouched(tenant, turn, vouches_for))

    async def _end_unvouched(
        self, tenant: str, turn: int, vouches_for: Callable[[Principal], Awaitable[bool]]
    ) -> None:
        # Anonymous callers and those of demo tokens have no key.
        left = [session for session in self._of(tenant, None) if session.principal.key_id]
        while left:
            unknown: list[Session] = []
            wait_s = 0.0
            for session in left:
                if self._rekeyed[tenant] != turn:
                    return  # a later change looks at all of them again
                if session.closed:
                    continue
                try:
                    if not await vouches_for(session.principal):
                        session.expire("token revoked")
                except KeysUnavailable as error:
                    unknown.append(session)
                    wait_s = error.retry_after_s or 1.0
            left = unknown
            await asyncio.sleep(wait_s)

    def revoked(self, revocations: Revocations) -> None:
        """Ends every session whose token has been revoked (a callback of `Revocations`)."""
        for session in list(self._node.hub.sessions.values()):
            if isinstance(session, Session) and revocations.is_revoked(session.principal):
                session.expire("token revoked")


class CloseFollower:
    """Carries out close commands as the change log of the state store names them."""

    def __init__(self, store: StateStore, directory: Directory) -> None:
        self._store = store
        self._directory = directory

    async def changed(self, key: str) -> None:
        """A command was written. Raises BusUnavailable."""
        command = await read_close(self._store, key)
        if command is None:
            return
        code = Close(command.code) if command.code in Close.__members__.values() else Close.REVOKED
        self._directory.close(
            command.tenant,
            connection=command.connection,
            user=command.user,
            token_id=command.token_id,
            code=code,
            opened_before_s=command.at_s + SKEW_S,
        )

    async def resync(self) -> None:
        """Commands written while the node was away: carried out too, they live for a minute."""
        after = ""
        while page := await self._store.list("close", after=after, limit=100):
            after = page[-1].key
            for value in page:
                await self.changed(value.key)
