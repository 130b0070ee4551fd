"""docs/guides/migrate-from-sse.md as it stands: its commands in their order, its publishers and its page,
against a server with Redis beside an old backend; with people connected who must miss nothing."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import shlex
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import httpx
import pytest

from dualcast.cli.root import cli
from dualcast_client import close_default
from dualcast_migration import readiness
from support.chromium import Chromium
from support.clients import Client, SseClient, open_socket, open_stream
from support.older_backend import OlderBackend
from support.raw_http import connect
from support.redis_server import RedisServer
from support.server_process import SECRET, ServerProcess, token

pytestmark = pytest.mark.anyio

GUIDE = Path(__file__).parents[2] / "docs/guides/migrate-from-sse.md"
TEXT = GUIDE.read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
SPY = """
    window.sockets = []
    window.WebSocket = class extends WebSocket { constructor(...a) { super(...a); sockets.push(this) } }
    0"""
CROWD = 24
"""More than the samples the budgets ask for."""
WAIT_S = 40.0
SETTLED_S = 5


def blocks(language: str) -> list[str]:
    return [text for found, text in BLOCKS if found == language]


def commands() -> list[tuple[str, str]]:
    """Every `sh` block, and what the guide says it prints."""
    following = [*BLOCKS[1:], ("", "")]
    return [
        (text, after if kind == "text" else "")
        for (language, text), (kind, after) in zip(BLOCKS, following, strict=True)
        if language == "sh"
    ]


def pattern(shown: str) -> str:
    """`…` alone in a line: any lines; within one: anything."""
    lines = []
    for line in shown.splitlines():
        words = r"\s+".join(re.escape(word) for word in line.split())
        lines.append(r"(?:.*\n)*?" if line == "…" else r" *" + words.replace("…", ".*") + r" *\n")
    return "".join(lines).removesuffix(r"\n") + r"\n*"


class Shell:
    """Runs blocks one after the other; what they export lives on."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self._exported = folder / "exported"
        self._exported.touch()
        (folder / "dualcast").write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m dualcast "$@"\n')
        (folder / "dualcast").chmod(0o755)
        self._folder = folder
        path = f"{folder}:/usr/local/bin:/usr/bin:/bin"
        self._environ = {"PATH": path, "COLUMNS": "400", "PYTHONUNBUFFERED": "1", **environ}

    async def run(self, block: str) -> str:
        script = f'set -e\n. "{self._exported}"\n{block}\nexport -p > "{self._exported}"\n'
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", script),
            cwd=self._folder,
            env=self._environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(WAIT_S):
            out, _ = await process.communicate()
        assert process.returncode == 0, f"{block}\n{out.decode()}"
        return out.decode().replace("\r\n", "\n")


