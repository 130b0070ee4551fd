"""Census and readiness over REST: who may see what, and what they say."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

import dualcast.gateway.evidence as handlers
from dualcast_migration.census import Row
from dualcast_migration.evidence.port import Batch, RowChange
from dualcast_migration.evidence.since import Since
from dualcast_migration.figures import lag
from dualcast_migration.sketch import mark
from support.rest_app import Rest, admin, auth, code, publisher, rest

pytestmark = pytest.mark.anyio
CHROME = Row("sse", "native", "Chrome 130", "1.2", "https://app.example.com", True)
OLD = Row("sse", "notifications", "okhttp 4")
SOCKET = Row("ws", "native", "Chrome 130", instance=True)


def operator(tenant: str = "default") -> dict[str, str]:
    return auth("ops", "operator", tenant=tenant)


async def note(app: Rest, tenant: str = "other", **fields: Any) -> None:
    """What a node would tell."""
    batch = Batch(node="n1", ident=secrets.token_hex(8), **fields)
    await app.services.evidence.record(tenant, batch)


async def ask(app: Rest, what: str, tenant: str = "other", **how: Any) -> dict[str, Any]:
    headers = how.pop("headers", admin(tenant))
    answer = await app.client.get(f"/v1/tenants/{tenant}/{what}", headers=headers, params=how)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_who_may_see_what() -> None:
    async with rest() as app:
        for what in ("census", "readiness"):
            path = f"/v1/tenants/other/{what}"
            assert (await app.client.get(path)).status_code == 401
            for headers in (
                auth("alice", tenant="other"),
                publisher("other"),
                publisher(),
                operator("other"),
            ):
                answer = await app.client.get(path, headers=headers)
                assert (answer.status_code, code(answer)) == (403, "admin-only")
            for tenant in ("other", "nobodys"):  # whether it exists is not told
                answer = await app.client.get(f"/v1/tenants/{tenant}/{what}", headers=admin())
                assert (answer.status_code, code(answer)) == (404, "unknown-tenant")
            for headers in (admin("other"), operator()):
                assert (await app.client.get(path, headers=headers)).status_code == 200
            answer = await app.client.get(f"/v1/tenants/nobodys/{what}", headers=operator())
            assert (answer.status_code, code(answer)) == (404, "unknown-tenant")


async def test_the_census_is_the_tenants_own() -> None:
    async with rest() as app:
        marks = (mark("other", "alice"), mark("other", "bob"))
        rows = (RowChange(CHROME, 3, marks), RowChange(OLD, 1, marks[:1]), RowChange(SOCKET, 2, marks))
        await note(app, rows=rows, live={CHROME: 2, OLD: 1, SOCKET: 2})
        await note(app, "default", rows=(RowChange(OLD, 9, ()),), live={OLD: 9})
        census = await ask(app, "census")
        assert (census["live_sse"], census["live_ws"], census["live_left"]) == (3, 2, 1)
        assert census["tenant"] == "other" and census["kinds"] == 3
        first = next(row for row in census["rows"] if row["app"] == "1.2")
        assert {
            name: first[name] for name in ("transport", "agent", "origin", "connects", "live", "users")
        } == {
            "transport": "sse",
            "agent": "Chrome 130",
            "origin": "https://app.example.com",
            "connects": 3,
            "live": 2,
            "users": 2,
        }
        assert first["first_seen"].endswith("Z") and first["last_seen"] >= first["first_seen"]
        assert [row["transport"] for row in (await ask(app, "census", transport="ws"))["rows"]] == ["ws"]
        cut = await ask(app, "census", limit=1)
        assert len(cut["rows"]) == 1 and cut["kinds"] == 3


@pytest.mark.parametrize("query", ["transport=tcp", "limit=0", "limit=3000"])
async def test_bad_queries_are_refused(query: str) -> None:
    async with rest() as app:
        answer = await app.client.get(f"/v1/tenants/other/census?{query}", headers=admin("other"))
        assert (answer.status_code, code(answer)) == (422, "invalid-query")


async def test_readiness_says_every_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    async def long_ago(*_: Any) -> Since:
        return Since(1.0)

    monkeypatch.setattr(handlers, "staged_since", long_ago)
    async with rest() as app:
        before = await ask(app, "readiness")
        assert (before["stage"], before["next"], before["ready"]) == ("fallback", "websocket", False)
        (reason,) = before["reasons"]
        assert (reason["code"], reason["figure"], reason["limit"]) == ("too-few-sockets", 0, 20)
        figures = {"ws_opened": 100, "ws_closed": 40, "ws_abnormal": 2, lag("ws", 3): 50}
        await note(app, figures=figures, marks=(mark("other", "alice"),))
        good = await ask(app, "readiness")
        assert good["ready"] and good["reasons"] == []
        window = good["window"]
        assert (window["websocket_opens"], window["abnormal_close_percent"], window["users"]) == (100, 5, 1)
        assert window["seconds"] == 60 and 2 < window["lag_p99_ms"] <= 10
        troubled = tuple(sorted(mark("other", user) for user in ("alice", "bob", "carol")))
        await note(app, figures={"ws_fell_back": 50, "ws_short": 7}, troubled=troubled, live={OLD: 4})
        bad = await ask(app, "readiness", headers=operator())
        assert [one["code"] for one in bad["reasons"]] == [
            "budget-websocket-open-failure-percent",
            "open-failures",
        ]
        assert bad["reasons"][0]["figure"] == 38.0 and bad["reasons"][0]["limit"] == 5
        assert bad["totals"]["fell_back"] == 50 and bad["totals"]["ended_at_once"] == 7
        assert [one["code"] for one in bad["warnings"]] == ["still-on-sse"]
        assert not (await ask(app, "readiness", "default"))["totals"]["websocket_opens"]


async def test_a_stage_that_has_just_changed_is_not_judged_by_what_was_before() -> None:
    async with rest() as app:
        await note(app, figures={"ws_opened": 20, "ws_fell_back": 50})
        view = (await app.client.get("/v1/tenants/other/migration", headers=admin("other"))).json()
        body = {"stage": "shadow", "why": "a test", "expected": view["version"]}
        answer = await app.client.put("/v1/tenants/other/migration", headers=admin("other"), json=body)
        assert answer.status_code == 200, answer.text
        found = await ask(app, "readiness")
        assert (found["stage"], found["next"]) == ("shadow", "fallback")
        assert [one["code"] for one in found["reasons"]] == ["too-few-sockets", "too-few-compared"]
        assert found["window"]["websocket_opens"] == found["totals"]["websocket_opens"] == 0
        assert [one["code"] for one in found["warnings"]] == ["young-stage"]
        assert found["since"].endswith("Z") and found["version"] == answer.json()["version"]
