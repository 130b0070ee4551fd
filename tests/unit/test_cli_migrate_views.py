"""What `dualcast migrate` says before a change, and of a refused one."""

from __future__ import annotations

import httpx

from dualcast.cli.migrate_views import moves
from dualcast.cli.remote import refusal


def record(stage: str, percent: float) -> dict[str, object]:
    return {"stage": stage, "cohort": {"percent": percent}}


def test_who_goes_where() -> None:
    assert moves(record("shadow", 100), record("fallback", 10)) == [
        "10 % of the users go from shadow to fallback",
        "90 % of the users stay in shadow",
    ]
    assert moves(record("fallback", 10), record("websocket", 10)) == [
        "10 % of the users go from fallback to websocket",
        "90 % of the users go from shadow to fallback",
    ]
    assert moves(record("fallback", 10), record("fallback", 50)) == [
        "10 % of the users stay in fallback",
        "40 % of the users go from shadow to fallback",
        "50 % of the users stay in shadow",
    ]
    assert moves(record("websocket", 30), record("sse", 100)) == [
        "30 % of the users go from websocket to sse",
        "70 % of the users go from fallback to sse",
    ]


def test_nobody_goes_anywhere() -> None:
    assert moves(record("fallback", 50), record("fallback", 50)) == []
    assert moves(record("fallback", 100), record("websocket", 0)) == []
    assert moves(record("sse", 10), record("sse", 100)) == []


def test_a_refusal_names_the_fields() -> None:
    body = {
        "code": "invalid-body",
        "detail": "no",
        "errors": [
            {"path": "$.budgets.min_samples", "message": "Expected `int` >= 1"},
            {"path": "$", "message": "in order"},
        ],
    }
    assert (
        refusal(httpx.Response(422, json=body))
        == "422 invalid-body: no (budgets.min_samples: Expected int >= 1; in order)"
    )
    for odd in ({"code": "x", "errors": [1]}, {"code": "x", "errors": 5}, ["x"]):
        assert refusal(httpx.Response(422, json=odd)).startswith("422 ")
