"""Tasks in Redis: one script per step, with the server's own clock, so that clocks of nodes do not matter."""

from __future__ import annotations

import secrets
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import unquote

import msgspec

from dualcast.bus.storage import Extension, Scripting
from dualcast.model.channel import key_part

from .errors import batch_refusal, too_many_tasks
from .model import Batch, BatchFacts, Counts, State, Task, decode_facts, decode_task, encode, make_batch
from .port import Loaded, LoadedBatch, Saved, SavedBatch, TaskPage, TaskSettings

SCRIPTS = ("load", "load_batch", "save", "save_batch", "list", "tidy")
_pack = msgspec.msgpack.Encoder().encode


@cache
def extension() -> Extension:
    """What the redis engine is given for this room."""
    folder = files("dualcast.tasks") / "lua"
    common = (folder / "common.lua").read_text(encoding="utf-8")
    return Extension(
        scripts={
            f"tasks.{name}": common + (folder / f"{name}.lua").read_text(encoding="utf-8") for name in SCRIPTS
        }
    )


class RedisTasks:
    """TaskStore over the scripts of the redis engine, which was given `extension()`."""

    def __init__(self, scripting: Scripting, settings: TaskSettings | None = None) -> None:
        self._scripting = scripting
        self._settings = settings or TaskSettings()
        self._keep = (int(self._settings.finished_s * 1000), int(self._settings.unfinished_s * 1000))

    async def load(self, tenant: str, ident: str) -> Loaded:
        reply = await self._scripting.call("tasks.load", tenant, key_part(ident).encode(), read=True)
        if len(reply) == 1:
            return Loaded(None, "", reply[0])
        return Loaded(decode_task(reply[1]), _text(reply[2]), reply[0])

    async def save(self, tenant: str, task: Task, expected: str) -> Saved | None:
        asked = (
            key_part(task.id),
            expected,
            secrets.token_hex(8),
            task.state,
            task.finished,
            key_part(task.owner),
            key_part(task.batch),
            *self._keep,
            self._settings.max_tasks,
            self._settings.max_tasks_per_batch,
        )
        facts = encode(BatchFacts(task.batch, task.owner)) if task.batch else b""
        reply = await self._scripting.call("tasks.save", tenant, _pack(asked), encode(task), facts)
        gone = self._answer(reply)
        if gone is None:
            return None
        return Saved(_batch(reply[2]) if len(reply) > 2 else None, gone)

    async def load_batch(self, tenant: str, ident: str) -> LoadedBatch:
        reply = await self._scripting.call("tasks.load_batch", tenant, key_part(ident).encode(), read=True)
        if len(reply) == 1:
            return LoadedBatch(None, "", reply[0])
        return LoadedBatch(_batch(reply[1]), _text(reply[1][1]), reply[0])

    async def save_batch(
        self, tenant: str, facts: BatchFacts, total: int, expected: str
    ) -> SavedBatch | None:
        asked = (
            key_part(facts.id),
            expected,
            secrets.token_hex(8),
            key_part(facts.owner),
            total,
            *self._keep,
            self._settings.max_tasks,
        )
        reply = await self._scripting.call("tasks.save_batch", tenant, _pack(asked), encode(facts))
        gone = self._answer(reply)
        return None if gone is None else SavedBatch(_batch(reply[2]), gone)

    async def list(self, tenant: str, owner: str, state: State | None, after: str, limit: int) -> TaskPage:
        return await self._page(tenant, ("", state or "", key_part(owner), int(after or "0"), limit))

    async def members(self, tenant: str, batch: str, after: str, limit: int) -> TaskPage:
        return await self._page(tenant, (key_part(batch), "", "", int(after or "0"), limit))

    async def tidy(self, tenant: str) -> tuple[str, ...]:
        return _channels(await self._scripting.call("tasks.tidy", tenant, _pack(self._keep)))

    async def _page(self, tenant: str, asked: tuple[str, str, str, int, int]) -> TaskPage:
        reply = await self._scripting.call("tasks.list", tenant, _pack(asked), read=True)
        return TaskPage([decode_task(record) for record in reply[1:]], _text(reply[0]))

    def _answer(self, reply: Any) -> tuple[str, ...] | None:
        """The channels that were forgotten; None when the token was another one. Raises what the script
        refused.
        """
        why = _text(reply[0])
        if why == "conflict":
            return None
        if why == "too-many-tasks":
            raise too_many_tasks(self._settings.max_tasks)
        if why != "ok":
            raise batch_refusal(why)
        return _channels(reply[1])


def _text(value: bytes) -> str:
    return value.decode()


def _channels(names: list[bytes]) -> tuple[str, ...]:
    return tuple(unquote(name.decode()) for name in names)


def _batch(fields: list[bytes | None]) -> Batch:
    facts, _, declared, created, updated, ended, revision, *counts = fields
    assert facts is not None
    return make_batch(
        decode_facts(facts),
        Counts(*(int(count or 0) for count in counts)),
        int(declared or 0),
        created_ms=int(created or 0),
        updated_ms=int(updated or 0),
        completed_ms=int(ended or 0),
        revision=int(revision or 0),
    )
