"""The Lua scripts, loaded for one run of the server.

Scripts of other rooms (`bus.storage.Extension`) are loaded with the bus's own, and what rides along with an
append stands in front of the append script.

The server's run id stands in the script text (see `lua/fence.lua`), so a script's SHA is unknown to any
other server process and to the same one after a restart: no script ever runs on a server that has not been
looked at first.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from dualcast.bus.storage import Extension

from .wire import Link, LinkLost

_log = logging.getLogger(__name__)
NAMES = ("append", "read", "position")
_RUN = re.compile(rb"run_id:([0-9a-f]{8,64})")


@cache
def _text(name: str) -> str:
    return (files("dualcast.bus") / "lua" / f"{name}.lua").read_text(encoding="utf-8")


def fence(run_id: str) -> str:
    """What stands in front of every script."""
    return f"local RUN = '{run_id}'\n{_text('fence')}"


def texts(extensions: Sequence[Extension]) -> dict[str, str]:
    """Every script without its prelude, by name. Raises ValueError when a name is given twice."""
    found = {name: _text(name) for name in NAMES}
    # In blocks of their own, so the names of one are not in the way of another.
    riders = "".join(f"do\n{extension.riders}\nend\n" for extension in extensions if extension.riders)
    found["append"] = f"local RIDERS = {{}}\n{riders}{found['append']}"
    for extension in extensions:
        for name, text in extension.scripts.items():
            if name in found:
                raise ValueError(f"there are two scripts named {name}")
            found[name] = text
    return found


class Scripts:
    """SHAs by name; empty until loaded. Raises ValueError when a name is given twice."""

    def __init__(self, extensions: Sequence[Extension] = ()) -> None:
        self._texts = texts(extensions)
        self.shas: dict[str, bytes] = {}
        self.run_id = ""

    def __contains__(self, name: str) -> bool:
        return name in self._texts

    async def load(self, link: Link) -> None:
        """Loads all scripts into the server behind `link`. Raises LinkLost, also when it refuses one."""
        found = _RUN.search(await link.ask("INFO", "server"))
        if found is None:
            raise LinkLost
        run_id = found[1].decode()
        prelude = fence(run_id)
        # All at once: one round trip, however many rooms there are.
        loads = (link.ask("SCRIPT", "LOAD", prelude + text) for text in self._texts.values())
        answers = await asyncio.gather(*loads, return_exceptions=True)
        shas: dict[str, bytes] = {}
        for name, answer in zip(self._texts, answers, strict=True):
            if isinstance(answer, BaseException):
                if answer.args:
                    _log.error("redis does not take the script %s: %.300s", name, answer)
                raise answer
            shas[name] = answer
        self.shas = shas
        self.run_id = run_id
