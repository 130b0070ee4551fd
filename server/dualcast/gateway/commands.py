"""Commands to every node through the state store's change log: close these connections.

Written by `DELETE /v1/connections…` on any node; each node follows space `SPACE` (polled every 500 ms) and
closes what is its own.
"""

from __future__ import annotations

import time

import msgspec
from msgspec import Struct

from dualcast.model.errors import BadRequest
from dualcast.model.uuid7 import Uuid7
from dualcast.state.port import StateStore

SPACE = "close"
SKEW_S = 2.0
"""Clocks of nodes may differ by so much: a connection this much younger than the command may be closed as
well."""
LIFE_S = 60.0
"""A node that was away longer than this has no connections left to close."""

_new_id = Uuid7()


class CloseCommand(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Close the connections of `tenant` that match every member that is not empty; at least one is given."""

    tenant: str
    connection: str = ""
    user: str = ""
    token_id: str = ""
    code: int = 4004
    """Close code for WebSockets (`model.codes.Close.REVOKED`: the client stops)."""
    at_s: float = 0
    """When it was written, Unix seconds: a node that reads it late spares who has connected since."""


async def send_close(store: StateStore, command: CloseCommand) -> None:
    """Writes the command; raises BadRequest when it would close a whole tenant, BusUnavailable."""
    if not (command.connection or command.user or command.token_id):
        raise BadRequest("name a connection, a user or a token")
    dated = msgspec.structs.replace(command, at_s=time.time())
    await store.put(SPACE, _new_id(), msgspec.json.encode(dated), ttl_s=LIFE_S)


async def read_close(store: StateStore, key: str) -> CloseCommand | None:
    """The command under `key`, as the change log names it; None when it has expired or cannot be read."""
    value = await store.get(SPACE, key)
    if value is None:
        return None
    try:
        return msgspec.json.decode(value.data, type=CloseCommand)
    except msgspec.MsgspecError:
        return None
