"""Instances in Redis: one script call per node and tick, in a slot of its own (`lua/sync.lua`)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

import msgspec

from dualcast.bus.storage import Extension, Scripting
from dualcast_migration.muting import SocketFacts

from .port import Answer, Row, Told

EVERYWHERE = "~pairs"
"""A pseudo tenant (no tenant has such an id)."""
NEWS = 500
"""Instances told in one answer."""
REAP = 500
"""Rows of a dead node taken off in one call."""
_pack = msgspec.msgpack.Encoder().encode
_row = msgspec.json.Encoder().encode
_read = msgspec.json.Decoder(SocketFacts).decode
_STREAM = "s"


def extension() -> Extension:
    """The script, for `RedisBus(extensions=…)`."""
    text = (files("dualcast.pairing") / "lua" / "sync.lua").read_text(encoding="utf-8")
    return Extension(scripts={"pairs_sync": text})


class RedisPairs:
    """A `PairStore` of all nodes that use the same Redis."""

    def __init__(self, scripting: Scripting) -> None:
        self._call = scripting.call

    async def sync(self, told: Told) -> Answer:
        rows = [(key, row.connection, _text(row)) for key, row in told.rows]
        numbers = (int(told.new), told.lease_ms, told.ack, NEWS, REAP, int(told.anew))
        reply = await self._call("pairs_sync", EVERYWHERE, _pack((told.node, *numbers, rows, told.gone)))
        if reply[0]:
            return Answer(lost=True)
        _, ack, more, *news = reply
        return Answer(
            lost=False,
            ack=int(float(ack)),
            more=bool(more),
            news=[(key.decode(), _rows(found)) for key, found in news],
        )


def _text(row: Row) -> str:
    # As text: Lua's reader of msgpack knows no binary.
    return _STREAM if row.socket is None else _row(row.socket).decode()


def _rows(found: Sequence[bytes]) -> list[Row]:
    rows = []
    for name, text in zip(found[::2], found[1::2], strict=True):
        try:
            rows.append(Row(name.decode(), None if text == _STREAM.encode() else _read(text)))
        except msgspec.MsgspecError:
            continue  # of a node of another version: what is not understood mutes nobody
    return rows
