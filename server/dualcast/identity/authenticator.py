"""The one door: an ASGI scope → who is calling.

`try_cached` is synchronous and enough for nearly every reconnect; `authenticate` does the rest (first sight
of a token, tickets).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from msgspec import Struct

from dualcast.model.errors import Forbidden
from dualcast.model.principal import Principal

from .credentials import (
    Credential,
    Kind,
    Scope,
    Source,
    chosen_subprotocol,
    has_parameter,
    header_once,
    read_credential,
)
from .origin import ANY, BadOrigin, Origins
from .revocation import Revocations
from .tickets import Tickets, bad_ticket
from .tokens import TokenVerifier


class AuthSettings(Struct, frozen=True):
    """What requests may bring."""

    cookie_name: str = ""
    """Cookie that carries the token on native routes; "": cookies are not read. Prefer a `__Host-` name."""
    allowed_origins: tuple[str, ...] = ()
    """Pages that may open native WebSockets and use the cookie, beside pages of the same host."""
    legacy_allowed_origins: tuple[str, ...] = (ANY,)
    """Pages that may open legacy WebSockets; these never read cookies."""


class Authenticated(NamedTuple):
    """A caller who was let in."""

    principal: Principal
    source: Source
    subprotocol: str | None = None
    """What the WebSocket handshake must answer with; None: no such header."""
    ticket: str = ""
    """Id of the ticket that was used, not the ticket itself; "" for tokens."""


class _Admitted(NamedTuple):
    credential: Credential
    subprotocol: str | None
    page_allowed: bool
    """False: the node's allow-list does not name the page, the tenant's may."""


class Authenticator:
    """Reads the credential, checks where it may be used, verifies it."""

    def __init__(
        self,
        verifier: TokenVerifier,
        tickets: Tickets | None = None,
        revocations: Revocations | None = None,
        settings: AuthSettings | None = None,
        *,
        tenant_origins: Callable[[str], Sequence[str]] | None = None,
        all_origins: Callable[[], tuple[str, ...]] | None = None,
    ) -> None:
        """`tenant_origins`: the pages a tenant allows beside the node's list; `all_origins`: those of all
        tenants. Raises BadOrigin for an entry of the node's lists that is none.
        """
        self._tenant_origins = tenant_origins
        self._all_origins = all_origins
        self._verifier = verifier
        self._tickets = tickets
        self._revocations = revocations
        self._settings = settings or AuthSettings()
        self._origins = Origins(self._settings.allowed_origins)
        self._legacy_origins = Origins(self._settings.legacy_allowed_origins)

    def page_allowed(self, origin: str, cookie: bool) -> bool:
        """Whether pages of `origin` may read answers (CORS), with `cookie` also those to requests that carry
        cookies: pages the node or any tenant names. It says nothing of who may call: a cookie of another
        tenant is refused by `authenticate`.
        """
        if self._origins.allows(origin, cookie=cookie):
            return True
        return self._all_origins is not None and _parsed(self._all_origins()).allows(origin, cookie=cookie)

    def try_cached(self, scope: Scope, *, kind: Kind, native: bool) -> Authenticated | None:
        """`authenticate` without waiting; None: it has to be awaited. Raises what `authenticate` raises for a
        malformed request.
        """
        admitted = self._admit(scope, kind, native)
        return self._from_cache(scope, admitted)

    async def authenticate(self, scope: Scope, *, kind: Kind, native: bool) -> Authenticated:
        """Who is calling. `native`: the route is of the native protocol, not of a legacy contract.

        Raises Unauthorized (NoCredentials, MalformedAuthorization, TokenExpired among it), Forbidden
        (`origin`), BadRequest, KeysUnavailable, BusUnavailable (tickets).
        """
        admitted = self._admit(scope, kind, native)
        known = self._from_cache(scope, admitted)
        if known is not None:
            return known
        credential = admitted.credential
        if credential.source == "ticket":
            caller = await self._by_ticket(scope, credential.secret, kind, admitted.subprotocol)
        else:
            principal = await self._verifier.verify(credential.secret)
            caller = Authenticated(principal, credential.source, admitted.subprotocol)
        self._check_tenant_origin(scope, admitted, caller.principal.tenant)
        return caller

    async def refresh(self, old: Principal, token: str) -> Principal:
        """The principal that takes the place of `old` on a live connection.

        Raises Forbidden when the token is another user's or tenant's, and what `TokenVerifier.verify` raises.
        """
        new = await self._verifier.verify(token)
        same_tenant = hmac.compare_digest(old.tenant.encode(), new.tenant.encode())
        same_user = hmac.compare_digest(old.sub.encode(), new.sub.encode())
        if not (same_tenant and same_user):
            raise Forbidden("the new token is for somebody else")
        return new

    def _admit(self, scope: Scope, kind: Kind, native: bool) -> _Admitted:
        """The credential, once the Origin rules of the node let it be used, or leave that to the tenant's."""
        subprotocol = None
        page_allowed = True
        if kind == "websocket":
            subprotocol = chosen_subprotocol(scope)
            origins = self._origins if native else self._legacy_origins
            page_allowed = _allowed(scope, origins, cookie=False)
            if not page_allowed and not native:
                raise _origin_refused()  # before the credential: a legacy route may do without one
        credential = read_credential(scope, kind=kind, native=native, cookie_name=self._settings.cookie_name)
        if credential.source == "cookie":
            page_allowed = page_allowed and _allowed(scope, self._origins, cookie=True)
        if not page_allowed and self._tenant_origins is None:
            raise _origin_refused()
        return _Admitted(credential, subprotocol, page_allowed)

    def _check_tenant_origin(self, scope: Scope, admitted: _Admitted, tenant: str) -> None:
        if admitted.page_allowed:
            return
        entries = tuple(self._tenant_origins(tenant)) if self._tenant_origins is not None else ()
        if not _allowed(scope, _parsed(entries), cookie=admitted.credential.source == "cookie"):
            raise _origin_refused()

    def _from_cache(self, scope: Scope, admitted: _Admitted) -> Authenticated | None:
        credential = admitted.credential
        principal = None if credential.source == "ticket" else self._verifier.cached(credential.secret)
        if principal is None:
            return None
        self._check_tenant_origin(scope, admitted, principal.tenant)
        return Authenticated(principal, credential.source, admitted.subprotocol)

    async def _by_ticket(
        self, scope: Scope, ticket: str, kind: Kind, subprotocol: str | None
    ) -> Authenticated:
        if self._tickets is None or kind == "http":
            raise bad_ticket()
        resuming = bool(header_once(scope["headers"], b"last-event-id")) or has_parameter(scope, ("cursor",))
        principal, ticket_id = await self._tickets.redeem(ticket, kind, resuming=resuming)
        revoked = self._revocations is not None and self._revocations.is_revoked(principal)
        if revoked or not await self._verifier.vouches_for(principal):
            await self._tickets.revoke(ticket_id)
            raise bad_ticket()
        return Authenticated(principal, "ticket", subprotocol, ticket_id)


def _origin_refused() -> Forbidden:
    return Forbidden("origin not allowed", code="origin")


def _allowed(scope: Scope, origins: Origins, *, cookie: bool) -> bool:
    headers = scope["headers"]
    origin = header_once(headers, b"origin")
    if origin is None and cookie and header_once(headers, b"sec-fetch-site") == b"same-origin":
        # Browsers send no Origin with a same-origin GET, EventSource included; no page can forge this header.
        return True
    return origins.allows(
        None if origin is None else origin.decode("latin-1"),
        host=(header_once(headers, b"host") or b"").decode("latin-1"),
        secure=scope.get("scheme") in ("https", "wss"),
        cookie=cookie,
    )


@lru_cache(maxsize=1024)
def _parsed(entries: tuple[str, ...]) -> Origins:
    """Entries of tenants; one that is none lets nobody in."""
    return Origins(entry for entry in entries if _is_entry(entry))


def _is_entry(entry: str) -> bool:
    try:
        Origins((entry,))
    except BadOrigin:
        return False
    return True
