"""The Python client: what is sent again, when, and what is not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.client_package import bodies, calls, flow, flows, package

pytestmark = pytest.mark.anyio

ALICE = bodies.Target(user="alice")
NOTE = bodies.Notification(to=ALICE, title="T")
OK = {"id": "n1", "cursor": "e-1", "duplicate": False}
AT_ONCE = flow.Retries(count=4, base_s=0.0)
Outcome = httpx.Response | Exception


def problem(status: int, code: str, **headers: str) -> httpx.Response:
    body = {"type": "/docs/errors#" + code, "title": "No", "status": status, "detail": "why", "code": code}
    kind = {"content-type": "application/problem+json"}
    return httpx.Response(status, content=json.dumps(body), headers={**kind, **headers})


class Server:
    """Answers with a script, one outcome per request."""

    def __init__(self, *script: Outcome) -> None:
        self.script = list(script)
        self.seen: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        outcome = self.script.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def client(self, **options: Any) -> Any:
        options = {"retries": AT_ONCE, **options}
        if "get_token" not in options:
            options["token"] = "t0ken"
        return package.AsyncClient("http://node", transport=httpx.MockTransport(self), **options)

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(request.content) for request in self.seen]


LOST: Sequence[Outcome] = (
    httpx.ConnectError("refused"),
    httpx.ConnectTimeout("slow"),
    httpx.ReadTimeout("slow"),
    httpx.WriteTimeout("slow"),
    httpx.PoolTimeout("busy"),
    httpx.ReadError("reset"),
    httpx.WriteError("reset"),
    httpx.RemoteProtocolError("gone"),
    problem(429, "rate-limited"),
    httpx.Response(502, text="<html>bad gateway</html>"),
    problem(503, "bus-unavailable"),
    httpx.Response(504),
)


@pytest.mark.parametrize("outcome", LOST, ids=lambda one: getattr(one, "status_code", type(one).__name__))
async def test_a_passing_failure_is_repeated_with_the_same_bytes(outcome: Outcome) -> None:
    server = Server(outcome, outcome, httpx.Response(201, json=OK))
    async with server.client() as client:
        receipt = await client.notify(NOTE)
    assert receipt.id == "n1" and len(server.seen) == 3
    first = server.seen[0]
    assert first.headers["authorization"] == "Bearer t0ken" and server.bodies[0]["id"]
    assert {request.content for request in server.seen} == {first.content}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 500, 501, 302])
async def test_every_other_answer_is_final(status: int) -> None:
    server = Server(problem(status, "some-code"))
    async with server.client() as client:
        with pytest.raises(package.DualcastError) as caught:
            await client.publish(bodies.Publication(channel="all", type="x"))
    error = caught.value
    assert (error.code, error.status, error.detail) == ("some-code", status, "why")
    assert len(server.seen) == 1


async def test_the_last_failure_is_raised_when_it_does_not_pass() -> None:
    server = Server(*[httpx.ConnectError("refused")] * 3)
    async with server.client(retries=flow.Retries(count=2, base_s=0.0)) as client:
        with pytest.raises(package.DualcastError) as caught:
            await client.notify(NOTE)
    assert (caught.value.code, caught.value.status, caught.value.retryable) == ("unreachable", 0, True)
    assert len(server.seen) == 3
    server = Server(httpx.ReadTimeout("slow"))
    async with server.client(retries=0) as client:
        with pytest.raises(package.DualcastError, match="timeout"):
            await client.notify(NOTE)
    server = Server(httpx.Response(502, text="<html>"))
    async with server.client(retries=0) as client:
        with pytest.raises(package.DualcastError, match="502 http-502"):
            await client.notify(NOTE)


async def test_a_field_error_is_told() -> None:
    answer = problem(422, "invalid-body")
    body = {**json.loads(answer.content), "errors": [{"path": "$.title", "message": "must not be blank"}]}
    refused = httpx.Response(422, json=body, headers={"content-type": "application/problem+json"})
    async with Server(refused).client() as client:
        with pytest.raises(package.DualcastError, match=r"\$\.title: must not be blank") as caught:
            await client.notify(NOTE)
    assert caught.value.errors == (("$.title", "must not be blank"),)


async def test_every_publication_has_its_own_id_and_a_key_of_the_caller_stands_for_one() -> None:
    server = Server(*[httpx.Response(201, json=OK) for _ in range(4)])
    async with server.client() as client:
        await client.notify(NOTE)
        await client.notify(NOTE)
        await client.notify(bodies.Notification(to=ALICE, title="T", id="mine"))
        await client.notify(bodies.Notification(to=ALICE, title="T", idempotency_key="k"))
    one, two, mine, keyed = server.bodies
    assert one["id"] != two["id"] and mine["id"] == "mine"
    assert keyed["idempotency_key"] == "k" and "id" not in keyed


async def test_typing_is_repeated_only_when_it_surely_was_not_acted_on() -> None:
    for outcome in (httpx.ReadTimeout("slow"), httpx.ReadError("reset"), httpx.Response(502)):
        server = Server(outcome)
        async with server.client() as client:
            with pytest.raises(package.DualcastError):
                await client.typing("c", True)
        assert len(server.seen) == 1
    server = Server(httpx.ConnectError("refused"), problem(503, "draining"), httpx.Response(204))
    async with server.client() as client:
        await client.typing("c", True)
    assert len(server.seen) == 3


async def test_an_answer_that_is_none_of_dualcasts_is_told() -> None:
    async with Server(httpx.Response(200, text="<html>welcome</html>")).client() as client:
        with pytest.raises(package.DualcastError, match="bad-answer"):
            await client.notify(NOTE)


# ── waiting ──


def driven(
    steps: flow.Flow[Any], outcomes: Sequence[Any], clock: Callable[[float], None]
) -> tuple[list[float], Any]:
    """Runs a flow without a network: the waits it asked for, and what came of it."""
    waits: list[float] = []
    given = iter(outcomes)
    try:
        step = next(steps)
        while True:
            if isinstance(step, flow.Sleep):
                waits.append(step.seconds)
                clock(step.seconds)
                step = steps.send(None)
            elif isinstance(step, flow.Token):
                step = steps.send("t")
            else:
                outcome = next(given)
                step = steps.throw(outcome) if isinstance(outcome, Exception) else steps.send(outcome)
    except StopIteration as done:
        return waits, done.value
    except package.DualcastError as error:
        return waits, error


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


def waits_of(outcomes: Sequence[Any], retries: Any = None, draw: float = 0.5) -> tuple[list[float], Any]:
    clock = Clock()
    policy = flow.Policy(retries or flow.Retries(), False, clock, lambda: draw)
    return driven(flow.perform(policy, calls.notify(NOTE)), outcomes, clock.pass_)


def answer(status: int, retry_after: str = "") -> Any:
    body = json.dumps(OK if status < 300 else {"code": "x"}).encode()
    headers = {"content-type": "application/json", **({"retry-after": retry_after} if retry_after else {})}
    return flow.Answer(status, headers, body)


def test_waits_grow_up_to_the_cap_and_are_drawn_between_nothing_and_all_of_it() -> None:
    retries = flow.Retries(count=6, base_s=1.0, cap_s=8.0)
    outcomes = [answer(503)] * 6 + [answer(201)]
    assert waits_of(outcomes, retries, 1.0)[0] == [1, 2, 4, 8, 8, 8]
    assert waits_of(outcomes, retries, 0.25)[0] == [0.25, 0.5, 1, 2, 2, 2]
    assert waits_of(outcomes, retries, 0.0)[0] == [0] * 6


def test_retry_after_is_honoured_and_a_longer_one_than_there_is_time_for_ends_the_call() -> None:
    waits, receipt = waits_of([answer(429, "7"), answer(201)], draw=0.5)
    assert waits == [7.1] and receipt.id == "n1"
    waits, error = waits_of([answer(503, "3600"), answer(201)])
    assert waits == [] and isinstance(error, package.DualcastError) and error.retry_after_s == 3600


def test_no_repetition_begins_after_the_server_may_have_forgotten_the_id() -> None:
    waits, error = waits_of([answer(503, "20")] * 9, flow.Retries(count=8, base_s=0.0))
    assert waits == [20, 20] and isinstance(error, package.DualcastError)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", None),
        ("3", 3.0),
        ("0.5", 0.5),
        ("-4", 0.0),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 7.0),
        ("Sun, 06 Nov 1994 08:49:00 GMT", 0.0),
    ],
)
def test_retry_after_is_read_as_http_says_it(text: str, seconds: float | None) -> None:
    assert flow.retry_after_s(text, lambda: datetime(1994, 11, 6, 8, 49, 30, tzinfo=UTC)) == seconds


@given(st.lists(st.sampled_from([answer(503), answer(429, "1"), httpx.ReadError("x")]), max_size=12))
def test_a_call_ends_and_is_never_tried_more_often_than_allowed(outcomes: list[Any]) -> None:
    waits, result = waits_of([*outcomes, *[answer(201)] * 6])
    assert len(waits) <= 4 and sum(waits) <= 50
    assert isinstance(result, package.DualcastError) == (len(outcomes) > 4)


# ── tokens ──


async def test_a_token_is_fetched_once_and_again_when_it_is_refused() -> None:
    given: list[str] = []

    async def get_token() -> str:
        given.append(f"t{len(given)}")
        await asyncio.sleep(0)
        return given[-1]

    async def handler(request: httpx.Request) -> httpx.Response:
        used = request.headers["authorization"]
        seen.append(used)
        if expired and used == "Bearer t0":
            await all_three.wait()
            return problem(401, "token-expired")
        return httpx.Response(201, json=OK)

    seen: list[str] = []
    expired = False
    all_three = asyncio.Barrier(3)
    client = package.AsyncClient("http://n", get_token=get_token, transport=httpx.MockTransport(handler))
    async with client:
        await asyncio.gather(*(client.notify(NOTE) for _ in range(4)))
        assert given == ["t0"]
        expired = True
        await asyncio.gather(*(client.notify(NOTE) for _ in range(3)))
    assert given == ["t0", "t1"]
    assert seen == ["Bearer t0"] * 7 + ["Bearer t1"] * 3


async def test_a_fresh_token_that_is_refused_too_is_an_error() -> None:
    server = Server(problem(401, "unauthorized"), problem(401, "unauthorized"))
    async with server.client(get_token=lambda: "x") as client:
        with pytest.raises(package.DualcastError, match="401 unauthorized"):
            await client.notify(NOTE)
    assert len(server.seen) == 2


# ── batches ──


async def test_items_that_failed_for_the_moment_are_sent_again_under_their_ids() -> None:
    def result(status: int, **more: Any) -> dict[str, Any]:
        return {"status": status, **more}

    again = result(503, code="bus-unavailable", retryable=True)
    bad = result(422, code="bad-store")
    server = Server(
        httpx.Response(200, json={"accepted": 1, "failed": 2, "results": [again, result(201, id="b"), bad]}),
        httpx.Response(200, json={"accepted": 0, "failed": 1, "results": [again]}),
        httpx.Response(200, json={"accepted": 1, "failed": 0, "results": [result(201, id="a")]}),
    )
    async with server.client() as client:
        results = await client.notify_many([NOTE, NOTE, NOTE])
    assert [(one.status, one.id) for one in results] == [(201, "a"), (201, "b"), (422, "")]
    sent = server.bodies
    assert len({item["id"] for item in sent[0]}) == 3
    assert sent[1] == sent[2] == [sent[0][0]]


async def test_what_does_not_pass_stands_in_the_results_and_none_is_sent_for_none() -> None:
    failed = {"status": 503, "code": "bus-unavailable", "retryable": True}
    body = {"accepted": 0, "failed": 1, "results": [failed]}
    server = Server(*[httpx.Response(200, json=body) for _ in range(5)])
    async with server.client() as client:
        (result,) = await client.notify_many([NOTE])
        assert result.code == "bus-unavailable" and len(server.seen) == 5
        assert await client.notify_many([]) == ()


async def test_large_batches_are_cut_by_number_and_by_size() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert len(request.content) <= 4 * 1024 * 1024
        items = json.loads(request.content)
        sizes.append(len(items))
        return httpx.Response(200, json={"results": [{"status": 201, "id": one["id"]} for one in items]})

    sizes: list[int] = []
    big = bodies.Notification(to=ALICE, title="T", data={"text": "x" * 50_000})
    async with package.AsyncClient("http://n", "t", transport=httpx.MockTransport(handler)) as client:
        results = await client.notify_many([NOTE] * 1001 + [big] * 100)
    assert len(results) == 1101 and all(one.status == 201 for one in results)
    assert sizes[0] == 1000 and sum(sizes) == 1101 and len(sizes) == 3


# ── threads ──


def test_the_client_for_threads_does_the_same() -> None:
    server = Server(httpx.ReadError("reset"), problem(401, "token-expired"), httpx.Response(201, json=OK))
    given = iter(["old", "new"])
    transport = httpx.MockTransport(server)
    retries = flow.Retries(base_s=0.001)
    with package.Client(
        "http://n", get_token=lambda: next(given), retries=retries, transport=transport
    ) as client:
        assert client.notify(NOTE).id == "n1"
    assert [one.headers["authorization"][7:] for one in server.seen] == ["old", "old", "new"]
    assert len({one.content for one in server.seen}) == 1


def test_the_participants_are_asked_for_where_the_conversation_is_not_known() -> None:
    call = calls.broadcast("c", bodies.Broadcast(kind="system", data={"title": "T"}))
    server = Server(
        problem(404, "unknown-conversation"),
        httpx.Response(200, json={"conversation_id": "c", "participants": ["a"], "revision": 1}),
        httpx.Response(201, json=OK),
        problem(404, "unknown-conversation"),
    )
    with package.Client("http://n", "t", transport=httpx.MockTransport(server)) as client:
        found = client.run(flows.in_conversation(client.policy, "c", call, lambda _name: ["a"]))
        assert found.id == "n1"
        assert [one.method for one in server.seen] == ["POST", "PUT", "POST"]
        assert server.seen[0].content == server.seen[2].content
        with pytest.raises(package.DualcastError, match="unknown-conversation"):
            client.run(flows.in_conversation(client.policy, "c", call, None))
