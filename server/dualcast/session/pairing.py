"""The sockets and streams of one instance, brought together: which stream is muted, by which socket.

The rules are pure (`dualcast_migration.muting`); here is who they are asked about and when. One index per
node, of sessions whose decision may pair; sessions on other nodes come as rows (`dualcast.pairing`). Nothing
here is called in fan-out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from dualcast.model.channel import key_part
from dualcast.pairing.port import Name, Row
from dualcast_migration.muting import SocketFacts, may_mute, may_stay, moved, pair_key, pairs_of
from dualcast_migration.policy import Decision

from .instances import NOBODY, Group, Member, channels_of
from .node import Node


class Told(Protocol):
    """Who hears that a session came, went or changed, to tell the other nodes: `pairing.exchange`."""

    def changed(self, name: Name, *, anew: bool = False) -> None: ...


class Alone:
    """The `Told` of a node that is the only one."""

    def changed(self, name: Name, *, anew: bool = False) -> None: ...


class Pairing:
    """One per node; `node.pairing`. Sessions call it, and the exchange with other nodes (`Listener`)."""

    def __init__(self, node: Node, far: Told | None = None) -> None:
        self._node = node
        self._far: Told = far or Alone()
        self._groups: dict[str, Group] = {}
        self.mutes = 0
        self.unmutes = 0

    # ── what sessions say ──

    def attached(self, session: Any) -> None:
        """It is about to be welcomed: it has its position and its channels, and nothing was written."""
        self._enter(session, late=False)

    def left(self, session: Any) -> None:
        """It has ended, or pairs no more."""
        member: Member | None = session.pair
        if member is None:
            return
        session.pair = None
        group = member.group
        if member.is_socket:
            group.sockets.remove(member)
            self._recheck(group)
        else:
            group.streams.remove(member)
            session.muted = False
            for socket in group.sockets:
                socket.forget(frozenset((session.id,)))  # no need to say so: nobody asks for it any more
        if not group.sockets and not group.streams:
            self._groups.pop(group.key, None)
        self._far.changed(member.name)

    def receipt(self, session: Any, offset: int) -> None:
        """Its client has read everything up to `offset`."""
        member: Member = session.pair
        if not member.is_socket or not member.mutes:
            return
        member.confirmed = max(member.confirmed, offset)
        member.vouched = member.stands_for
        if member.start < 0:
            member.start = offset  # it began from now, and now was not known then
        group = member.group
        for stream in list(group.streams):
            if stream.by == (session.id, member.life):
                stream.session.position = moved(stream.session.position, member.socket_facts())
            elif stream.by is None:
                self._consider(stream)
        if group.far_streams:
            self._far.changed(member.name)

    def changed(self, session: Any) -> None:
        """Its channels or its principal are others now."""
        member: Member = session.pair
        before = member.channels, member.roles
        member.channels, member.roles = channels_of(session), session.principal.roles
        lost = not (member.channels >= before[0] and member.roles >= before[1])
        grown = not (member.channels <= before[0] and member.roles <= before[1])
        if not member.is_socket:
            if grown and member.by is not None:
                self._release(member)
            return
        if lost:
            member.begin_life()
        if lost or grown:
            member.start = max(member.start, session.offset)
            self._recheck(member.group)
            self._far.changed(member.name)

    def broken(self, session: Any, through: int) -> None:
        """There is a hole in what it delivers: a gap, a resume, another epoch. `through`: up to there it had
        been written."""
        member: Member = session.pair
        if member.is_socket:
            member.begin_life()
            member.start = max(member.start, through, session.offset)
            self._recheck(member.group)
            self._far.changed(member.name)
        elif member.by is not None:
            self._unmute(member)

    def caught_up(self, session: Any) -> None:
        """It is live."""
        member: Member = session.pair
        if not member.is_socket and member.by is None:
            self._consider(member)

    def asks(self, session: Any) -> bool:
        """Whether a receipt is wanted from a socket now; asked once per sweep. One that owes it for too long
        mutes nobody until it comes."""
        member: Member = session.pair
        group = member.group
        alone = not (group.streams or group.far_streams)
        if not member.mutes or alone or session.offset <= member.confirmed:
            member.unread = 0
            return False
        member.unread = 0 if member.confirmed > member.seen else member.unread + 1
        member.seen = member.confirmed
        settings = self._node.settings
        if member.confirmed >= 0 and member.unread * settings.sweep_s > settings.dead_after_s:
            member.confirmed = -1
            self._recheck(group)
            self._far.changed(member.name)
        return True

    def decision_changed(self, session: Any, decision: Decision) -> None:
        """The tenant's stage is another one for this user."""
        pairs = pairs_of(decision)
        if pairs == session.pairs or session.closed:
            return
        muted = session.muted
        self.left(session)
        session.pairs = pairs
        if muted:
            self.unmutes += 1
            session.unmute()
        if session.connections is not None:
            self._enter(session, late=True)

    def siblings(self, session: Any) -> list[Any]:
        """The other sessions of its instance on this node."""
        member: Member | None = session.pair
        if member is None:
            return []
        group = member.group
        return [one.session for one in (*group.sockets, *group.streams) if one is not member]

    # ── what other nodes say (pairing.exchange.Listener) ──

    def row(self, name: Name) -> Row | None:
        key, ident = name
        group = self._groups.get(key)
        for member in (*group.sockets, *group.streams) if group is not None else ():
            if member.session.id == ident and member.mutes:
                return Row(ident, member.socket_facts() if member.is_socket else None)
        return None

    def names(self) -> list[Name]:
        groups = self._groups.values()
        return [one.name for group in groups for one in (*group.sockets, *group.streams) if one.mutes]

    def news(self, key: str, rows: Sequence[Row]) -> None:
        group = self._groups.get(key)
        if group is None:
            return
        sockets = {row.connection: row.socket for row in rows if row.socket is not None}
        streams = frozenset(row.connection for row in rows if row.socket is None)
        if group.doubted:
            group.doubted -= {row.connection for row in rows}
            kept = {one: facts for one, facts in group.far_sockets.items() if one in group.doubted}
            sockets = kept | sockets
            streams |= group.far_streams & group.doubted
        self._take(group, sockets, streams)

    def doubt(self) -> None:
        for group in self._groups.values():
            group.doubted = group.far_streams.union(group.far_sockets)

    def settle(self) -> None:
        for group in list(self._groups.values()):
            if over := group.doubted:
                group.doubted = NOBODY
                left = {one: facts for one, facts in group.far_sockets.items() if one not in over}
                self._take(group, left, group.far_streams - over)

    def forget(self) -> None:
        for group in list(self._groups.values()):
            group.doubted = NOBODY
            self._take(group, {}, NOBODY)

    def gauges(self) -> dict[str, float]:
        """For `/metrics`."""
        muted = sum(stream.by is not None for group in self._groups.values() for stream in group.streams)
        return {
            "sessions_muted": float(muted),
            "instances": float(len(self._groups)),
            "mutes": float(self.mutes),
            "unmutes": float(self.unmutes),
        }

    # ── who is muted ──

    def _enter(self, session: Any, *, late: bool) -> None:
        """`late`: it has been delivering for a while, and its id is known to publishers."""
        if session.dialect.name != "native":
            return
        principal = session.principal
        key = pair_key(principal.tenant, principal.sub, session.instance, session.pairs)
        if key and session.view_name:
            key += f"/view/{key_part(session.view_name)}"
        if not key:
            return
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(key)
        member = session.pair = Member(session, group)
        if member.is_socket:
            group.sockets.append(member)
            near = {stream.session.id for stream in group.streams if stream.mutes}
            member.stands_for = group.far_streams.union(near)
        else:
            group.streams.append(member)
            if member.mutes:
                self._stand_for(group.sockets, frozenset((session.id,)), since_now=late)
                self._consider(member)
        if member.mutes:
            self._far.changed(member.name, anew=late)  # the others may not have noticed that it was away

    def _stand_for(self, sockets: Iterable[Member], streams: frozenset[str], *, since_now: bool) -> None:
        """The sockets are due what is addressed to these connections, and are asked whether they live: a page
        may have opened the stream because its socket is dead. `since_now`: something may have been addressed
        to them before, and passed the sockets by."""
        for socket in list(sockets):
            if socket.mutes:
                socket.stands_for |= streams
                if since_now:
                    socket.start = max(socket.start, socket.session.offset)
                self._far.changed(socket.name)
                socket.session.ping()

    def _take(self, group: Group, sockets: dict[str, SocketFacts], streams: frozenset[str]) -> None:
        added, gone = streams - group.far_streams, group.far_streams - streams
        group.far_sockets, group.far_streams = sockets, streams
        if added:
            self._stand_for(group.sockets, added, since_now=True)
        if gone:
            for socket in group.sockets:
                # The id may come back when its node was only slow: who was muted must not rely on the time
                # between.
                socket.forget(gone)
                socket.begin_life()
                self._far.changed(socket.name)
        self._recheck(group)
        for stream in list(group.streams):
            if stream.by is None:
                self._consider(stream)
            elif (facts := sockets.get(stream.by[0])) is not None:
                stream.session.position = moved(stream.session.position, facts)

    def _consider(self, stream: Member) -> None:
        if not stream.mutes or stream.session.closed or stream.session.offset < 0:
            return
        if (by := self._found(stream)) is not None:
            stream.session.mute()
            self.mutes += 1
            self._set(stream, by)

    def _found(self, stream: Member) -> SocketFacts | None:
        facts = stream.stream_facts()
        return next((socket for socket in stream.group.muting() if may_mute(socket, facts)), None)

    @staticmethod
    def _set(stream: Member, by: SocketFacts) -> None:
        stream.by = by.id, by.life
        stream.session.position = moved(stream.session.position, by)

    def _recheck(self, group: Group) -> None:
        for stream in list(group.streams):
            if stream.by is None:
                continue
            socket = group.socket(stream.by[0])
            if socket is None or not may_stay(socket, stream.stream_facts(), stream.by[1]):
                self._release(stream)

    def _release(self, stream: Member) -> None:
        """Its socket does not cover it any more: the next that does, else it delivers itself."""
        if (by := self._found(stream)) is not None:
            self._set(stream, by)
        else:
            self._unmute(stream)

    def _unmute(self, stream: Member) -> None:
        stream.by = None
        self.unmutes += 1
        stream.session.unmute()
