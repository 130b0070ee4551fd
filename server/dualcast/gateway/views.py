"""Views of the native protocol (`?view=`, PROTO-66): who may have one, and what it says first.

A view is a stream of an older contract, named by `Endpoint.view`: its channels, its rules of admission, its
events. Connections, stages and positions are those of the native protocol.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal

from dualcast.dialects import native_views
from dualcast.dialects.legacy import Admission, Facts, Opening, Refusal
from dualcast.dialects.native_views import events_of
from dualcast.model.channel import ALL, user_channel
from dualcast.model.errors import BadRequest, BusUnavailable, Forbidden
from dualcast.model.principal import Principal
from dualcast.transport.views import ViewKind, ViewSocket, ViewState, ViewStream

from .opening import Openings
from .services import Access

Owner = Callable[[str, str], Awaitable[str | None]]
"""(tenant, `task:` or `batch:` channel) → the user it belongs to; None: there is no such."""
UNKNOWN = {"task": "unknown-task", "batch": "unknown-batch"}
"""Codes of refusals for what is not there, or somebody else's."""


class UnknownView(BadRequest):
    """The server has no view of that name."""

    code = "unknown-view"


class Views:
    """The views a server has, and what tells who may have them; one per process."""

    def __init__(self, kinds: Iterable[ViewKind] = (), owner: Owner | None = None) -> None:
        self._kinds = {kind.endpoint.view: kind for kind in kinds}
        self._owner = owner
        self._openings = Openings()

    def find(self, name: str) -> View:
        """The view `name`: that of an endpoint, with `:<value>` where its path has a parameter. Raises
        UnknownView."""
        word, colon, value = name.partition(":")
        kind = self._kinds.get(word)
        if kind is not None:
            _, brace, rest = kind.endpoint.path.partition("{")
            if bool(brace) == bool(colon) == bool(value):
                params = {rest.partition(":")[0]: value} if brace else {}
                return View(self._owner, self._openings, kind, name, params)
        raise UnknownView("there is no such view here")


class View:
    """One request for a view."""

    def __init__(
        self, owner: Owner | None, openings: Openings, kind: ViewKind, name: str, params: dict[str, str]
    ) -> None:
        self._owner = owner
        self._openings = openings
        self.kind = kind
        self.name = name
        self._params = params
        self._admission = Admission()
        self._state: ViewState

    def admit(self, principal: Principal, now_ms: int) -> list[str]:
        """The channels, in the order of `connect.requested_channels`. Raises Forbidden with what the contract
        says."""
        facts = Facts(
            tenant=principal.tenant, user=principal.sub, role=principal.role, admin=principal.is_admin
        )
        facts.params = self._params
        facts.now_ms = facts.opened_ms = now_ms
        admission = self.kind.endpoint.admit(facts)
        if isinstance(admission, Refusal):
            raise self._refused(admission)
        self._admission = admission
        self._state = ViewState(self.kind, self.name, facts)
        return list(dict.fromkeys((user_channel(principal.sub), ALL, *admission.channels)))

    async def check(self, access: Access, principal: Principal) -> None:
        """As at the stream's own door. Raises Forbidden with what the contract says, BusUnavailable."""
        channel = self._admission.owner_of
        if not channel:
            return
        owner = None
        if self._owner is not None:
            try:
                owner = await self._owner(principal.tenant, channel)
            except BadRequest:
                owner = None  # not an id
        if owner is not None:
            own = principal.is_admin or owner == principal.sub
            if own or await access.may_subscribe(principal, channel):
                return
        raise self._refused(self.kind.endpoint.not_found)

    def parts(
        self, transport: Literal["sse", "ws"], *, deflate: bool = False
    ) -> tuple[Callable[..., Any], dict[str, Any]]:
        """What makes the session, and with what beside that of every native one."""
        kind, state = self.kind, self._state
        if transport == "sse":
            return ViewStream, {"encoding": kind.sse, "dialect": native_views.STREAM, "view": state}
        encoding = kind.ws_deflate if deflate else kind.ws
        return ViewSocket, {"encoding": encoding, "dialect": native_views.SOCKET, "view": state}

    async def open(self, session: Any, *, resumed: bool, told: str) -> None:
        """Prepares what a session that is not attached yet says first. `told`: what the client was told of
        the state before, as it was named to it. Raises BusUnavailable."""
        endpoint, channel = self.kind.endpoint, self._admission.state_of
        state: Any = None
        if "state" in endpoint.wants and channel:
            found = await self._openings.open(session, channel, resumed=resumed, required=True)
            state, resumed, known = found
            if resumed and (known := _known(told)) is not None:
                self._openings.leave_out(session, channel, known)
            self._state.told = None if known is None else f"{known[0]}.{known[1]}"
            if state is None and not resumed and endpoint.ended is not None:
                raise BusUnavailable("the state cannot be read now", retry_after_s=2)
        opening = Opening(state=state, resumed=resumed)
        self._state.first = events_of(endpoint.first(self._state.facts, opening))

    def _refused(self, refusal: Refusal) -> Forbidden:
        code = UNKNOWN.get(self.kind.endpoint.view, "not-found") if refusal.status == 404 else "forbidden"
        found = Forbidden(refusal.detail, code=code)
        found.status = refusal.status
        return found


def _known(text: str) -> tuple[int, int] | None:
    """(revision, created_ms) in what `told` named; None: it is no such."""
    revision, _, created_ms = text.partition(".")
    if len(text) <= 64 and revision.isdecimal() and created_ms.isdecimal():
        return int(revision), int(created_ms)
    return None
