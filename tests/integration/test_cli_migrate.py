"""`dualcast migrate` and `dualcast tenants` in a process of their own against a real server."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import shlex
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import jwt
import pytest

from dualcast.cli.calls import _claimed, operator_at, when
from dualcast.cli.demo import demo_key
from dualcast.settings import Settings
from dualcast_migration.stage import Stage
from support.clients import open_socket, open_stream
from support.command_host import CommandHost, Done
from support.node import Node, running_node

pytestmark = pytest.mark.anyio
DUALCAST = (sys.executable, "-P", "-m", "dualcast")
WHY = ("--why", "a test")


class Cli:
    """Runs commands as somebody."""

    def __init__(self, node: Node, folder: Path, host: CommandHost) -> None:
        self.node = node
        self.folder = folder
        self.host = host
        self.sub, self.roles, self.tenant = "ops", ["operator"], "default"

    @property
    def env(self) -> dict[str, str]:
        drop = ("DUALCAST_", "REDIS_", "JWT_SECRET", "SECRET_KEY")
        env = {name: value for name, value in os.environ.items() if not name.startswith(drop)}
        token = self.node.token(self.sub, tenant=self.tenant, roles=self.roles)
        return {**env, "DUALCAST_URL": self.node.base_url, "DUALCAST_TOKEN": token}

    async def __call__(self, *arguments: str, stdin: str = "") -> Done:
        return await self.host.run(*arguments, folder=self.folder, environ=self.env, stdin=stdin)

    async def at_a_terminal(self, answer: str, *arguments: str) -> tuple[int, str]:
        """Exit code and what was on the screen. Types `answer` when it is asked."""
        master, slave = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            *DUALCAST, *arguments, cwd=self.folder, env=self.env, stdin=slave, stdout=slave, stderr=slave
        )
        os.close(slave)
        screen, answered = b"", False
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(60):
                while True:
                    try:
                        part = await loop.run_in_executor(None, os.read, master, 4096)
                    except OSError:  # how Linux ends a terminal whose last process has gone
                        break
                    screen += part
                    if b"Change it?" in screen and not answered:
                        answered = True
                        os.write(master, answer.encode() + b"\n")
                await process.wait()
        finally:
            os.close(master)
        return process.returncode or 0, screen.decode()

    def stage(self, tenant: str = "default") -> Stage:
        found = self.node.composition.tenants.current(tenant)
        assert found is not None
        return found.stage.stage


@pytest.fixture(scope="module")
def host() -> Iterator[CommandHost]:
    with CommandHost() as started:
        yield started


@pytest.fixture
async def cli(tmp_path: Path, host: CommandHost) -> AsyncIterator[Cli]:
    async with running_node("memory") as node:
        yield Cli(node, tmp_path, host)


async def test_a_tenant_goes_the_whole_way_by_its_plan_and_back(cli: Cli) -> None:
    assert (await cli("tenants", "create", "acme", "--stage", "sse")).code == 0
    plan = (await cli("migrate", "plan", "acme", "--percent", "50", "--percent", "100", "--json")).json
    assert plan["stage"] == "sse" and plan["tenant"] == "acme"
    for step in plan["steps"]:
        done = await cli(*shlex.split(step["command"])[1:], "--json")
        record = done.json["record"]
        assert (record["stage"], record["cohort"]["percent"]) == (step["stage"], step["percent"])
    assert cli.stage("acme") is Stage.WEBSOCKET
    assert record["sunset_at"] > record["deprecated_at"] > 0 and len(record["brownouts"]) == 4
    assert "already" in (await cli("migrate", "plan", "acme")).out
    shown = await cli("migrate", "status", "acme")
    assert "● websocket" in shown.out and "everybody" in shown.out and "brownout 25 %" in shown.out
    assert "default/ops" in shown.out
    back = await cli("migrate", "rollback", "acme", *WHY)
    assert back.code == 0 and "50 %" in back.out
    await cli("migrate", "set", "acme", "--stage", "sse", "--percent", "100", *WHY)
    assert cli.stage("acme") is Stage.SSE
    status = (await cli("migrate", "status", "acme", "--history", "100", "--json")).json
    assert [entry["number"] for entry in status["history"]] == list(range(len(plan["steps"]) + 3, 0, -1))


async def test_set_shows_the_difference_and_changes_only_what_is_named(cli: Cli) -> None:
    first = await cli(
        *("migrate", "set", "default", "--percent", "12.5", "--allow", "vip", "--deny", "old|1"),
        *("--budget", "lag_p99_ms=off", "--budget", "window_s=30", "--scope", "user", "--no-guard", *WHY),
    )
    assert first.code == 0, first.err
    for words in ("cohort.percent", "100", "12.5", "vip", "budgets.lag_p99_ms", "off", "fallback_scope"):
        assert words in first.out
    second = (await cli("migrate", "set", "--no-names", "--mirror", "always", "--guard", *WHY, "--json")).json
    record = second["record"]
    assert record["cohort"] == {"percent": 12.5, "allow": [], "deny": []}
    assert (record["budgets"]["lag_p99_ms"], record["budgets"]["window_s"]) == (None, 30)
    assert record["budgets"]["enabled"] is True
    assert (record["stage"], record["fallback_scope"], record["mirror"]) == ("fallback", "user", "always")
    nothing = await cli("migrate", "set", "--mirror", "always", *WHY)
    assert (nothing.code, nothing.out) == (1, "") and "changes nothing" in nothing.err


async def test_schedule_and_its_times(cli: Cli) -> None:
    done = await cli(
        *(
            "migrate",
            "schedule",
            "--deprecated",
            "now",
            "--sunset",
            "2040-03-01",
            "--link",
            "https://e.org/m",
        ),
        *("--brownout", "2040-02-01=5", "--brownout", "2040-02-20T06:00Z=50%", *WHY, "--json"),
    )
    record = done.json["record"]
    assert record["sunset_at"] == datetime(2040, 3, 1, tzinfo=UTC).timestamp()
    assert [item["percent"] for item in record["brownouts"]] == [5, 50]
    shown = await cli("migrate", "status")
    assert "2040-03-01 00:00 UTC" in shown.out and "counts in stage websocket" in shown.out
    moved = (await cli("migrate", "schedule", "--sunset", "+30d", "--no-brownouts", *WHY, "--json")).json
    assert moved["record"]["deprecated_at"] == record["deprecated_at"] and moved["record"]["link"]
    assert moved["record"]["brownouts"] == []
    off = (await cli("migrate", "schedule", "--sunset", "off", "--link", "off", *WHY, "--json")).json
    assert off["record"]["sunset_at"] == 0 and off["record"]["link"] == ""
    for bad in (("--sunset", "soon"), ("--brownout", "2040-01-01"), ("--brownout", "now=lots")):
        wrong = await cli("migrate", "schedule", *bad, *WHY)
        assert wrong.code == 2 and "Traceback" not in wrong.err
    order = await cli("migrate", "schedule", "--deprecated", "2041-01-01", "--sunset", "2040-01-01", *WHY)
    assert order.code == 1 and "invalid-body" in order.err


async def test_a_terminal_is_asked(cli: Cli) -> None:
    change = ("migrate", "set", "--stage", "shadow", *WHY)
    code, screen = await cli.at_a_terminal("n", *change)
    assert code == 130 and "fallback" in screen and "shadow" in screen
    assert cli.stage() is Stage.FALLBACK
    code, screen = await cli.at_a_terminal("y", *change)
    assert code == 0 and cli.stage() is Stage.SHADOW
    code, screen = await cli.at_a_terminal("", "migrate", "rollback", "--yes", *WHY)
    assert code == 0 and "Change it?" not in screen
    assert cli.stage() is Stage.FALLBACK


async def test_refusals_in_words(cli: Cli) -> None:
    jump = await cli("migrate", "set", "--stage", "sse", *WHY)
    assert jump.code == 0
    jump = await cli("migrate", "set", "--stage", "websocket", *WHY)
    assert jump.code == 1 and "illegal-stage-move" in jump.err and "Traceback" not in jump.err
    assert (await cli("migrate", "set", "--stage", "shadow")).code == 2  # no reason given
    assert (await cli("migrate", "set", "--budget", "lag=5", *WHY)).code == 2
    assert (await cli("migrate", "set", "--percent", "101", *WHY)).code == 2
    unknown = await cli("migrate", "status", "nobody")
    assert unknown.code == 1 and "unknown-tenant" in unknown.err
    cli.roles = []
    user = await cli("migrate", "status")
    assert user.code == 1 and "admin-only" in user.err
    cli.roles, cli.tenant = ["admin"], "other"
    own = await cli("migrate", "status", "--json")
    assert own.json["tenant"] == "other"
    assert "unknown-tenant" in (await cli("migrate", "status", "default")).err
    assert "operator-only" in (await cli("tenants", "list")).err


async def test_readiness_says_why_not_and_fails(cli: Cli) -> None:
    shown = await cli("migrate", "readiness")
    assert shown.code == 1 and "is not ready to go on" in shown.err
    assert "fallback → websocket" in shown.out and "too-few-sockets" in shown.out
    answer = await cli("migrate", "readiness", "--json")
    assert json.loads(answer.out)["ready"] is False


async def test_census_parity_and_audit_are_shown(cli: Cli) -> None:
    node = cli.node
    headers = {"user-agent": "okhttp/4.9 [bold]", "origin": "http://app.test"}
    async with (
        await open_stream(node.port, node.token("ann"), headers=headers, app="1.2") as stream,
        await open_socket(node.port, node.token("bob"), instance="tab") as socket,
    ):
        await stream.welcome()
        await socket.welcome()
        await node.composition.witness.recorder.flush()
        shown = await cli("migrate", "census")
        for words in ("default: 1 live on SSE, 1 on WebSocket", "okhttp", "1.2", "http://app.test"):
            assert words in shown.out, shown.out
        only = (await cli("migrate", "census", "--transport", "ws", "--json")).json
        assert [row["transport"] for row in only["rows"]] == ["ws"]
    await cli("migrate", "set", "--stage", "shadow", *WHY)
    report = {"instance": "t[red]", "sse": {"ids": ["n1"]}, "websocket": {"ids": []}}
    await node.http.post("/v1/parity", json=report, headers=node.auth("ann"))
    await node.composition.witness.recorder.flush()
    parity = await cli("migrate", "parity")
    for words in ("stage shadow", "the server", "missing-on-websocket", "n1", "t[red]", "client"):
        assert words in parity.out, parity.out
    (kept,) = (await cli("migrate", "parity", "--json")).json["mismatches"]
    assert (kept["source"], kept["user"]) == ("client", "ann")
    audit = await cli("migrate", "audit")
    assert "a test" in audit.out and "default/ops" in audit.out
    (entry,) = (await cli("migrate", "audit", "--limit", "1", "--json")).json["entries"]
    assert entry["to"]["stage"] == "shadow"
    denied = await cli("migrate", "census", "nobodys")
    assert denied.code == 1 and not denied.out


async def test_tenants_and_their_keys(cli: Cli) -> None:
    made = await cli(
        *("tenants", "create", "acme", "--generate", "--kid", "k1", "--rate", "5", "--burst", "9"),
        *("--origin", "https://a.example", "--public-channel", "topic:*", "--json"),
    )
    secret = made.json["secret"]
    assert len(secret) >= 32
    twice = await cli("tenants", "create", "acme")
    assert twice.code == 1 and "tenant-exists" in twice.err
    shown = await cli("tenants", "show", "acme")
    assert shown.code == 0 and "topic:*" in shown.out and "k1" in shown.out and secret not in shown.out
    quota = (await cli("tenants", "set", "acme", "--rate", "off", "--connections", "7", "--json")).json
    assert quota["settings"]["publish_rate_per_s"] is None and quota["settings"]["publish_burst"] == 9
    assert quota["settings"]["max_connections"] == 7
    key = ("tenants", "keys", "add", "acme", "--kid", "k2", "--secret-file", "-")
    added = await cli(*key, stdin="x" * 40 + "\n")
    assert added.code == 0 and "k2" in added.out and "x" * 40 not in added.out + added.err
    weak = await cli(*key[:-4], "--kid", "k3", "--secret-file", "-", stdin="short")
    assert weak.code == 1 and "at least 32 bytes" in weak.err
    listed = (await cli("tenants", "keys", "list", "acme", "--json")).json
    assert [found["kid"] for found in listed["keys"]] == ["k1", "k2"]
    assert (await cli("tenants", "keys", "remove", "acme", "--kid", "k1")).code == 0
    why = ("--why", "k2 has leaked")
    last = (await cli("tenants", "keys", "remove", "acme", "--position", "0", "--json", *why)).json
    assert last["keys"] == []
    history = await cli("tenants", "set", "acme", "--history", "50", "--history-age", "3600", "--json")
    assert (history.json["settings"]["history_entries"], history.json["settings"]["history_s"]) == (50, 3_600)
    audit = await cli("migrate", "audit", "acme")
    for shown_there in ("key: HS256 k2", "k2 has leaked", "history entries: none", "history entries: 50"):
        assert shown_there in audit.out, audit.out
    assert secret not in audit.out and "x" * 40 not in audit.out
    everybody = await cli("tenants", "list")
    assert "acme" in everybody.out and "default" in everybody.out
    overview = (await cli("migrate", "status", "--all", "--json")).json
    assert [found["id"] for found in overview["tenants"]] == ["acme", "default", "other"]
    for wrong in (
        ("keys", "add", "acme"),
        ("keys", "add", "acme", "--generate", "--jwks-url", "https://e.org"),
        ("keys", "add", "acme", "--jwks-url", "https://e.org"),
        ("keys", "remove", "acme"),
        ("set", "acme"),
        ("set", "acme", "--rate", "fast"),
    ):
        assert (await cli("tenants", *wrong)).code == 2, wrong


async def test_what_users_wrote_is_shown_as_it_is(cli: Cli) -> None:
    cli.sub = "[red]x[/red]"
    await cli("migrate", "set", "--percent", "5", "--allow", "[b]a", "--why", "[link=x] see #5")
    shown = await cli("migrate", "status")
    assert "default/[red]x[/red]" in shown.out and "[link=x] see #5" in shown.out


def test_the_demo_key_signs_for_an_operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DUALCAST_TOKEN", raising=False)
    demo_key(Settings().bus.data_dir)
    there = operator_at("http://127.0.0.1:1", None)
    claims = jwt.decode(there.token, options={"verify_signature": False})
    assert claims["roles"] == ["operator"] and _claimed(there.token) == "default"


def test_claims_of_tokens_that_are_none() -> None:
    for text in ("", "a.b", "a.b.c", "a.W10.c", "a.é.c", "a.eyJ4IjoxfQ.c"):
        assert _claimed(text) == ""


def test_times() -> None:
    now = 1_700_000_000.5
    assert when("now", now) == 1_700_000_000
    assert when("off", now) == when("none", now) == 0
    assert when("+2h", now) == 1_700_007_200
    assert when("2023-11-14", now) == when("2023-11-14T00:00Z", now) == when("2023-11-14T01:00+01:00", now)