@dataclass
class Site:
    """The server, who is connected, and what they must have got."""

    server: ServerProcess
    http: httpx.AsyncClient
    old: OlderBackend
    page: Chromium
    legacy: SseClient
    sent: list[str]

    async def say(self, title: str) -> None:
        """Notifies alice (the page of the guide) and bob (a page of the old kind), and waits for both."""
        for user in ("alice", "bob"):
            body = {"to": {"user": user}, "title": title}
            answer = await self.http.post("/v1/notifications", json=body)
            assert answer.status_code == 201, answer.text
        self.sent.append(title)
        await self.page.until(f"got.includes({json.dumps(title)})")

    async def heard_by_bob(self, title: str) -> None:
        await self.legacy.until("notification", lambda got: got.body["title"] == title)

    async def ask(self, path: str) -> dict[str, Any]:
        answer = await self.http.get(f"/v1/tenants/default/{path}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def until(self, path: str, wanted: Callable[[dict[str, Any]], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not wanted(await self.ask(path)):
                await asyncio.sleep(0.2)

    async def settled(self) -> None:
        """What is counted from here on belongs to the stage as it is: its first buckets (5 s) are over."""
        await self.until("readiness", lambda view: view["totals"]["seconds"] > SETTLED_S)


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[tuple[Site, Shell]]:
    (settings,) = blocks("toml")
    (folder / "dualcast.toml").write_text(settings)
    with RedisServer(aof="everysec", tcp=True) as redis:
        environ = {"DUALCAST_CONFIG": str(folder / "dualcast.toml")}
        headers = {"Authorization": "Bearer " + token("test", roles=["publisher", "operator"])}
        async with (
            ServerProcess("redis", folder, redis_url=redis.url, environ=environ) as server,
            httpx.AsyncClient(base_url=server.base_url, headers=headers) as http,
            OlderBackend(redis.url, sse={"alice", "bob", "carol"}) as old,
            Chromium() as page,
            await legacy_stream(server.port, token("bob")) as legacy,
        ):
            await server.until_metric("dualcast_older_connected", lambda value: value == 1)
            await legacy.until("connected")
            await page.open(server.base_url + "/healthz")
            await page.run(SPY)
            (script,) = blocks("js")
            await page.run(
                f"window.got = []; {script.replace('export function', 'window.follow = function')}"
            )
            await page.run(f"follow('{token('alice')}', (message) => got.push(message.data.title))")
            shell = Shell(
                folder,
                DUALCAST_URL=server.base_url,
                DUALCAST_REDIS_URL=redis.url,
                DUALCAST_JWT_SECRET=SECRET,
            )
            yield Site(server, http, old, page, legacy, []), shell


async def legacy_stream(port: int, bearer: str) -> SseClient:
    """The page of the guide that is on the old endpoint."""
    (html,) = blocks("html")
    (path,) = re.findall(r"EventSource\('([^']+)' \+ token\)", html)
    wire = await connect(port)
    wire.write(f"GET {path}{bearer} HTTP/1.1\r\nhost: test\r\n\r\n".encode())
    assert (await wire.read_response(body=False)).status == 200
    return SseClient(wire)


# ── what happens between the commands: people, traffic, trouble ──


async def publishers(here: Site) -> None:
    """Both publishers of the guide, one after the other, reach pages here and on the old server."""
    theirs, ours = blocks("python")
    names: dict[str, Any] = {"REDIS_URL": str(here.old.redis.connection_pool.connection_kwargs["port"])}
    names["REDIS_URL"] = f"redis://127.0.0.1:{names['REDIS_URL']}/0"
    exec(compile(theirs, str(GUIDE), "exec"), names)
    await asyncio.to_thread(names["notify"], "bob", "by the old publisher")
    names["pubsub"].close()
    await here.heard_by_bob("by the old publisher")
    bearer = token("shop", roles=["publisher"])
    names = {"DUALCAST_URL": here.server.base_url, "DUALCAST_TOKEN": bearer}
    exec(compile(ours, str(GUIDE), "exec"), names)
    message = {"id": "moved-1", "type": "orders", "title": "by the new publisher", "link": "/orders"}
    await asyncio.to_thread(names["notify"], "bob", message)
    await close_default()
    await here.heard_by_bob("by the new publisher")
    for title in ("by the old publisher", "by the new publisher"):
        await here.old.until(lambda wanted=title: wanted in titles(here.old, "bob"), title)


async def in_sse(here: Site) -> None:
    """Sockets are refused, the page gets its messages over SSE."""
    async with await open_socket(here.server.port, token("dora"), instance="d") as refused:
        assert (await refused.end()).code == 4010
    await here.say("in stage sse")
    await here.heard_by_bob("in stage sse")


async def compared(here: Site) -> None:
    """A typical day of shadow, in short."""
    await here.settled()
    async with crowd(here, CROWD):
        async with asyncio.timeout(WAIT_S):
            while not (await here.ask("readiness"))["ready"]:
                body = {"to": {"all": True}, "title": "for the crowd", "store": False}
                assert (await here.http.post("/v1/notifications", json=body)).status_code == 201
                await asyncio.sleep(0.5)
    await here.say("in stage shadow")
    await here.heard_by_bob("in stage shadow")


async def upgrades_fail(here: Site) -> None:
    """A proxy drops upgrades: clients open their stream and say so, until the guard acts."""
    await here.settled()
    streams = [
        open_stream(here.server.port, token(f"office-{number}"), fallback_reason="open-failed", instance="o")
        for number in range(CROWD)
    ]
    for stream in await asyncio.gather(*streams):
        await stream.close()
    await here.until("migration", lambda view: view["record"]["held_until"] > 0)
    await here.say("after the guard")


async def muted(here: Site) -> None:
    """The page's stream is silent beside its socket, the old page's never; it takes over when that ends."""
    try:
        await here.server.until_metric("dualcast_sessions_muted", lambda value: value >= 1)
    except TimeoutError:
        sockets = await here.page.run("sockets.map((one) => one.readyState)")
        answer = await here.http.get("/v1/connections", params={"user": "alice"})
        counts = [await here.server.metric(f"dualcast_{name}") for name in ("instances", "mutes", "unmutes")]
        here.page.console.append(f"{sockets} {counts} {answer.text} {await here.ask('migration')}")
        raise AssertionError(f"nothing is muted: {here.page.console} {here.page.failures}") from None
    await here.say("over the socket")
    await here.heard_by_bob("over the socket")
    await here.page.run("sockets.at(-1).close()")
    await here.say("over the stream")
    await here.server.until_metric("dualcast_unmutes", lambda value: value >= 1)
    await here.server.until_metric("dualcast_sessions_muted", lambda value: value >= 1)


async def rolled_back(here: Site) -> None:
    await here.say("during the drill")
    await here.heard_by_bob("during the drill")


async def at_the_end(here: Site) -> None:
    """The socket goes on after the sunset."""
    await here.say("after the sunset")
    once = Counter(here.sent)
    assert Counter(one for one in await here.page.run("got") if one in once) == once
    for user in ("alice", "bob"):  # pages that are still on the old server
        assert Counter(one for one in titles(here.old, user) if one in once) == once


BETWEEN: dict[str, Callable[[Site], Any]] = {
    "limit=1": publishers,
    "Upgrade: websocket": in_sse,
    "default/parity": compared,
    "--history 1": upgrades_fail,
    '"drill"': muted,
    '"the drill is over"': rolled_back,
}
"""What has to happen before the block with these words."""


@asynccontextmanager
async def crowd(here: Site, count: int) -> AsyncIterator[None]:
    """So many pages with both connections."""
    async with AsyncExitStack() as stack:
        for number in range(count):
            for opened in (open_stream, open_socket):
                page: Client = await opened(here.server.port, token(f"user-{number}"), instance="page")
                await stack.enter_async_context(page)
                await page.welcome()
        yield


def titles(old: OlderBackend, user: str) -> list[str]:
    """What a page on the old server got."""
    return [said["title"] for whose, said in old.delivered if whose == user]


@pytest.mark.timeout(240)
async def test_the_guide_does_what_it_says(tmp_path: Path) -> None:
    async with site(tmp_path) as (here, shell):
        waiting = dict(BETWEEN)
        for block, shown in commands():
            for words in [words for words in waiting if words in block]:
                await waiting.pop(words)(here)
            if "order-1" in shown:
                await here.page.until("got.includes('Order 1 is on its way')")
            said = await shell.run(block)
            matched = not shown or re.fullmatch(pattern(shown), said)
            assert matched, f"{block}\nprinted\n{said}\nand not\n{shown}"
        assert not waiting, waiting
        await at_the_end(here)
        async with httpx.AsyncClient() as http:
            exposed = (await http.get(here.server.base_url + "/metrics")).text
        for name in metric_names():
            assert any(re.search(rf"\b{one}\b", exposed) for one in name), name


def metric_names() -> list[list[str]]:
    """Every metric the guide names, each as what it may stand for: `_b` behind `dualcast_a_c` is
    `dualcast_a_b`, or `dualcast_a_c_b`."""
    found: list[list[str]] = []
    full = ""
    for span in re.findall(r"`((?:dualcast)?_[a-z0-9_]+)`", TEXT):
        if not span.startswith("_"):
            full = span
            found.append([span])
        else:
            parts = full.split("_")
            found.append(["_".join(parts[:end]) + span for end in range(1, len(parts) + 1)])
    assert len(found) > 8
    return found


def test_commands_in_the_text_exist() -> None:
    named = re.findall(r"`(dualcast [^`\n]+)`", TEXT) + re.findall(r"^\$ (dualcast .+)$", TEXT, re.MULTILINE)
    assert len(named) >= 5
    for text in named:
        words = shlex.split(text)[1:]
        command: click.Command = cli
        while isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        options = {name: option for option in command.params for name in option.opts}
        given = {options[word].name for word in words if word.startswith("--")}
        assert {option.name for option in options.values() if option.required} <= given, text


def test_the_codes_of_readiness_in_the_guide_exist() -> None:
    (table,) = re.findall(r"^\| step \|.*?\n\n", TEXT, re.DOTALL | re.MULTILINE)
    named = set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", " ".join(re.findall(r"readiness: no ([^|]+)", table))))
    source = inspect.getsource(readiness)
    assert len(named) >= 7
    assert {name for name in named if f'"{name}"' not in source} == set()
