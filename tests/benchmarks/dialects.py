"""Fan-out over the legacy contracts, beside the native fan-out of the same server.

One server runs through all of them in turn, the native one first and last, so that a machine that becomes
faster or slower meets every contract alike. Each publication is one that the contract really has, on a
channel that its clients share: see `KINDS`.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

from benchmarks.contenders import PAYLOAD_BYTES
from benchmarks.dualcast_node import ONE, Dualcast
from benchmarks.processes import BenchmarkFailed
from benchmarks.scenarios import Bench, Figures, fan_out

NATIVE = "native"
ONE_USER = "bench-0"
COUNTED = ("lost", "behind", "repeated", "disconnected", "gaps")
"""Figures that add up where others are averaged."""
JOIN_S = 1.0
"""How long 1,000 clients may take to join a room or topic."""


@dataclass(frozen=True)
class Kind:
    """How one contract is subscribed to and published to. `payload`: bytes of text (or of JSON data) that
    make its frame about as long as the native one."""

    name: str
    transport: str
    path: str
    """`%d`: the connection's number."""
    publish: str
    """Path of the REST call."""
    item: str
    payload: int
    first: str = ""
    """What a client says when it is connected."""
    one_user: bool = False
    """All connections are of one user."""
    text: bool = True


_NOTIFY = "/v1/notifications"
_NOTIFICATION = '{"to":{"all":true},"title":"bench","content":"%p","store":false}'
_PROGRESS = (
    '{"channel":"user:bench-0","type":"progress_frame","data":{"type":"batch_report_progress",'
    '"batch_id":"b1","status":"processing","message":"%p","progress":1,"total":4}}'
)
KINDS = (
    Kind(NATIVE, "ws", "/v1/socket?channels=all", "/v1/publish", ONE, PAYLOAD_BYTES, text=False),
    Kind("notifications", "ws", "/api/ws/notifications", _NOTIFY, _NOTIFICATION, 150),
    Kind("rooms", "ws", "/api/v1/ws/bench-%d", _NOTIFY, _NOTIFICATION, 64),
    Kind(
        "rooms, a room",
        "ws",
        "/api/v1/ws/bench-%d",
        "/v1/publish",
        '{"channel":"room:bench","type":"room_message","data":{"type":"bench","data":%p}}',
        290,
        first='{"type":"subscribe","room":"bench"}',
        text=False,
    ),
    Kind("topics", "ws", "/api/ws", _NOTIFY, _NOTIFICATION, 124),
    Kind(
        "topics, a topic",
        "ws",
        "/api/ws",
        "/v1/publish",
        '{"channel":"topic:bench","type":"topic_message","data":{"type":"bench","data":%p}}',
        280,
        first='{"type":"subscribe","topic":"bench"}',
        text=False,
    ),
    Kind(
        "conversations, a direct message",
        "ws",
        "/api/v1/ws?connectionId=bench%%3A%d",
        "/v1/direct-messages",
        '{"user":"bench-0","data":%p}',
        230,
        one_user=True,
        text=False,
    ),
    Kind("progress", "ws", "/ws/bench-0:%d", "/v1/publish", _PROGRESS, 196, one_user=True),
    Kind(NATIVE, "sse", "/v1/stream?channels=all", "/v1/publish", ONE, PAYLOAD_BYTES, text=False),
    Kind("notifications", "sse", "/api/notifications/stream", _NOTIFY, _NOTIFICATION, 150),
)


class DualcastDialects(Dualcast):
    """`kind`: the contract whose turn it is."""

    note = "published by REST through a second node, each contract in its turn"

    def __init__(self, bench: Bench, transport: str) -> None:
        super().__init__(bench, transport)
        self.kind = KINDS[0]

    def fan_arguments(self, connections: int) -> list[str]:
        kind = self.kind
        first = ["--first", kind.first] if kind.first else []
        tokens = self._token_file
        if kind.one_user:
            tokens = self.bench.folder / "token"
            tokens.write_text(self._token_file.read_text().partition("\n")[0] + "\n")
        return [
            *("--port", str(self.port), "--mode", kind.transport, "--connections", str(connections)),
            *("--tokens", str(tokens), "--header", "Authorization: Bearer %t", "--path", kind.path, *first),
        ]

    def publish_arguments(self, *, rate: float, seconds: float, targets: int = 0) -> list[str]:
        kind = self.kind
        return [
            *self._http(self.publish_port),
            *("--rate", str(rate), "--seconds", str(seconds), "--path", kind.publish),
            *("--header", "Content-Type: application/json", "--item", kind.item),
            *("--payload", str(kind.payload), *(["--text"] if kind.text else [])),
        ]

    def wait_subscribed(self, connections: int) -> None:
        super().wait_subscribed(connections)
        if self.kind.first:
            time.sleep(JOIN_S)


def measure(
    bench: Bench, contender: DualcastDialects, *, subscribers: int, rate: float, seconds: float
) -> Figures:
    """Per kind of the contender's transport, as `<kind>: <figure>`: those of `fan_out`, and

    * `ratio`: deliveries per CPU-second against the native ones;
    * `per_write`: deliveries in one write. Above 1, publications came in clumps: the load side was busy;
    * `share`: like `ratio`, of writes instead of deliveries, so that clumps do not flatter anybody.
    """
    kinds = [kind for kind in KINDS if kind.transport == contender.transport]
    turns: list[tuple[str, Figures]] = []
    for kind in (*kinds, kinds[0]):
        contender.kind = kind
        _publish_one(contender, kind)  # the first of a channel, or of a kind, is not what is measured
        found = fan_out(bench, contender, subscribers=subscribers, rate=rate, user_rate=0, seconds=seconds)
        turns.append((kind.name, found))
        time.sleep(0.5)  # those who left are being taken off
    (name, first), *others, (_, last) = turns
    native = {key: (first[key] + last[key]) / 2 for key in first}
    native |= {key: first[key] + last[key] for key in COUNTED}
    figures: Figures = {}
    for label, found in ((name, native), *others):
        delivered = found["deliveries_per_cpu_s"] * found["server_cpu_s"]
        found["per_write"] = round(delivered / found["writes"], 2) if found["writes"] else 0
        found["ratio"] = round(found["deliveries_per_cpu_s"] / native["deliveries_per_cpu_s"], 3)
        found["share"] = round(_writes_per_cpu_s(found) / _writes_per_cpu_s(native), 3)
        figures |= {f"{label}: {key}": value for key, value in found.items()}
    figures["native drift"] = round(_writes_per_cpu_s(last) / _writes_per_cpu_s(first), 3)
    return figures


def _writes_per_cpu_s(found: Figures) -> float:
    return float(found["writes"] / found["server_cpu_s"])


def _publish_one(contender: DualcastDialects, kind: Kind) -> None:
    body = kind.item.replace("%p", "warm" if kind.text else json.dumps({"m": "warm"}))
    request = urllib.request.Request(
        f"http://127.0.0.1:{contender.publish_port}{kind.publish}",
        data=body.encode(),
        headers={
            "Authorization": f"Bearer {contender.publisher_token}",
            "Content-Type": "application/json",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=10):
            pass
    except urllib.error.HTTPError as error:
        raise BenchmarkFailed(f"{kind.name}: {error.code} {error.read()[:300]!r}") from None
