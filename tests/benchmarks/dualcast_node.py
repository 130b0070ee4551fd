"""dualcast as a contender: one node under test, a second one to publish through, a token for every
subscriber.

Everything is on as it is by default: authentication, cursors, history in Redis, limits, metrics.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import jwt

from benchmarks.contenders import PAYLOAD_BYTES, Bench, Contender
from benchmarks.processes import BenchmarkFailed, Running, free_port

SECRET = "benchmarks-only-secret-of-48-bytes-or-so-0123456"
_SERVE = "import sys; from dualcast.cli import main; sys.exit(main())"
_PATHS = {"sse": "/v1/stream", "ws": "/v1/socket"}
USERS = 10_000
"""Tokens written; connection i is user `bench-i`."""
BATCH_ITEMS = 100
BATCH_PAUSE_MS = 5
"""A publisher at a high rate collects for this long; it is part of the latency measured."""
_NOTIFICATION_DATA_BYTES = 64
"""A notification wraps the publisher's data into about 230 more bytes: with these the message is a little
above the 200 bytes the others carry.
"""

ONE = '{"channel":"all","type":"bench","data":%p}'
ONE_USER = '{"channel":"user:bench-%d","type":"bench","data":%p}'
ITEM = '{"to":{"all":true},"title":"bench","data":%p}'
ITEM_USER = '{"to":{"user":"bench-%d"},"title":"bench","data":%p}'


def token(subject: str, **claims: object) -> str:
    return jwt.encode({"sub": subject, "exp": int(time.time()) + 7200, **claims}, SECRET, algorithm="HS256")


class Dualcast(Contender):
    """`through`: `node` publishes through a second node on the load CPUs (only delivery is measured),
    `server` through the server under test, which then pays for both.
    """

    name = "dualcast"
    note = "published by REST through a second node"
    through: ClassVar[str] = "node"
    settings: Mapping[str, str] = MappingProxyType({})
    """Environment beside the usual."""

    def __init__(self, bench: Bench, transport: str) -> None:
        super().__init__(bench, transport)
        self.publisher_token = token("bench-publisher", roles=["publisher"])
        self.cursor = ""
        self._second: Running | None = None
        self.publish_port = self.port

    def start(self) -> None:
        self._write_tokens()
        self.server = self._node("dualcast", self.port, self.bench.server_cpus)
        if self.through == "node":
            self.publish_port = free_port()
            self._second = self._node("dualcast-publisher", self.publish_port, self.bench.load_cpus)
        for node, port in ((self.server, self.port), (self._second, self.publish_port)):
            if node is not None:
                self._wait_ready(node, port)

    def stop(self) -> None:
        super().stop()
        if self._second is not None:
            self._second.stop()

    def _node(self, name: str, port: int, cpus: set[int]) -> Running:
        environment = {
            "DUALCAST_JWT_SECRET": SECRET,
            "DUALCAST_HOST": "127.0.0.1",
            "DUALCAST_PORT": str(port),
            "DUALCAST_ENGINE": "redis",
            "DUALCAST_REDIS_URL": f"redis://127.0.0.1:{self.bench.redis.port}/0",
            "DUALCAST_LOG_LEVEL": "warning",
            **self.settings,
        }
        command = [sys.executable, "-c", _SERVE, "serve"]
        return Running(name, command, cpus=cpus, folder=self.bench.folder, env=environment)

    def _wait_ready(self, node: Running, port: int) -> None:
        node.wait_port(port)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                    return
            except OSError:
                time.sleep(0.05)
        raise node.failure("is not ready after 10 s")

    @property
    def _token_file(self) -> Path:
        return self.bench.folder / "tokens"

    def _write_tokens(self) -> None:
        self._token_file.write_text("".join(token(f"bench-{i}") + "\n" for i in range(USERS)))

    def fan_arguments(self, connections: int) -> list[str]:
        arguments = ["--port", str(self.port), "--mode", self.transport, "--connections", str(connections)]
        arguments += ["--tokens", str(self._token_file), "--header", "Authorization: Bearer %t"]
        path = _PATHS[self.transport] + "?channels=all"
        if self.cursor:
            path += f"&cursor={self.cursor}"
        return [*arguments, "--path", path]

    def _http(self, port: int) -> list[str]:
        return [
            *("--port", str(port), "--protocol", "http"),
            *("--header", f"Authorization: Bearer {self.publisher_token}"),
        ]

    def publish_arguments(self, *, rate: float, seconds: float, targets: int = 0) -> list[str]:
        arguments = [*self._http(self.publish_port), "--rate", str(rate), "--seconds", str(seconds)]
        if targets:
            arguments += ["--targets", str(targets), "--stream", "1"]
        if rate <= 200 and not targets:
            return [*arguments, *self.single(targets)]
        return [*arguments, *self.batch(targets), "--pause-ms", str(BATCH_PAUSE_MS)]

    def single(self, targets: int) -> list[str]:
        """Options for one publication per request to `POST /v1/publish`."""
        item = ONE_USER if targets else ONE
        return [
            *("--path", "/v1/publish", "--header", "Content-Type: application/json"),
            *("--item", item, "--payload", str(PAYLOAD_BYTES)),
        ]

    def batch(self, targets: int) -> list[str]:
        """Options for NDJSON batches to `POST /v1/notifications/batch`."""
        item = ITEM_USER if targets else ITEM
        return [
            *("--path", "/v1/notifications/batch", "--header", "Content-Type: application/x-ndjson"),
            *("--item", item, "--payload", str(_NOTIFICATION_DATA_BYTES), "--batch", str(BATCH_ITEMS)),
        ]

    def notifications(self, *, batched: bool, store: bool) -> list[str]:
        """Options for notifications to single users, stored in their inboxes or not, one per request or in
        batches."""
        arguments = self.batch(1) if batched else self.single(1)
        stored = "true" if store else "false"
        item = ITEM_USER.replace("%p", f'%p,"store":{stored}')
        arguments[arguments.index("--item") + 1] = item
        arguments[arguments.index("--path") + 1] = (
            "/v1/notifications/batch" if batched else "/v1/notifications"
        )
        arguments[arguments.index("--payload") + 1] = str(_NOTIFICATION_DATA_BYTES)
        return arguments

    def closed_loop(
        self, arguments: list[str], *, connections: int, seconds: float, count: int = 0
    ) -> list[str]:
        """Options for publishing through the server under test as fast as it answers."""
        bound = ["--count", str(count)] if count else []
        return [
            *(*self._http(self.port), *arguments, *bound),
            *("--rate", "0", "--connections", str(connections), "--seconds", str(seconds)),
        ]

    def publish_one(self) -> str:
        """Publishes one message without a marker to `all`; its cursor."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/publish",
            data=json.dumps({"channel": "all", "type": "bench", "data": {}}).encode(),
            headers={"Authorization": f"Bearer {self.publisher_token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return str(json.load(response)["cursor"])
        except urllib.error.HTTPError as error:
            raise BenchmarkFailed(f"publish: {error.code} {error.read()[:300]!r}") from None


class DualcastAlone(Dualcast):
    """Without the second node: for what the server does by itself."""

    through = "server"
    note = "published by REST through the server under test"


class DualcastInbox(DualcastAlone):
    """With inboxes that may hold more than 10,000 items."""

    settings: Mapping[str, str] = MappingProxyType({"DUALCAST_INBOX__MAX_ITEMS": "20000"})
