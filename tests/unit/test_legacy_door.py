"""Pieces of the way in: repeated refusals, paths, demo tokens, texts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dualcast.dialects.legacy import LegacySettings
from dualcast.dialects.legacy_text import canonical, contract_times, cursor_of, sse_block
from dualcast.gateway.legacy.paths import Paths
from dualcast.gateway.legacy.refusals import RepeatedRefusals, problem, problem_headers
from dualcast.gateway.legacy.routes import route
from dualcast.identity.demo import DemoAuthenticator
from dualcast.model.errors import Unauthorized
from dualcast.model.publication import Entry, Publication
from support import legacy_toy as toy


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_fourth_refusal_within_a_minute_is_early_until_a_minute_is_quiet() -> None:
    clock = Clock()
    table = RepeatedRefusals(clock=clock)
    early = []
    for _ in range(6):
        early.append(table.note("/a", "token"))
        clock.now += 10
    assert early == [False, False, False, True, True, True]
    assert not table.note("/b", "token")
    assert not table.note("/a", "other")
    clock.now += 49  # 59 s since the last
    assert table.note("/a", "token")
    clock.now += 60
    assert [table.note("/a", "token") for _ in range(4)] == [False, False, False, True]


def test_slow_refusals_are_never_early() -> None:
    clock = Clock()
    table = RepeatedRefusals(clock=clock)
    for _ in range(20):
        assert not table.note("/a", "token")
        clock.now += 30


def test_the_table_of_refusals_is_bounded() -> None:
    table = RepeatedRefusals(max_keys=10, clock=Clock())
    for _ in range(3):
        table.note("/a", "first")
    for number in range(100):
        table.note("/a", str(number))
    assert len(table) == 10
    assert not table.note("/a", "first")


def test_problems_are_what_older_clients_know() -> None:
    assert problem(401, "Unauthorized") == (
        b'{"type":"about:blank","title":"Unauthorized","status":401,"detail":"Unauthorized"}'
    )
    assert problem_headers(401)["www-authenticate"] == "Bearer"
    assert problem_headers(503, retry_after_s=5.0)["retry-after"] == "5"
    assert "retry-after" not in problem_headers(404)


# ── paths ──


@pytest.fixture
def paths() -> Paths:
    made = [
        toy.socket_endpoint(path="/api/ws"),
        toy.socket_endpoint(path="/api/v1/ws/{user_id:str}"),
        toy.stream_endpoint(path="/api/stream/tasks/{task_id:str}"),
    ]
    legacy: Any = type("Legacy", (), {"registry": None, "settings": LegacySettings()})()
    return Paths([route(legacy, endpoint) for endpoint in made], ["/api/v1/ws/stats"])


def found(paths: Paths, kind: str, raw: str) -> dict[str, str] | None:
    from urllib.parse import unquote

    scope: dict[str, Any] = {"type": kind, "path": unquote(raw), "raw_path": raw.encode()}
    return None if paths.find(scope) is None else scope.get("path_params", {})


def test_paths_are_matched_as_they_were_sent(paths: Paths) -> None:
    assert found(paths, "websocket", "/api/ws") == {}
    assert found(paths, "websocket", "/api/v1/ws/alice") == {"user_id": "alice"}
    assert found(paths, "websocket", "/api/v1/ws/a%2Fb%25") == {"user_id": "a/b%"}
    assert found(paths, "websocket", "/api/v1/ws/stats") == {"user_id": "stats"}
    assert found(paths, "http", "/api/stream/tasks/T%3A1") == {"task_id": "T:1"}


def test_other_paths_and_other_transports_are_not_taken(paths: Paths) -> None:
    assert found(paths, "http", "/api/v1/ws/stats") is None
    assert found(paths, "http", "/api/v1/ws/stats/") is None
    assert found(paths, "http", "/api/v1/ws/alice") == {"user_id": "alice"}, "its handler says: no handshake"
    assert found(paths, "websocket", "/api/stream/tasks/T1") is None
    assert found(paths, "websocket", "/api/v1/ws/") is None
    assert found(paths, "websocket", "/api/v1/ws/a/b") is None
    assert found(paths, "http", "/v1/stream") is None


# ── demo tokens ──


class Inner:
    def try_cached(self, scope: Any, **how: Any) -> None:
        return None

    async def authenticate(self, scope: Any, **how: Any) -> Any:
        raise Unauthorized("bad token")


def scope(path: str, token: str, **parameters: str) -> dict[str, Any]:
    return {
        "path": path,
        "headers": [(b"authorization", b"Bearer " + token.encode())],
        "query_string": b"",
        "path_params": parameters,
    }


async def who(door: DemoAuthenticator, given: dict[str, Any], kind: str = "websocket") -> tuple[str, bool]:
    principal = (await door.authenticate(given, kind=kind, native=False)).principal  # type: ignore[arg-type]
    assert principal.tenant == "default"
    return principal.sub, principal.is_admin


@pytest.mark.anyio
async def test_a_demo_token_is_whom_the_path_names_and_later_the_same() -> None:
    door = DemoAuthenticator(Inner(), "default")  # type: ignore[arg-type]
    assert await who(door, scope("/api/ws", "demo-token")) == ("demo-user", False)
    named = scope("/api/v1/ws/u7", "test-token-456", user_id="u7")
    assert await who(door, named) == ("u7", False)
    assert await who(door, scope("/api/ws", "test-token-456"), "http") == ("u7", False)
    assert await who(door, scope("/api/ws", "demo-token")) == ("demo-user", False)
    client = scope("/ws/bob:tab1", "demo-token", client_id="bob:tab1")
    assert await who(door, client) == ("bob", False)
    assert await who(door, scope("/api/v1/ws/u7", "admin", user_id="u7")) == ("admin", True)


@pytest.mark.anyio
async def test_the_native_api_takes_no_demo_token_and_nothing_else_is_one() -> None:
    door = DemoAuthenticator(Inner(), "default")  # type: ignore[arg-type]
    for path, token in (("/v1/inbox", "admin"), ("/v1/socket", "demo-token"), ("/api/ws", "demo-token2")):
        with pytest.raises(Unauthorized):
            await door.authenticate(scope(path, token), kind="http", native=False)


# ── texts ──


def test_blocks_and_cursors() -> None:
    assert sse_block("x", b"{}") == b"event: x\ndata: {}\n\n"
    assert sse_block("x", b"{}", cursor="e1-5") == b"id: e1-5\nevent: x\ndata: {}\n\n"
    assert sse_block("x", b"{}", retry_ms=300_000) == b"event: x\ndata: {}\nretry: 300000\n\n"
    publication = Publication("t", "e1", 5, "i", "note", b"{}", 0)
    assert cursor_of(Entry(publication, "all")) == "e1-5"
    assert cursor_of(Entry(msgspec.structs.replace(publication, offset=0), "all")) == ""


def test_times_of_publishers_become_utc() -> None:
    raw = msgspec.json.decode(
        b'{"timestamp":"2026-01-31T12:00:00","created_at":"2026-01-31T13:00:00+01:00","other":"2026-01-31T12:00:00",'
        b'"expires_at":null,"started_at":12.5,"completed_at":"soon"}',
        type=dict[str, msgspec.Raw],
    )
    expected = (
        b'{"timestamp":"2026-01-31T12:00:00.000000Z","created_at":"2026-01-31T12:00:00.000000Z",'
        b'"other":"2026-01-31T12:00:00","expires_at":null,"started_at":12.5,"completed_at":"soon"}'
    )
    assert canonical(contract_times(raw)) == expected
    assert canonical(contract_times(msgspec.json.decode(canonical(raw)))) == expected
