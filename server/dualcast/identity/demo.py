"""Demo tokens of `serve --dev` (docs/contracts/legacy-wire.md section 1.9): what old demo pages and scripts
send in place of a token. Nothing here exists without the flag, and the native API never takes them.
"""

from __future__ import annotations

from collections import OrderedDict

from dualcast.model.channel import check_id
from dualcast.model.errors import BadChannel, DualcastError
from dualcast.model.principal import ADMIN, Principal

from .authenticator import Authenticated, Authenticator
from .credentials import Kind, Scope, read_credential

DEMO_USER = "demo-user"
_NATIVE = "/v1/"
_MAX_REMEMBERED = 1000


def is_demo_token(token: str) -> bool:
    """Whether `token` is one of those."""
    return token in ("demo-token", "admin") or token.startswith("test-token-")


class DemoAuthenticator:
    """An `Authenticator` in front of the real one."""

    def __init__(self, inner: Authenticator, tenant: str) -> None:
        """`tenant`: whose users they are."""
        self._inner = inner
        self._tenant = tenant
        self._last: OrderedDict[str, str] = OrderedDict()
        """Token → the id it was last used with on a socket."""

    def page_allowed(self, origin: str, cookie: bool) -> bool:
        return self._inner.page_allowed(origin, cookie)

    async def refresh(self, old: Principal, token: str) -> Principal:
        return await self._inner.refresh(old, token)

    def try_cached(self, scope: Scope, *, kind: Kind, native: bool) -> Authenticated | None:
        """See `Authenticator.try_cached`."""
        return self._demo(scope, kind, native) or self._inner.try_cached(scope, kind=kind, native=native)

    async def authenticate(self, scope: Scope, *, kind: Kind, native: bool) -> Authenticated:
        """See `Authenticator.authenticate`."""
        found = self._demo(scope, kind, native)
        return found or await self._inner.authenticate(scope, kind=kind, native=native)

    def _demo(self, scope: Scope, kind: Kind, native: bool) -> Authenticated | None:
        if scope["path"].startswith(_NATIVE):
            return None
        try:
            credential = read_credential(scope, kind=kind, native=native)
        except DualcastError:
            return None  # the real one says what is wrong
        token = credential.secret
        if not is_demo_token(token):
            return None
        if token == "admin":  # noqa: S105 — it opens nothing but a demo
            principal = Principal(self._tenant, "admin", frozenset({ADMIN}), role=ADMIN)
        else:
            principal = Principal(self._tenant, self._user(scope, kind, token))
        return Authenticated(principal, credential.source)

    def _user(self, scope: Scope, kind: Kind, token: str) -> str:
        named = id_in_path(scope)
        if not named:
            return self._last.get(token, DEMO_USER)
        if kind == "websocket":
            self._last[token] = named
            self._last.move_to_end(token)
            while len(self._last) > _MAX_REMEMBERED:
                self._last.popitem(last=False)
        return named


def id_in_path(scope: Scope) -> str:
    """The user a path names (a client id up to its first colon), "" when it names none."""
    parameters = scope.get("path_params") or {}
    named = str(parameters.get("user_id") or str(parameters.get("client_id", "")).partition(":")[0])
    try:
        return check_id(named)
    except BadChannel:
        return ""
