"""Two tenants on one server: what the quiet one notices of the other.

`Quiet` publishes at a constant rate to its own subscribers, one per transport, and measures from the moment a
publication was due (so waiting for a slow server counts): until its answer, and until its arrival.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jwt
from msgspec import Struct

from support.clients import TRANSPORTS, Client, open_client
from support.raw_http import Wire, connect

LOUD, QUIET = "loud", "quiet"
SECRETS = {name: f"a secret of the tenant {name} that is long enough" for name in (LOUD, QUIET)}
CHANNEL = "user:reader"
PATIENCE_S = 60.0
PUBLISHERS = 64
"""Connections of the quiet tenant's backend: enough that none has to wait for another's answer."""


def two_tenants(folder: Path) -> dict[str, object]:
    """Settings of a `ServerProcess` that has both tenants."""
    file = folder / "tenants.json"
    file.write_text(json.dumps({"tenants": [{"id": name} for name in SECRETS]}))
    keys = [{"secret": secret, "tenant": name} for name, secret in SECRETS.items()]
    return {"identity.keys": json.dumps(keys), "tenancy.file": str(file), "log.level": "warning"}


def token_of(tenant: str, sub: str, *roles: str) -> str:
    """A token of one of the two tenants."""
    claims = {"sub": sub, "tenant": tenant, "roles": list(roles), "exp": int(time.time()) + 3600}
    return jwt.encode(claims, SECRETS[tenant], algorithm="HS256")


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of `values` do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Seen(Struct, frozen=True):
    """One measurement: milliseconds from when each publication was due to its answer, and to its arrival."""

    answered_ms: list[float]
    arrived_ms: dict[str, list[float]]
    """By transport."""

    def __str__(self) -> str:
        rows = {"answer": self.answered_ms, **self.arrived_ms}
        return ", ".join(
            f"{name} p50 {percentile(row, 0.5):.1f} p99 {percentile(row, 0.99):.1f} max {max(row):.1f} ms"
            for name, row in rows.items()
        )

    @property
    def p99_ms(self) -> float:
        """The worst 99th percentile: of the answers, or of either transport's arrivals."""
        return max(percentile(row, 0.99) for row in (self.answered_ms, *self.arrived_ms.values()))


class Quiet:
    """The quiet tenant: its backend and its two subscribers."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._token = token_of(QUIET, "backend", "publisher")
        self._wires: asyncio.Queue[Wire] = asyncio.Queue()
        self._stack = AsyncExitStack()
        self._readers: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self.sent: list[str] = []
        """Ids, in the order of their offsets."""
        self.arrived: dict[str, list[tuple[str, float]]] = {name: [] for name in TRANSPORTS}
        """By transport: id and time (monotonic), as they came."""

    async def __aenter__(self) -> Self:
        for transport in TRANSPORTS:
            client = await open_client(transport, self._port, token_of(QUIET, "reader"))
            self._stack.push_async_callback(client.close)
            await client.welcome()
            self._readers.append(asyncio.create_task(self._read(client, self.arrived[transport])))
        for _ in range(PUBLISHERS):
            self._wires.put_nowait(await connect(self._port))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        with contextlib.suppress(asyncio.QueueEmpty):
            while True:
                self._wires.get_nowait().reset()
        await self._stack.aclose()

    async def measure(self, *, rate: float, count: int) -> Seen:
        """Publishes `count` at `rate` per second and waits until both subscribers have them all."""
        loop = asyncio.get_running_loop()
        begun = time.monotonic()
        due: dict[str, float] = {}
        tasks = []
        for number in range(count):
            at = begun + number / rate
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            ident = f"q-{len(self.sent) + number}"
            due[ident] = at
            tasks.append(loop.create_task(self._publish(ident, at)))
        answers = await asyncio.gather(*tasks)
        self.sent += [ident for _, ident, _ in sorted(answers)]
        async with asyncio.timeout(PATIENCE_S):
            while any(len(got) < len(self.sent) for got in self.arrived.values()):
                self._changed.clear()
                await self._changed.wait()
        return Seen(
            [ms for _, _, ms in answers],
            {
                name: [(at - due[ident]) * 1000 for ident, at in got if ident in due]
                for name, got in self.arrived.items()
            },
        )

    async def _publish(self, ident: str, due: float) -> tuple[int, str, float]:
        """(offset, id, milliseconds until the answer)."""
        body = json.dumps({"to": {"user": "reader"}, "id": ident, "title": "q"}).encode()
        wire = await self._wires.get()
        wire.write(
            b"POST /v1/notifications HTTP/1.1\r\nHost: quiet\r\nAuthorization: Bearer "
            + self._token.encode()
            + b"\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            + body
        )
        async with asyncio.timeout(PATIENCE_S):
            response = await wire.read_response()
        took_ms = (time.monotonic() - due) * 1000
        self._wires.put_nowait(wire)
        assert response.status == 201, response
        return int(json.loads(response.body)["cursor"].rpartition("-")[2]), ident, took_ms

    async def _read(self, client: Client, into: list[tuple[str, float]]) -> None:
        while True:
            got: Any = await client.next(3600)
            if got.kind == "publication":
                into.append((got.body["id"], time.monotonic()))
                self._changed.set()
