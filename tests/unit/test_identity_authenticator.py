"""The one door: tokens, tickets, cookies, origins, refresh, and that nothing of a token is left anywhere."""

from __future__ import annotations

import logging
import time
import traceback
from typing import Any

import pytest

from dualcast.identity.authenticator import Authenticator, AuthSettings
from dualcast.identity.credentials import NoCredentials
from dualcast.identity.keys import StaticKeys
from dualcast.identity.revocation import Revocations
from dualcast.identity.tickets import Tickets
from dualcast.identity.tokens import TokenVerifier
from dualcast.model.errors import DualcastError, Forbidden, TokenExpired, Unauthorized
from dualcast.state.memory import MemoryState
from support import tokens

pytestmark = pytest.mark.anyio

A = tokens.key(tenant="tenant-a")
PAGE = (b"origin", b"https://app.example.com")
EVIL = (b"origin", b"https://evil.example")


class Rig:
    def __init__(self, **options: Any) -> None:
        self.store = MemoryState()
        self.revocations = Revocations(self.store)
        self.tickets = Tickets(self.store)
        self.source = StaticKeys([tokens.key().verification(), A.verification()])
        self.verifier = TokenVerifier(self.source, revocations=self.revocations)
        self.settings = AuthSettings(cookie_name="dc", allowed_origins=("https://app.example.com",))
        self.auth = Authenticator(self.verifier, self.tickets, self.revocations, self.settings, **options)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def scope(headers: Any = (), query: bytes = b"", **more: Any) -> dict[str, Any]:
    return {
        "scheme": "ws",
        "headers": [(b"host", b"api.example.com"), *headers],
        "query_string": query,
        **more,
    }


async def test_first_sight_then_synchronous(rig: Rig) -> None:
    request = scope(tokens.bearer(tokens.token()))
    assert rig.auth.try_cached(request, kind="sse", native=True) is None
    caller = await rig.auth.authenticate(request, kind="sse", native=True)
    assert (caller.principal.sub, caller.source, caller.subprotocol, caller.ticket) == (
        "alice",
        "header",
        None,
        "",
    )
    assert rig.auth.try_cached(request, kind="sse", native=True) == caller


async def test_subprotocol(rig: Rig) -> None:
    request = scope(subprotocols=["dualcast", "bearer." + tokens.token()])
    caller = await rig.auth.authenticate(request, kind="websocket", native=True)
    assert (caller.source, caller.subprotocol) == ("subprotocol", "dualcast")


async def test_ticket_for_a_socket(rig: Rig) -> None:
    alice = await rig.verifier.verify(tokens.token())
    ticket = await rig.tickets.issue(alice, "websocket")
    request = scope([PAGE], b"ticket=" + ticket.encode())
    assert rig.auth.try_cached(request, kind="websocket", native=True) is None
    caller = await rig.auth.authenticate(request, kind="websocket", native=True)
    assert (caller.principal, caller.source) == (alice, "ticket")
    assert caller.ticket and ticket not in caller.ticket
    with pytest.raises(Unauthorized):
        await rig.auth.authenticate(request, kind="websocket", native=True)


async def test_a_header_decides_alone_and_leaves_the_ticket_unused(rig: Rig) -> None:
    alice = await rig.verifier.verify(tokens.token())
    ticket = await rig.tickets.issue(alice, "websocket")
    query = b"ticket=" + ticket.encode()
    with pytest.raises(Unauthorized):
        await rig.auth.authenticate(scope(tokens.bearer("bad"), query), kind="websocket", native=True)
    assert (await rig.auth.authenticate(scope((), query), kind="websocket", native=True)).principal == alice


async def test_ticket_for_a_stream_and_its_reconnects(rig: Rig) -> None:
    alice = await rig.verifier.verify(tokens.token())
    ticket = await rig.tickets.issue(alice, "sse")
    query = b"ticket=" + ticket.encode()
    first = await rig.auth.authenticate(scope((), query), kind="sse", native=True)
    for request in (scope([(b"last-event-id", b"e-1")], query), scope((), query + b"&cursor=e-1")):
        assert await rig.auth.authenticate(request, kind="sse", native=True) == first
    await rig.revocations.revoke_token("default", alice.token_id)
    with pytest.raises(Unauthorized, match="bad ticket"):
        await rig.auth.authenticate(scope((), query), kind="sse", native=True)
    assert not await rig.tickets.revoke(first.ticket)  # gone with its principal


