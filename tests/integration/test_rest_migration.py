"""The migration of a tenant over REST: read, change, roll back, audit. Who sees what: `test_rest_tenants`."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from dualcast.gateway.services import GatewaySettings
from dualcast_migration.stage import Stage
from support.rest_app import Rest, admin, auth, code, rest

pytestmark = pytest.mark.anyio
PATH = "/v1/tenants/other/migration"
MINE = admin("other")


async def put(app: Rest, version: int | str | None = "*", **body: Any) -> httpx.Response:
    headers = dict(MINE)
    if version is not None:
        headers["If-Match"] = "*" if version == "*" else f'"{version}"'
    return await app.client.put(PATH, json={"why": "a test", **body}, headers=headers)


async def read(app: Rest) -> dict[str, Any]:
    answer = await app.client.get(PATH, headers=MINE)
    assert answer.status_code == 200 and answer.headers["etag"] == f'"{answer.json()["version"]}"'
    return dict(answer.json())


async def test_the_record_is_shown_whole() -> None:
    async with rest() as app:
        found = await read(app)
        assert found["tenant"] == "other"
        assert found["record"] == {
            "stage": "fallback",
            "cohort": {"percent": 100.0, "allow": [], "deny": []},
            "deprecated_at": 0,
            "sunset_at": 0,
            "link": "",
            "brownouts": [],
            "fallback_scope": "instance",
            "budgets": {
                "websocket_open_failure_percent": 5.0,
                "abnormal_close_percent": 10.0,
                "parity_mismatches": 0,
                "reconnects_per_user": 5.0,
                "lag_p99_ms": 5000,
                "window_s": 60,
                "min_samples": 20,
                "hold_off_s": 900,
                "enabled": True,
            },
            "held_until": 0,
            "mirror": None,
        }
        assert found["last"]["action"] == "create" and found["last"]["from"] is None


async def test_only_the_legacy_tenant_is_copied_to_channels_of_old_servers() -> None:
    """They hold no tenant in their names: a mirror of another tenant was accepted and did nothing."""
    async with rest() as app:
        before = await read(app)
        for mode in ("always", "fallback"):
            refused = await put(app, before["version"], stage="fallback", mirror=mode)
            assert (refused.status_code, code(refused)) == (422, "no-old-channels")
        assert await read(app) == before
        assert (await put(app, stage="fallback", mirror="off")).status_code == 200
        body = {"stage": "fallback", "mirror": "always", "why": "a test"}
        headers = {**auth("ops", "operator"), "If-Match": "*"}
        own = await app.client.put("/v1/tenants/default/migration", json=body, headers=headers)
        assert own.status_code == 200, own.text


async def test_a_change_replaces_the_record_and_is_audited() -> None:
    async with rest(settings=GatewaySettings(legacy_tenant="other")) as app:
        version = (await read(app))["version"]
        wanted = {
            "stage": "websocket",
            "cohort": {"percent": 10, "allow": ["vip"], "deny": ["old|1"]},
            "deprecated_at": 1_800_000_000,
            "sunset_at": 4_000_000_000,
            "link": "https://e.org/move",
            "brownouts": [{"at": 1_900_000_000, "percent": 5}, {"at": 2_000_000_000, "percent": 50}],
            "fallback_scope": "user",
            "budgets": {"lag_p99_ms": None, "enabled": False},
            "mirror": "always",
        }
        made = await put(app, version, **wanted)
        assert made.status_code == 200, made.text
        found = await read(app)
        assert made.json() == found and found["version"] > version
        record = found["record"]
        assert record["budgets"].pop("lag_p99_ms") is None and record["budgets"].pop("enabled") is False
        assert {name: record[name] for name in wanted if name not in ("cohort", "budgets")} == {
            name: value for name, value in wanted.items() if name not in ("cohort", "budgets")
        }
        assert record["cohort"] == {"percent": 10.0, "allow": ["vip"], "deny": ["old|1"]}
        entries = (await app.client.get("/v1/tenants/other/audit", headers=MINE)).json()["entries"]
        assert entries[0] == found["last"]
        assert entries[0]["who"] == "other/root" and entries[0]["why"] == "a test"
        assert entries[0]["from"]["stage"] == "fallback" and entries[0]["to"]["stage"] == "websocket"
        assert entries[0]["at"].endswith("Z") and entries[0]["version"] == found["version"]
        # What is left out is the default, not what it was.
        assert (await put(app, stage="websocket")).json()["record"]["cohort"]["percent"] == 100.0


async def test_a_change_says_which_version_it_is_for() -> None:
    async with rest() as app:
        version = (await read(app))["version"]
        for answer, status, wanted in (
            (await put(app, None, stage="shadow"), 428, "version-needed"),
            (await put(app, version + 1, stage="shadow"), 412, "version-conflict"),
            (await put(app, None, stage="shadow", expected=version + 1), 409, "version-conflict"),
            (await put(app, version, stage="shadow", expected=version + 1), 400, "bad-version"),
        ):
            assert (answer.status_code, code(answer)) == (status, wanted)
        assert (await put(app, None, stage="shadow", expected=version)).status_code == 200


async def test_of_ten_changes_with_one_version_one_wins() -> None:
    async with rest() as app:
        version = (await read(app))["version"]
        answers = await asyncio.gather(
            *(put(app, version, stage="fallback", cohort={"percent": n}) for n in range(10))
        )
        statuses = sorted(answer.status_code for answer in answers)
        assert statuses == [200] + [412] * 9
        (won,) = [answer.json() for answer in answers if answer.status_code == 200]
        assert await read(app) == won


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({}, "invalid-body"),
        ({"stage": "sideways"}, "invalid-body"),
        ({"stage": "shadow", "why": ""}, "invalid-body"),
        ({"stage": "shadow", "why": "x" * 501}, "invalid-body"),
        ({"stage": "shadow", "why": "  "}, "bad-reason"),
        ({"stage": "shadow", "why": "\x1b[2J"}, "bad-reason"),
        ({"stage": "shadow", "held_until": 0}, "invalid-body"),
        ({"stage": "shadow", "cohort": {"percent": 101}}, "invalid-body"),
        ({"stage": "shadow", "cohort": {"allow": ["u"] * 1_001}}, "invalid-body"),
        ({"stage": "shadow", "cohort": {"allow": ["a\nb"]}}, "bad-tenant"),
        ({"stage": "shadow", "cohort": {"allow": [f"{n:036}" for n in range(900)]}}, "bad-tenant"),
        ({"stage": "shadow", "deprecated_at": 20, "sunset_at": 10}, "invalid-body"),
        ({"stage": "shadow", "sunset_at": -1}, "invalid-body"),
        ({"stage": "shadow", "link": 'https://e.org/">'}, "invalid-body"),
        (
            {"stage": "shadow", "brownouts": [{"at": 5, "percent": 1}, {"at": 5, "percent": 2}]},
            "invalid-body",
        ),
        ({"stage": "shadow", "brownouts": [{"at": 5, "percent": 101}]}, "invalid-body"),
        ({"stage": "shadow", "brownouts": [{"at": n, "percent": 1} for n in range(1, 60)]}, "invalid-body"),
        ({"stage": "shadow", "budgets": {"window_s": 0}}, "invalid-body"),
        ({"stage": "shadow", "budgets": {"lag": 0}}, "invalid-body"),
        ({"stage": "shadow", "mirror": "sometimes"}, "invalid-body"),
        ({"stage": "shadow", "expected": -1}, "invalid-body"),
    ],
)
async def test_bad_records_change_nothing(body: dict[str, Any], wanted: str) -> None:
    async with rest() as app:
        before = await read(app)
        answer = await put(app, **body)
        assert (answer.status_code, code(answer)) == (422, wanted), answer.text
        assert await read(app) == before


async def test_stages_go_on_one_at_a_time_and_back_to_any() -> None:
    async with rest() as app:
        for stage, status in (
            ("websocket", 200),
            ("sse", 200),
            ("fallback", 409),
            ("websocket", 409),
            ("shadow", 200),
            ("websocket", 409),
            ("fallback", 200),
        ):
            answer = await put(app, stage=stage)
            assert answer.status_code == status, stage
            if status == 409:
                assert code(answer) == "illegal-stage-move"
        past = await put(app, stage="websocket", sunset_at=1_000)
        assert (past.status_code, code(past)) == (409, "sunset-passed")
        assert (await put(app, stage="websocket", sunset_at=1_000, force=True)).status_code == 200


async def test_rolling_back() -> None:
    async with rest() as app:

        async def back(**body: Any) -> httpx.Response:
            return await app.client.post(PATH + "/rollback", json={"why": "it broke", **body}, headers=MINE)

        nothing = await back()
        assert (nothing.status_code, code(nothing)) == (409, "nothing-to-roll-back")
        await put(app, stage="fallback", cohort={"percent": 10})
        ten = (await read(app))["record"]
        made = (await put(app, stage="sse")).json()
        stale = await back(expected=made["version"] - 1)
        assert (stale.status_code, code(stale)) == (409, "version-conflict")
        undone = await back(expected=made["version"])
        assert undone.status_code == 200 and undone.json()["record"] == ten
        assert (await back()).json()["record"]["stage"] == "sse"
        entries = (await app.client.get("/v1/tenants/other/audit", headers=MINE)).json()["entries"]
        assert [entry["action"] for entry in entries] == ["rollback", "rollback", "set", "set", "create"]
        assert code(await back(why="")) == "invalid-body"


async def test_the_hold_of_the_guard() -> None:
    async with rest() as app:
        stages = app.services.stages
        now_s = asyncio.get_running_loop().time() + 4_000_000_000
        assert await stages.step_back("other", who="guard", why="opens fail", now_s=now_s, hold_off_s=900)
        assert (await read(app))["record"]["held_until"] == int(now_s + 900)
        held = await put(app, stage="fallback")
        assert (held.status_code, code(held)) == (409, "guard-hold")
        assert held.json()["retryable"] is False
        rollback = await app.client.post(PATH + "/rollback", json={"why": "x"}, headers=MINE)
        assert code(rollback) == "guard-hold"
        forced = await put(app, stage="fallback", force=True)
        assert forced.json()["record"]["held_until"] == 0
        assert app.tenants.current("other").stage.stage is Stage.FALLBACK  # type: ignore[union-attr]


async def test_the_audit_in_pages() -> None:
    async with rest() as app:
        for percent in range(1, 8):
            await put(app, stage="fallback", cohort={"percent": percent})
        numbers, before = [], 0
        while True:
            path = f"/v1/tenants/other/audit?limit=3&before={before}"
            page = (await app.client.get(path, headers=MINE)).json()
            numbers += [entry["number"] for entry in page["entries"]]
            assert len(page["entries"]) <= 3
            if not (before := page["next"]):
                break
        assert numbers == [8, 7, 6, 5, 4, 3, 2, 1]
        for query in ("limit=0", "limit=101", "before=-1", "before=x"):
            answer = await app.client.get("/v1/tenants/other/audit?" + query, headers=MINE)
            assert (answer.status_code, code(answer)) == (422, "invalid-query")
        huge = await app.client.get(f"/v1/tenants/other/audit?before={2**70}", headers=MINE)
        assert huge.status_code == 200 and len(huge.json()["entries"]) == 8
