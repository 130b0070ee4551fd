"""What the drill of devices stands on: the account, two nodes over one Redis, everybody's devices."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from chaos.device_clients import Device, Receiver
from support.accounting import Changes
from support.server_process import ServerProcess, token

PUSH_SECRET = "a push secret of the drill that is long enough"
POLL_S = 0.05
WIDTH = 60
"""Of a column of the account."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How big a drill is."""

    lease_s: float = 30.0
    reads: int = 40
    """Markings whose way to the other device is measured."""
    badge_s: float = 1.0
    """How long that may take."""


@dataclass
class Outcome:
    """Lines of the account: what, wanted, got, right or not."""

    rows: list[tuple[str, str, str, bool]] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, what: str, wanted: object, got: object) -> None:
        """Right when both are the same."""
        self.rows.append((what, _words(wanted), _words(got), wanted == got))

    def within(self, what: str, bound_s: float, got_s: float) -> None:
        """Right when it took at most `bound_s`."""
        self.rows.append((what, f"≤ {bound_s:.1f} s", f"{got_s:.3f} s", got_s <= bound_s))

    @property
    def wrong(self) -> list[str]:
        return [f"{what}: wanted {wanted}, got {got}" for what, wanted, got, right in self.rows if not right]

    def table(self) -> str:
        """All lines; `wrong` has the full text of those cut off here."""
        cut = [
            [text if len(text) <= WIDTH else text[: WIDTH - 1] + "…" for text in row[:3]] for row in self.rows
        ]
        widths = [max(len(row[i]) for row in cut) for i in range(3)]
        lines = []
        for row, (*_, right) in zip(cut, self.rows, strict=True):
            text = "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True))
            lines.append(f"  {text}  {'ok' if right else 'WRONG'}")
        return "\n".join(
            [*lines, f"  {len(self.rows)} checks, {len(self.wrong)} wrong, {self.seconds:.1f} s"]
        )


def _words(value: object) -> str:
    """`phone, laptop 2` for {phone: 1, laptop: 2}; text of anything else."""
    if isinstance(value, dict):
        names = ("/".join(key) if isinstance(key, tuple) else str(key) for key in value)
        parts = [
            f"{name} {count}" if count != 1 else name
            for name, count in zip(names, value.values(), strict=True)
        ]
        return ", ".join(parts) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)


@dataclass(kw_only=True)
class Drill:
    """Two nodes, everybody's devices, and the account so far."""

    plan: Plan
    nodes: tuple[ServerProcess, ServerProcess]
    http: httpx.AsyncClient
    receiver: Receiver
    changes: Changes
    devices: dict[str, Device]
    outcome: Outcome = field(default_factory=Outcome)
    sent: int = 0
    pushed: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Pushes that are due."""

    async def notify(
        self, to: Mapping[str, Any], title: str, *, node: int | None = None, **fields: Any
    ) -> str:
        """Notifies through a node, the two in turn; the id. Fails unless it was accepted."""
        self.sent += 1
        answer = await self.post(
            self.sent % 2 if node is None else node, {"to": to, "title": title, **fields}
        )
        assert answer.status_code in (200, 201), f"{title}: {answer.text}"
        return str(answer.json()["id"])

    async def post(self, node: int, body: dict[str, Any]) -> httpx.Response:
        """`POST /v1/notifications` at a node. Nothing is pushed unless `body` says so."""
        url = self.nodes[node].base_url + "/v1/notifications"
        headers = {"Authorization": "Bearer " + token("backend", roles=["publisher"])}
        return await self.http.post(url, json={"push": "never", **body}, headers=headers)

    async def get(self, path: str, user: str = "", node: int = 1) -> dict[str, Any]:
        """GET at a node as a user, or as an admin."""
        bearer = token(user) if user else token("root", roles=["admin", "publisher"])
        headers = {"Authorization": "Bearer " + bearer}
        answer = await self.http.get(self.nodes[node].base_url + path, headers=headers)
        assert answer.status_code == 200, f"{path}: {answer.text}"
        found: dict[str, Any] = answer.json()
        return found

    async def read_by_rest(self, device: Device, ids: list[str] | None) -> None:
        """Marks items of a device's user as read through its node; None: all."""
        body = {"all": True} if ids is None else {"ids": ids}
        url = f"{device.server.base_url}/v1/users/{device.user}/notifications/read"
        answer = await self.http.post(url, json=body, headers={"Authorization": "Bearer " + device.token})
        assert answer.status_code == 200, answer.text

    async def seen_by_all(self, title: str, *names: str) -> None:
        """Waits until these devices have it."""
        await self.changes.until(lambda: all(self.devices[name].titles[title] for name in names), title)

    async def until(self, right: Callable[[], Awaitable[bool]], bound_s: float) -> float:
        """Asks until it is right; the seconds it took. Gives up after `bound_s` and says more than that."""
        start = time.monotonic()
        while not await right():
            if time.monotonic() - start > bound_s:
                return bound_s + 999
            await asyncio.sleep(POLL_S)
        return time.monotonic() - start

    async def connections(self, user: str) -> int:
        """How many connections node B knows of, over all nodes."""
        return int((await self.get(f"/v1/presence/{user}"))["connections"])

    async def everybody_there(self) -> bool:
        """Whether presence counts alice's two connections and bob's one."""
        return await self.connections("alice") == 2 and await self.connections("bob") == 1


@asynccontextmanager
async def prepared(folder: Path, redis_url: str, plan: Plan) -> AsyncIterator[Drill]:
    """Nodes A and B up, everybody connected, and presence knows it."""
    changes = Changes()
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(Receiver(PUSH_SECRET, changes))
        settings = {
            "presence.lease_s": plan.lease_s,
            "push.provider": "webhook",
            "push.url": receiver.url,
            "push.secret": PUSH_SECRET,
        }
        nodes = []
        for name in ("a", "b"):
            (folder / name).mkdir()
            server = ServerProcess("redis", folder / name, redis_url=redis_url, settings=settings)
            nodes.append(await stack.enter_async_context(server))
        a, b = nodes
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=30))
        devices = [
            Device("desk", "carol", "desktop", "ws", b, changes, http),
            Device("phone", "alice", "mobile", "ws", a, changes, http),
            Device("laptop", "alice", "desktop", "sse", b, changes, http),
            Device("tablet", "bob", "tablet", "ws", a, changes, http),
        ]
        drill = Drill(
            plan=plan,
            nodes=(a, b),
            http=http,
            receiver=receiver,
            changes=changes,
            devices={device.name: device for device in devices},
        )
        for device in devices:
            await device.connect()
            stack.push_async_callback(device.close)
        await drill.until(drill.everybody_there, 10)
        await changes.until(
            lambda: {name for one in devices[0].presence for name in one["joined"]} >= {"alice", "bob"},
            "joins",
        )
        yield drill
