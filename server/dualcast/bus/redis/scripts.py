"""The Lua scripts, loaded for one run of the server.

The server's run id stands in the script text (see `lua/fence.lua`), so a script's SHA is unknown to any
other server process and to the same one after a restart: no script ever runs on a server that has not been
looked at first.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from .wire import Link, LinkLost

NAMES = ("append", "read", "position")
_RUN = re.compile(rb"run_id:([0-9a-f]{8,64})")


@cache
def _text(name: str) -> str:
    return (files("dualcast.bus") / "lua" / f"{name}.lua").read_text(encoding="utf-8")


class Scripts:
    """SHAs by name; empty until loaded."""

    def __init__(self) -> None:
        self.shas: dict[str, bytes] = {}
        self.run_id = ""

    async def load(self, link: Link) -> None:
        """Loads all scripts into the server behind `link`. Raises LinkLost."""
        found = _RUN.search(await link.ask("INFO", "server"))
        if found is None:
            raise LinkLost
        run_id = found[1].decode()
        prelude = f"local RUN = '{run_id}'\n{_text('fence')}"
        shas = {name: await link.ask("SCRIPT", "LOAD", prelude + _text(name)) for name in NAMES}
        self.shas = shas
        self.run_id = run_id