async def test_a_ticket_ends_with_the_key_behind_it(rig: Rig) -> None:
    ticket = await rig.tickets.issue(await rig.verifier.verify(tokens.token()), "sse")
    request = scope((), b"ticket=" + ticket.encode())
    await rig.auth.authenticate(request, kind="sse", native=True)
    rig.source.replace([A.verification()])
    for _ in range(2):
        with pytest.raises(Unauthorized, match="bad ticket"):
            await rig.auth.authenticate(request, kind="sse", native=True)


async def test_tickets_open_no_rest_and_no_legacy_route(rig: Rig) -> None:
    ticket = await rig.tickets.issue(await rig.verifier.verify(tokens.token()), "sse")
    request = scope((), b"ticket=" + ticket.encode())
    for kind, native in (("http", True), ("http", False), ("sse", False), ("websocket", False)):
        with pytest.raises(NoCredentials):
            await rig.auth.authenticate(request, kind=kind, native=native)  # type: ignore[arg-type]


async def test_cookie_only_with_an_allowed_page(rig: Rig) -> None:
    cookie = (b"cookie", b"dc=" + tokens.token().encode())
    same = (b"origin", b"http://api.example.com")
    for kind in ("http", "sse", "websocket"):
        for page in (PAGE, same):
            caller = await rig.auth.authenticate(scope([cookie, page]), kind=kind, native=True)  # type: ignore[arg-type]
            assert caller.source == "cookie"
        for bad in (
            [cookie, EVIL],
            [cookie, (b"origin", b"null")],
            [cookie],
            [cookie, (b"sec-fetch-site", b"cross-site")],
        ):
            with pytest.raises(Forbidden, match="origin not allowed"):
                await rig.auth.authenticate(scope(bad), kind=kind, native=True)  # type: ignore[arg-type]
            with pytest.raises(Forbidden):
                rig.auth.try_cached(scope(bad), kind=kind, native=True)  # type: ignore[arg-type]
        with pytest.raises(NoCredentials):
            await rig.auth.authenticate(scope([cookie, PAGE]), kind=kind, native=False)  # type: ignore[arg-type]


async def test_same_origin_event_source_sends_no_origin(rig: Rig) -> None:
    cookie = (b"cookie", b"dc=" + tokens.token().encode())
    request = scope([cookie, (b"sec-fetch-site", b"same-origin")])
    assert (await rig.auth.authenticate(request, kind="sse", native=True)).source == "cookie"
    with pytest.raises(Forbidden):
        await rig.auth.authenticate(
            scope([cookie, (b"sec-fetch-site", b"same-origin"), EVIL]), kind="sse", native=True
        )


async def test_pages_of_native_and_legacy_sockets(rig: Rig) -> None:
    head = tokens.bearer(tokens.token())
    with pytest.raises(Forbidden) as refusal:
        await rig.auth.authenticate(scope([*head, EVIL]), kind="websocket", native=True)
    assert refusal.value.code == "origin"
    for allowed in ([*head, PAGE], head):
        await rig.auth.authenticate(scope(allowed), kind="websocket", native=True)
    await rig.auth.authenticate(scope([*head, EVIL]), kind="websocket", native=False)
    await rig.auth.authenticate(scope([*head, EVIL]), kind="sse", native=True)


async def test_a_tenant_may_allow_pages_of_its_own() -> None:
    lists = {"tenant-a": ["https://evil.example"], "default": ["not an origin"]}
    rig = Rig(tenant_origins=lambda tenant: lists[tenant])
    mine = scope([*tokens.bearer(tokens.token(A, tenant="tenant-a")), EVIL])
    for _ in range(2):
        await rig.auth.authenticate(mine, kind="websocket", native=True)
    assert rig.auth.try_cached(mine, kind="websocket", native=True)
    other = scope([*tokens.bearer(tokens.token()), EVIL])
    for _ in range(2):
        with pytest.raises(Forbidden):
            await rig.auth.authenticate(other, kind="websocket", native=True)


