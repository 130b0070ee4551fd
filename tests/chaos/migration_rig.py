"""What the migration drill stands on: two nodes over one Redis, relays that can go silent, the clients, a
publisher that accounts for everything, and the operator's REST calls."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from chaos.migration_account import Ledger, Row, id_of, title_of
from chaos.migration_clients import Crew, LegacyStream, Place, SecondTab, StreamClient
from chaos.migration_pages import Instance
from support.accounting import Changes, Publisher
from support.blackhole import Blackhole
from support.front_door import FrontDoor
from support.redis_server import RedisServer
from support.server_process import ServerProcess, token

TENANT = "default"
WAIT_S = 90.0
"""How long a step is waited for; a bound, not an expectation."""
POLL_S = 0.1
LONG_S = 25.0
"""A wait beyond this is noted with its reason: longer than it takes to find a silent socket."""
SLOW_S = 5.0
"""A step whose end takes longer says so."""
PER_ALL = 2.5
"""Publications to single users for each one to everybody."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How big a drill is. `rate`: publications a second to everybody; 2.5 times as many go to single
    users."""

    clients: int = 240
    """Pages with both transports; a tenth as many of each kind of witness come to them."""
    rate: float = 20.0
    seconds: float = 4.0
    """Of load after each event of a step."""
    seed: int = 1
    relayed: int = 5
    """Every so many-th page has its WebSocket behind a relay."""
    fronts: bool = False
    """All WebSockets go through a front that may refuse upgrades."""
    stage: str = "sse"
    """Of the tenant at the start."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Of the nodes; what is not said is the server's default."""


class DrillPublisher(Publisher):
    """Notifies users and everybody in turn; each is repeated by its id until it is accepted."""

    def __init__(self, bases: Sequence[str], ledger: Ledger, users: Iterable[str], changes: Changes) -> None:
        super().__init__(bases, token("backend", roles=["publisher"]), [], changes)
        self._ledger = ledger
        self._who = itertools.cycle(users)

    async def notify_next(self) -> None:
        """One notification, until it is accepted."""
        user, number = next(self._who), next(self._numbers)
        self._ledger.sent(number, user)
        body = {
            "to": {"user": user} if user else {"all": True},
            "title": title_of(number),
            "id": id_of(number),
            "store": False,
            "push": "never",
        }
        while True:
            answer = await self._post(self._base, "/v1/notifications", body)
            if answer is not None and answer.status in (200, 201):
                break
            if answer is not None:
                assert answer.status == 503, f"{answer.status} {answer.body!r}"
                self.refusals[json.loads(answer.body).get("code", "")] += 1
            self.failures += 1
            self._changes.note()
            self._base = next(self._bases)
            await asyncio.sleep(0.05)
        self.repeats += json.loads(answer.body)["duplicate"]
        self._ledger.accepted(number)

    async def load(self, stop: asyncio.Event, rate: float, lanes: int = 8) -> None:
        """`rate` a second until `stop`; what is under way then is still brought to its acceptance."""
        loop = asyncio.get_running_loop()

        async def lane(number: int) -> None:
            due = loop.time() + number / rate
            while not stop.is_set():
                await asyncio.sleep(max(0.0, due - loop.time()))
                due = max(due, loop.time() - 1 / rate) + lanes / rate
                await self.notify_next()

        async with asyncio.TaskGroup() as group:
            for number in range(lanes):
                group.create_task(lane(number))


