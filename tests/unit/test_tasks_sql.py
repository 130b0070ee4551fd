"""What reading and writing tasks costs in SQLite: steps of its machine, which do not grow with the tenant."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dualcast.tasks.model import State, Task, encode
from dualcast.tasks.port import TaskStore
from support.task_room import TaskRoom, task_room

pytestmark = pytest.mark.anyio
STATES: tuple[State, ...] = ("queued", "processing", "completed", "failed")
Step = Callable[[TaskStore], Awaitable[Any]]


def task(ident: str, **fields: Any) -> Task:
    return Task(id=ident, owner="alice", revision=1, **fields)


async def fill(room: TaskRoom, count: int) -> None:
    """Rows as `save` writes them, in one go: a tenth each owner's, half of them in one batch."""
    for number in range(8):
        await room.store.save("t", task(f"seed{number}", batch="b", state=STATES[number % 4]), "")

    def work(db: sqlite3.Connection) -> None:
        (far,) = db.execute("SELECT max(expires_ms) FROM task_item").fetchone()
        db.executemany(
            "INSERT INTO task_item VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    "t",
                    f"n{number}",
                    number + 100,
                    f"user{number % 10}",
                    "b" if number % 2 else "",
                    STATES[number // 10 % 4],
                    "x",
                    far + number,
                    encode(task(f"n{number}")),
                )
                for number in range(count)
            ],
        )

    database: Any = room.bus
    await database.database.write(work)


async def cost(room: TaskRoom, step: Step) -> int:
    """Steps of SQLite's machine, in tens."""
    spent = 0

    def tick() -> int:
        nonlocal spent
        spent += 1
        return 0

    database: Any = room.bus
    await database.database.write(lambda db: db.set_progress_handler(tick, 10))
    await step(room.store)
    await database.database.write(lambda db: db.set_progress_handler(None, 0))
    return spent


@pytest.mark.parametrize(
    "step",
    [
        lambda store: store.list("t", "", None, "", 20),
        lambda store: store.list("t", "user3", None, "", 20),
        lambda store: store.list("t", "user3", "processing", "", 5),
        lambda store: store.list("t", "", "failed", "", 20),
        lambda store: store.list("t", "", None, "150", 20),
        lambda store: store.members("t", "b", "101", 20),
        lambda store: store.load("t", "n7"),
        lambda store: store.load_batch("t", "b"),
        lambda store: store.save("t", task("new", batch="b"), ""),
        lambda store: store.tidy("t"),
    ],
    ids=["all", "owner", "owner-state", "state", "after", "members", "load", "batch", "save", "tidy"],
)
async def test_costs_do_not_grow_with_the_tenant(step: Step) -> None:
    costs = []
    for count in (300, 6_000):
        async with task_room("memory") as room:
            await fill(room, count)
            costs.append(await cost(room, step))
    few, many = costs
    assert many <= few * 1.5 + 5, costs
