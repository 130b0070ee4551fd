"""Evidence in Redis: one script per step, with the server's own clock. Key names: `lua/common.lua`."""

from __future__ import annotations

from collections import Counter
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from dualcast.bus.storage import Extension, Scripting
from dualcast_migration.census import (
    MAX_ROWS,
    MAX_ROWS_PER_USER,
    Census,
    Row,
    decode_row,
    encode_row,
    rest_row,
)
from dualcast_migration.figures import Window, make_window
from dualcast_migration.sketch import ROW_SIZE, WINDOW_SIZE, cut, estimate

from .port import LEVELS, MAX_MISMATCHES, MISMATCH_S, ROW_S, TAKEN_S, Batch, KeptMismatch, level_of
from .sql import make_rows

SCRIPTS = ("record", "window", "census", "mismatches")
_pack = msgspec.msgpack.Encoder().encode


@cache
def extension() -> Extension:
    """What the redis engine is given for this room."""
    folder = files("dualcast_migration.evidence") / "lua"
    levels = ", ".join(f"{{{width}, {kept}, {str(users).lower()}}}" for width, kept, users in LEVELS)
    prelude = (
        f"local LEVELS = {{{levels}}}\n"
        f"local MAX_ROWS, ROW_S, ROW_SIZE, WINDOW_SIZE = {MAX_ROWS}, {ROW_S}, {ROW_SIZE}, {WINDOW_SIZE}\n"
        f"local MAX_ROWS_PER_USER = {MAX_ROWS_PER_USER}\n"
        f"local MAX_MISMATCHES, MISMATCH_S, TAKEN_S = {MAX_MISMATCHES}, {MISMATCH_S}, {TAKEN_S}\n"
        + (folder / "common.lua").read_text(encoding="utf-8")
    )
    return Extension(
        scripts={
            f"evidence_{name}": prelude + (folder / f"{name}.lua").read_text(encoding="utf-8")
            for name in SCRIPTS
        }
    )


class RedisEvidence:
    """EvidenceStore over the scripts of the redis engine, which was given `extension()`."""

    def __init__(self, scripting: Scripting) -> None:
        self._call = scripting.call

    async def record(self, tenant: str, batch: Batch) -> None:
        live = batch.live or {}
        told = (
            batch.node,
            batch.ident,
            [field for pair in batch.figures.items() for field in pair],
            batch.marks,
            batch.troubled,
            [(_name(c.row), _name(rest_row(c.row)), c.connects, c.marks) for c in batch.rows],
            batch.live is not None,
            [field for row, count in live.items() for field in (_name(row), count)],
            int(batch.lease_s * 1000),
        )
        await self._call("evidence_record", tenant, _pack(told), *batch.mismatches)

    async def window(self, tenant: str, seconds: int) -> Window:
        width, _, told_apart = level_of(seconds)
        reply = await self._call("evidence_window", tenant, _pack((seconds, width, told_apart)), read=True)
        sums: Counter[str] = Counter()
        for fields in reply[0]:
            for at in range(0, len(fields), 2):
                sums[fields[at].decode()] += int(fields[at + 1])
        users, troubled = (
            estimate(cut((mark.decode() for found in marks for mark in found), WINDOW_SIZE), WINDOW_SIZE)
            for marks in reply[1:]
        )
        return make_window(seconds, sums, users, troubled)

    async def census(self, tenant: str) -> Census:
        now_ms, rows, nodes = await self._call("evidence_census", tenant, read=True)
        live: Counter[Row] = Counter()
        for counts in nodes:
            for at in range(0, len(counts), 2):
                live[decode_row(counts[at])] += int(counts[at + 1])
        found = [
            (decode_row(name), int(connects), int(first), int(last), [mark.decode() for mark in marks])
            for name, connects, first, last, marks in rows
        ]
        return make_rows(found, live, int(now_ms))

    async def mismatches(self, tenant: str, before: int, limit: int) -> list[KeptMismatch]:
        reply: list[Any] = await self._call("evidence_mismatches", tenant, _pack((before, limit)), read=True)
        return [KeptMismatch(int(reply[at]), reply[at + 1]) for at in range(0, len(reply), 2)]


def _name(row: Row) -> str:
    return encode_row(row).decode()