@dataclass(kw_only=True)
class Rig:
    """A drill under way."""

    plan: Plan
    redis: RedisServer
    nodes: Sequence[ServerProcess]
    relays: Sequence[Blackhole]
    fronts: Sequence[FrontDoor]
    ledger: Ledger
    crew: Crew
    publisher: DrillPublisher
    http: httpx.AsyncClient
    down: set[int] = field(default_factory=set)
    """Numbers of the nodes that are down."""

    @property
    def instances(self) -> list[Instance]:
        """The pages with both transports."""
        return [one for one in self.crew.clients if isinstance(one, Instance)]

    # ── the operator ──

    async def ask(self, method: str, path: str, **given: Any) -> httpx.Response:
        """An operator's call, at a node that is up."""
        node = next(node for number, node in enumerate(self.nodes) if number not in self.down)
        headers = {"Authorization": "Bearer " + token("root", roles=["operator"])}
        return await self.http.request(method, node.base_url + path, headers=headers, **given)

    async def get(self, path: str) -> dict[str, Any]:
        answer = await self.ask("GET", f"/v1/tenants/{TENANT}/{path}")
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        found: dict[str, Any] = answer.json()
        return found

    async def change(self, stage: str, why: str, **fields: Any) -> httpx.Response:
        """Sets the tenant's stage; the version is the one it has now."""
        version = (await self.get("migration"))["version"]
        body = {"stage": stage, "why": why, "expected": version, **fields}
        return await self.ask("PUT", f"/v1/tenants/{TENANT}/migration", json=body)

    # ── waiting ──

    async def until(self, right: Callable[[], Awaitable[str]], row: Row, bound_s: float = WAIT_S) -> float:
        """Asks until the answer is ""; the seconds it took. What is not right after `bound_s` is a fault of
        the step."""
        begin, last = time.monotonic(), ""
        while what := await right():
            last = what
            if time.monotonic() - begin > bound_s:
                row.wrong.append(what)
                break
            await asyncio.sleep(POLL_S)
        took_s = time.monotonic() - begin
        if took_s > LONG_S:
            row.notes.append(f"waited {took_s:.1f} s; the last reason: {last}")
        return took_s

    async def settled(self, row: Row, stage: Callable[[Instance], str] | None = None) -> float:
        """Waits until every client is connected as its stage wants and exactly the covered streams are
        muted; the seconds it took. `stage`: what each instance must have been told."""

        async def right() -> str:
            clients = self.crew.clients
            if stage is not None:
                late = [one for one in self.instances if one.stage != stage(one)]
                if late:
                    return f"{len(late)} were not told their stage: {late[0].name} is in {late[0].stage}"
            lost = [client for client in clients if not client.settled]
            if lost:
                return f"{len(lost)} are not settled: {lost[0].name} {dict(lost[0].ends)}"
            row.muted, row.covered = await self.muted(), self.covered
            return "" if row.muted == row.covered else f"{row.muted} streams are muted, not {row.covered}"

        return await self.until(right, row)

    async def streaming(self, row: Row) -> float:
        """Waits until every client has its stream; the seconds it took."""

        async def right() -> str:
            lost = [one.name for one in self.crew.clients if one.stream is None or not one.stream.welcomed]
            return f"{len(lost)} have no stream: {lost[0]}" if lost else ""

        return await self.until(right, row)

    @property
    def covered(self) -> int:
        """Streams that have to be muted."""
        return sum(one.covered for one in self.instances)

    async def muted(self) -> int:
        """Muted streams of all nodes that are up."""
        up = [node for number, node in enumerate(self.nodes) if number not in self.down]
        return int(sum([await node.metric("dualcast_sessions_muted") for node in up]))

    async def accepted(self, seconds: float) -> None:
        """Lets the load go on for a while: until as much was accepted as `seconds` of it."""
        rate = self.plan.rate * (1 + PER_ALL)
        wanted = sum(row.published for row in self.ledger.rows) + int(seconds * rate)
        await self.ledger.changes.until(lambda: sum(row.published for row in self.ledger.rows) >= wanted)

    @asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[Row]:
        """A step: load all the time; at its end everything accepted has arrived everywhere."""
        begin = time.monotonic()
        row = self.ledger.step(name)
        moved = self._moves()
        stop = asyncio.Event()
        load = asyncio.create_task(self.publisher.load(stop, self.plan.rate * (1 + PER_ALL)))
        try:
            yield row
        finally:
            stop.set()
            await load
        ended = time.monotonic()
        try:
            async with asyncio.timeout(WAIT_S):
                await self.ledger.changes.until(lambda: not self.ledger.waiting, "missing")
        except TimeoutError:
            row.wrong.append(f"{len(self.ledger.waiting)} publications are not with everybody")
        arrived_s = time.monotonic() - ended
        settled_s = await self.settled(row)
        if arrived_s + settled_s > SLOW_S:
            row.notes.append(
                f"after the load the last arrival came within {arrived_s:.1f} s, "
                f"and everybody was settled {settled_s:.1f} s later"
            )
        row.moved = self._moves() - moved
        row.seconds = time.monotonic() - begin

    def _moves(self) -> int:
        return sum(one.moves for one in self.instances)

    # ── disturbances ──

    async def kill(self, number: int, row: Row, *, moving: bool = False) -> None:
        """kill -9 of a node; everybody comes back at the other, then it starts again and its clients
        return. `moving`: sockets are on their way out, so only streams are waited for."""
        streams = sum(one.stream is not None and one.stream.node == number for one in self.crew.clients)
        sockets = sum(one.socket is not None and one.socket.node == number for one in self.instances)
        self.nodes[number].kill()
        self.down.add(number)
        took_s = await (self.streaming(row) if moving else self.settled(row))
        row.notes.append(
            f"kill -9 of node {'AB'[number]} with {streams} streams and {sockets} sockets: "
            f"everybody was settled after {took_s:.1f} s"
        )
        await self.accepted(self.plan.seconds / 2)
        await self.nodes[number].start()
        self.down.discard(number)
        for client in self.crew.clients:
            client.home()
        if not moving:
            await self.settled(row)

    async def blackhole(self, row: Row) -> None:
        """The relayed WebSockets go silent; after the server has found out, the route comes back."""
        hit = [one for one in self.instances if one.relayed and one.has_socket]
        for relay in self.relays:
            relay.swallow()
        for one in hit:
            one.swallowed = True
        took_s = await self.settled(row)
        row.notes.append(f"{len(hit)} sockets went silent: their streams took over after {took_s:.1f} s")
        await self.accepted(self.plan.seconds / 2)
        self.cut()
        await self.ledger.changes.until(lambda: not any(one.swallowed for one in hit), "they hang")
        await self.settled(row)

    def cut(self) -> None:
        """Ends everything that goes through the relays."""
        for relay in self.relays:
            relay.cut()

    async def restart_redis(self, row: Row) -> None:
        """kill -9 of Redis and a start over its data, once publishing has failed."""
        failures = self.publisher.failures
        begin = time.monotonic()
        await asyncio.to_thread(self.redis.kill)
        await self.ledger.changes.until(lambda: self.publisher.failures >= failures + 8, "nobody felt it")
        await asyncio.to_thread(self.redis.start)
        took_s = time.monotonic() - begin
        await self.accepted(self.plan.seconds / 2)
        await self.settled(row)
        row.notes.append(
            f"kill -9 of Redis, away for {took_s:.1f} s: {self.publisher.failures - failures} "
            "publishing attempts were refused and repeated"
        )