async def test_a_tenant_that_allows_every_page_does_not_open_its_cookies() -> None:
    rig = Rig(tenant_origins=lambda tenant: ["*"])
    cookie = (b"cookie", b"dc=" + tokens.token().encode())
    for _ in range(2):
        with pytest.raises(Forbidden):
            await rig.auth.authenticate(scope([cookie, EVIL]), kind="websocket", native=True)


async def test_refresh_in_place(rig: Rig) -> None:
    old = await rig.verifier.verify(tokens.token(exp=int(time.time()) + 10))
    new = await rig.auth.refresh(old, tokens.token(role="admin"))
    assert new.expires_at > old.expires_at and new.is_admin
    for foreign in (tokens.token(sub="bob"), tokens.token(A, tenant="tenant-a")):
        with pytest.raises(Forbidden):
            await rig.auth.refresh(old, foreign)
    with pytest.raises(TokenExpired):
        await rig.auth.refresh(old, tokens.token(exp=int(time.time()) - 60))


async def test_revocation_reaches_cached_tokens(rig: Rig) -> None:
    request = scope(tokens.bearer(tokens.token()))
    await rig.auth.authenticate(request, kind="sse", native=True)
    await rig.revocations.revoke_user("default", "alice")
    assert rig.auth.try_cached(request, kind="sse", native=True) is None
    with pytest.raises(Unauthorized):
        await rig.auth.authenticate(request, kind="sse", native=True)


def everything_said(error: BaseException) -> str:
    """Texts and reprs of an exception, of all it came from, and the traceback as a logger writes it."""
    return (
        "".join(traceback.format_exception(error))
        + repr(error)
        + repr(error.__context__)
        + repr(error.__cause__)
    )


async def test_no_token_in_any_exception_or_log_record(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    good = tokens.token()
    head, body, signature = good.split(".")
    ticket = await rig.tickets.issue(await rig.verifier.verify(tokens.token(sub="x")), "websocket")
    secrets = [
        good,
        tokens.token(exp=int(time.time()) - 100),
        tokens.token(sub=None),
        tokens.token(roles=5),
        tokens.token(channels=["secret-pattern"]),
        tokens.token(tenant="tenant-a"),
        f"{head}.{body}.{signature[:-4]}AAAA",
        tokens.forge({"alg": "none"}, tokens.claims()),
        tokens.forge({"alg": "HS256"}, b"\xff\xff\xff\xff\xff\xff"),
        "not-a-token-but-a-password",
        "x" * 8000,
        ticket,
    ]
    said = []
    for secret in secrets:
        raw = secret.encode()
        for request, kind in (
            (scope(tokens.bearer(secret)), "sse"),
            (scope([(b"authorization", b"Basic " + raw)]), "sse"),
            (scope([(b"authorization", raw)]), "sse"),
            (scope((), b"token=" + raw), "sse"),
            (scope((), b"token=" + raw + b"&token=" + raw), "sse"),
            (scope((), b"ticket=" + raw), "websocket"),
            (scope((), b"ticket=" + raw), "sse"),
            (scope([(b"cookie", b"dc=" + raw)]), "sse"),
            (scope([(b"cookie", b"dc=" + raw + b"\xff"), PAGE]), "sse"),
            (scope(subprotocols=["bearer." + secret]), "websocket"),
            (scope(subprotocols=["dualcast", "bearer." + secret]), "websocket"),
        ):
            try:
                caller = await rig.auth.authenticate(request, kind=kind, native=True)  # type: ignore[arg-type]
                said.append(repr(caller))
            except DualcastError as error:
                said.append(everything_said(error))
                assert error.__context__ is None and error.__cause__ is None
        try:
            await rig.auth.refresh(await rig.verifier.verify(good), secret)
        except DualcastError as error:
            said.append(everything_said(error))
    said += [record.getMessage() + repr(record.args) + str(record.exc_info) for record in caplog.records]
    text = "\n".join(said)
    assert len(said) > 100
    owner = ticket.split(".")[1]  # names a user's tickets in the store; no secret
    for secret in secrets:
        for part in [secret, *(part for part in secret.split(".") if len(part) > 12 and part != owner)]:
            assert part not in text
