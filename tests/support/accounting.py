"""Every acknowledged publication accounted for: what was sent, what each client got, and the difference."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from support.raw_http import Response, Wire, connect

if TYPE_CHECKING:
    from support.fleet import Client

WAIT_S = 60.0
"""How long something that must come is waited for; a bound, not an expectation."""


class Changes:
    """Lets tests wait until a condition holds; `note` says that it may hold now."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def note(self) -> None:
        self._event.set()

    async def until(self, condition: Callable[[], bool], what: str = "") -> None:
        """Looks again after every turn with a change. Raises TimeoutError after WAIT_S."""
        deadline = time.monotonic() + WAIT_S
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(what or "what was waited for did not come")
            self._event.clear()
            try:
                async with asyncio.timeout(left):
                    await self._event.wait()
            except TimeoutError:
                continue


@dataclass(slots=True)
class Acknowledged:
    """A publication the server answered with 200 or 201."""

    id: str
    number: int
    channels: frozenset[str]
    cursor: str
    at: float = 0.0
    """When the acknowledgement came; monotonic seconds."""


@dataclass(slots=True)
class Arrival:
    """One copy that came to a client."""

    connection: int
    id: str
    number: int
    channel: str
    cursor: str | None


class Publisher:
    """Publishes at a constant rate to all targets in turn and keeps what was acknowledged.

    A publish that fails is repeated with the same id until it is acknowledged, at any of `base_urls` in turn,
    as a careful publisher does.
    """

    def __init__(
        self, base_urls: Sequence[str], token: str, targets: Sequence[str], changes: Changes, *, pad: int = 0
    ) -> None:
        self.acknowledged: dict[str, Acknowledged] = {}
        self.failures = 0
        """Attempts without an acknowledgement."""
        self.repeats = 0
        """Acknowledgements that say: the first attempt had been appended."""
        self.refusals: Counter[str] = Counter()
        self._bases = itertools.cycle(base_urls)
        self._base = next(self._bases)
        self._targets = itertools.cycle(targets)
        self._numbers = itertools.count(1)
        self._changes = changes
        self._pad = "x" * pad
        self._token = token
        self._idle: dict[str, list[Wire]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for wires in self._idle.values():
            for wire in wires:
                await wire.close()

    async def run(self, stop: asyncio.Event, *, rate: float, lanes: int = 4) -> None:
        """Publishes about `rate` a second, by `lanes` publishers at once, until `stop` is set; what is under
        way then is still brought to its acknowledgement.
        """
        loop = asyncio.get_running_loop()

        async def lane(number: int) -> None:
            due = loop.time() + number / rate
            while not stop.is_set():
                await asyncio.sleep(max(0.0, due - loop.time()))
                due = max(due, loop.time() - 1 / rate) + lanes / rate
                await self.publish_next()

        async with asyncio.TaskGroup() as group:
            for number in range(lanes):
                group.create_task(lane(number))

    async def publish_next(self) -> Acknowledged:
        """Publishes one to the target whose turn it is."""
        return await self.publish(next(self._targets))

    async def burst(self, count: int) -> list[Acknowledged]:
        """Publishes `count` as fast as it goes."""
        return [await self.publish_next() for _ in range(count)]

    async def publish(self, *channels: str) -> Acknowledged:
        """Publishes one to the channels; a user channel alone gets a notification."""
        number = next(self._numbers)
        ident = f"p{number:07d}"
        data = {"n": number, "pad": self._pad}
        if len(channels) == 1 and channels[0].startswith("user:"):
            path = "/v1/notifications"
            body: dict[str, Any] = {
                "to": {"user": channels[0][5:]},
                "title": f"number {number}",
                "data": data,
            }
        else:
            path, body = "/v1/publish", {"channels": list(channels), "type": "tick", "data": data}
        body["id"] = ident
        while True:
            answer = await self._post(self._base, path, body)
            if answer is not None and answer.status in (200, 201):
                break
            if answer is not None:
                self.refusals[json.loads(answer.body).get("code", "")] += 1
                assert answer.status == 503, f"{answer.status} {answer.body!r}"
            self.failures += 1
            self._changes.note()
            self._base = next(self._bases)
            await asyncio.sleep(0.05)
        receipt = json.loads(answer.body)
        self.repeats += receipt["duplicate"]
        made = Acknowledged(ident, number, frozenset(channels), receipt["cursor"], time.monotonic())
        self.acknowledged[ident] = made
        self._changes.note()
        return made

    async def _post(self, base: str, path: str, body: dict[str, Any]) -> Response | None:
        """None: no answer came (refused, reset, cut off, or too late). A raw socket, because a server that is
        killed while one connects to it is what this is for, and HTTP libraries fail in many ways then."""
        idle = self._idle.setdefault(base, [])
        wire: Wire | None = None
        try:
            wire = idle.pop() if idle else await connect(urlsplit(base).port or 80)
            text = json.dumps(body).encode()
            head = [
                f"POST {path} HTTP/1.1",
                "host: test",
                f"authorization: Bearer {self._token}",
                "content-type: application/json",
                f"content-length: {len(text)}",
            ]
            wire.write("\r\n".join([*head, "", ""]).encode() + text)
            answer = await wire.read_response()
        except (OSError, EOFError, TimeoutError):
            if wire is not None:
                wire.reset()
            return None
        if answer.headers.get("connection") == "close":
            await wire.close()
        else:
            idle.append(wire)
        return answer


def split(cursor: str) -> tuple[str, int]:
    """Epoch and offset. Only the accounts look into a cursor: to clients it is opaque."""
    epoch, _, offset = cursor.rpartition("-")
    return epoch, int(offset)


@dataclass
class Account:
    """Sums over all clients; what is not zero in the lower half of `table` is a fault."""

    clients: int = 0
    connections: int = 0
    sent: int = 0
    due: int = 0
    received: int = 0
    overlap: int = 0
    """Copies that came again on a later connection and were dropped by id."""
    missing: int = 0
    doubled_on_connection: int = 0
    doubled_after_id: int = 0
    """Publications that a client which drops equal ids still showed twice."""
    out_of_order: int = 0
    wrong_cursor: int = 0
    """Copies whose cursor is not the one the publisher was told."""
    strangers: int = 0
    """Copies of a channel the client did not ask for."""
    gaps: Counter[str] = field(default_factory=Counter)
    worst: list[str] = field(default_factory=list)
    """Names of clients with a fault, and which."""

    @property
    def faults(self) -> int:
        return (
            self.missing
            + self.doubled_on_connection
            + self.doubled_after_id
            + self.out_of_order
            + self.wrong_cursor
            + self.strangers
        )

    def table(self) -> str:
        names = (
            "clients",
            "connections",
            "sent",
            "due",
            "received",
            "overlap",
            "missing",
            "doubled_on_connection",
            "doubled_after_id",
            "out_of_order",
            "wrong_cursor",
            "strangers",
        )
        lines = [f"  {name.replace('_', ' '):<22}{getattr(self, name):>10,}" for name in names]
        lines.append(f"  {'gaps announced':<22}{sum(self.gaps.values()):>10,}  {dict(self.gaps) or ''}")
        return "\n".join([*lines, *self.worst[:10]])


def account(clients: Iterable[Client], sent: Iterable[Acknowledged]) -> Account:
    """Compares what every client got with what it was due: all of `sent` on one of its channels."""
    known = {publication.id: publication for publication in sent}
    total = Account(sent=len(known))
    for client in clients:
        faults = _account_one(client, known, total)
        if faults:
            total.worst.append(f"  {client.name}: {faults}")
    return total


def _account_one(client: Client, known: dict[str, Acknowledged], total: Account) -> dict[str, Any]:
    total.clients += 1
    total.connections += client.connection
    channels = client.channels
    due = {p.id for p in known.values() if p.channels & channels}
    got = Counter(arrival.id for arrival in client.arrivals)
    once = Counter((arrival.connection, arrival.id) for arrival in client.arrivals)
    numbers: dict[int, set[str]] = {}
    last: dict[int, tuple[str, int]] = {}
    out_of_order = wrong = strangers = 0
    for arrival in client.arrivals:
        numbers.setdefault(arrival.number, set()).add(arrival.id)
        strangers += arrival.channel not in channels
        publication = known.get(arrival.id)
        wrong += publication is not None and publication.cursor != arrival.cursor
        if arrival.cursor is None:
            continue
        epoch, offset = split(arrival.cursor)
        before = last.get(arrival.connection, ("", 0))
        out_of_order += offset <= before[1]
        last[arrival.connection] = (epoch, offset)
    missing = sorted(due - got.keys())
    doubled_here = sum(count - 1 for count in once.values())
    doubled = sum(len(idents) - 1 for idents in numbers.values())
    total.due += len(due)
    total.received += len(got)
    total.overlap += sum(got.values()) - len(got) - doubled_here
    total.missing += len(missing)
    total.doubled_on_connection += doubled_here
    total.doubled_after_id += doubled
    total.out_of_order += out_of_order
    total.wrong_cursor += wrong
    total.strangers += strangers
    total.gaps.update(fields.get("reason", "") for name, fields in client.signals if name == "gap")
    found = {
        "missing": (len(missing), missing[:5]) if missing else 0,
        "doubled on connection": doubled_here,
        "doubled after id": doubled,
        "out of order": out_of_order,
        "wrong cursor": wrong,
        "strangers": strangers,
    }
    return {name: value for name, value in found.items() if value}