@asynccontextmanager
async def prepared(folder: Path, plan: Plan) -> AsyncIterator[Rig]:
    """Everything up, everybody connected."""
    changes = Changes()
    ledger = Ledger(changes)
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(RedisServer(aof="always"))
        nodes = []
        for name in "ab":
            (folder / name).mkdir(parents=True)
            server = ServerProcess(
                "redis",
                folder / name,
                redis_url=redis.url,
                settings={"tenancy.stage": plan.stage, **plan.settings},
            )
            stack.callback(server.kill)
            nodes.append(server)
            server.launch()
        for server in nodes:
            await server.ready()
        fronts = []
        if plan.fronts:
            fronts = [await stack.enter_async_context(FrontDoor(folder, [node.port])) for node in nodes]
        behind = [int(front.base_url.rpartition(":")[2]) for front in fronts] or [node.port for node in nodes]
        relays = [await stack.enter_async_context(Blackhole("127.0.0.1", port)) for port in behind]
        crew = Crew(ledger, plan.seed)
        stack.push_async_callback(crew.stop)
        users = populate(crew, plan, [node.port for node in nodes], [relay.port for relay in relays])
        publisher = await stack.enter_async_context(
            DrillPublisher([node.base_url for node in nodes], ledger, in_turn(users), changes)
        )
        rig = Rig(
            plan=plan,
            redis=redis,
            nodes=nodes,
            relays=relays,
            fronts=fronts,
            ledger=ledger,
            crew=crew,
            publisher=publisher,
            http=await stack.enter_async_context(httpx.AsyncClient(timeout=30)),
        )
        watch = asyncio.create_task(crew.watch())
        stack.callback(watch.cancel)
        # What comes before a client has a position is not due to it.
        await changes.until(lambda: all(one.settled for one in crew.clients), "clients did not connect")
        yield rig


def in_turn(users: Sequence[str]) -> list[str]:
    """Every user once, and two to everybody ("") among five of them."""
    found = []
    for number, user in enumerate(users):
        found.append(user)
        if number % 5 in (1, 3):
            found.append("")
    return found


def populate(crew: Crew, plan: Plan, ports: Sequence[int], relays: Sequence[int]) -> list[str]:
    """The clients; their users. Streams and sockets of one page sit at the same node or at two, in turn;
    every fifth user has two such pages, and witnesses are pages of the same users."""
    a, b = ((node, port) for node, port in enumerate(ports))
    far_a, far_b = ((node, port) for node, port in enumerate(relays))
    direct: list[list[Place]] = [[a, b], [b, a]]
    relayed: list[list[Place]] = [[far_a, far_b], [far_b, far_a]]
    users: list[str] = []
    for number in range(plan.clients):
        if number % 6 != 5:
            users.append(f"user{len(users)}@example.org")
        through = plan.fronts or number % plan.relayed == 0
        places = direct[number % 2]
        sockets = (relayed if through else direct)[number // 2 % 2]
        crew.join(Instance(crew, f"page-{number}", users[-1], places, sockets, relayed=through))
    for number in range(max(2, plan.clients // 10)):
        user, places = users[number * 7 % len(users)], direct[number % 2]
        witnesses: list[StreamClient] = [
            StreamClient(crew, f"plain-{number}", user, places),
            SecondTab(crew, f"second-{number}", user, places, instance=f"second-{number}"),
            LegacyStream(crew, f"legacy-{number}", user, places),
        ]
        for witness in witnesses:
            crew.join(witness)
    return users
