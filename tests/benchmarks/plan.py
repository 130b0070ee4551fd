"""The cells of a run: which scenario with which contender, how often, and what a cell is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks import dialects, fairness, inbox, scenarios
from benchmarks.contenders import Bench, Contender, LegacyPattern, LitestarChannels, Nchan
from benchmarks.dualcast_node import Dualcast, DualcastAlone, DualcastInbox

SUBSCRIBERS = 1_000
RATE = 100
BURST = 1_000
CLIENTS = 5_000
PEERS: tuple[tuple[type[Contender], str], ...] = (
    (LegacyPattern, "sse"),
    (LitestarChannels, "sse"),
    (LitestarChannels, "ws"),
    (Nchan, "sse"),
    (Nchan, "ws"),
)
BOTH = ("sse", "ws")


@dataclass(frozen=True)
class Cell:
    """One measurement. `name` is `<scenario>/<contender> <transport>`."""

    scenario: str
    contender: type[Contender]
    transport: str
    run: Callable[..., dict[str, Any]]
    options: dict[str, Any]
    repeats: bool = True
    """False: measured once (memory and counts hardly vary)."""
    default: bool = True
    """False: only when `--only` spells the scenario out."""

    @property
    def name(self) -> str:
        return f"{self.scenario}/{self.contender.name} {self.transport}"

    def measure(self, bench: Bench) -> dict[str, Any]:
        """Starts the contender, measures, stops it."""
        contender = self.contender(bench, self.transport)
        try:
            contender.start()
            return self.run(bench, contender, **self.options)
        finally:
            contender.stop()


def cells(*, seconds: float, through: str, quick: bool) -> list[Cell]:
    """All cells in the order they run; those of one scenario are neighbours, so contenders take turns."""
    delivery: type[Contender] = Dualcast if through == "node" else DualcastAlone
    planned: list[Cell] = []

    def add(
        scenario: str, contender: type[Contender], transport: str, run: Callable[..., Any], **rest: Any
    ) -> None:
        flags = {key: rest.pop(key) for key in ("repeats", "default") if key in rest}
        if contender.available():
            planned.append(Cell(scenario, contender, transport, run, rest, **flags))

    def stream(
        scenario: str, contender: type[Contender], transport: str, rate: float, user_rate: float = 0
    ) -> None:
        load = {"subscribers": SUBSCRIBERS, "rate": rate, "user_rate": user_rate, "seconds": seconds}
        add(scenario, contender, transport, scenarios.fan_out, **load)

    for contender, transport in PEERS:
        stream("fan-out", contender, transport, RATE)
    for each in BOTH:
        stream("fan-out", delivery, each, RATE)
    for contender, transport in PEERS:
        if contender.sustained_rate != RATE:
            stream("sustained", contender, transport, contender.sustained_rate)
    for each in BOTH:
        stream("mixed", delivery, each, RATE, BURST)
    for each in BOTH:
        stream("burst", delivery, each, BURST)
    for each in BOTH:
        stream("burst mixed", delivery, each, BURST, BURST)
    for each in BOTH:
        load = {"subscribers": SUBSCRIBERS, "rate": RATE, "seconds": min(seconds, 4)}
        add("dialects", dialects.DualcastDialects, each, dialects.measure, **load)
    for contender, transport in PEERS:
        count = contender.connect_count // (5 if quick else 1)
        load = {"connections": count, "churn_s": 0.0, "repeats": False}
        add("connect", contender, transport, scenarios.connect, **load)
    for each in BOTH:
        add("connect", DualcastAlone, each, scenarios.connect, connections=CLIENTS, churn_s=2.0)
    for batched in (False, True):
        name = "publish batch" if batched else "publish single"
        add(name, DualcastAlone, "rest", scenarios.rest_publish, batched=batched, seconds=min(seconds, 4))
    for batched in (False, True):
        name = "inbox publish batch" if batched else "inbox publish single"
        add(name, DualcastAlone, "rest", inbox.publish, batched=batched, seconds=min(seconds, 4))
    flood = {"connections": 32, "items": 1_000, "seconds": min(seconds, 4)}
    add("fairness", fairness.DualcastTwoTenants, "rest", fairness.measure, **flood)
    sizes = (100, 1_000, 10_000)
    add("inbox read", DualcastInbox, "rest", inbox.read, sizes=sizes, seconds=min(seconds, 2))
    for each in BOTH:
        add("recovery", DualcastAlone, each, scenarios.recovery, clients=CLIENTS, missed=100, own=False)
        add(
            "recovery own",
            DualcastAlone,
            each,
            scenarios.recovery,
            clients=CLIENTS,
            missed=100,
            own=True,
            default=False,
        )
        add("redis", DualcastAlone, each, scenarios.redis_connections, few=10, many=9_000, repeats=False)
    return planned


def selected(planned: list[Cell], only: list[str]) -> list[Cell]:
    """The cells whose name holds one of the texts in `only`, or the default ones."""
    if not only:
        return [cell for cell in planned if cell.default]
    names = [text.lower() for text in only]
    return [
        cell
        for cell in planned
        if (cell.default and any(name in cell.name.lower() for name in names)) or cell.scenario in names
    ]
