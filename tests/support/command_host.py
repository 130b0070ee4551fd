"""A process that runs one `dualcast` command after the other: a process of its own, as for users, whose
start is paid for once.

As a program: each line of standard input is `{"arguments", "folder", "environ", "stdin"}`, each of standard
output `{"code", "out", "err"}`.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest import mock


@dataclass
class Done:
    """An ended command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


class CommandHost:
    """The process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            (sys.executable, "-P", __file__), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()  # the end of its input ends it

    async def run(self, *arguments: str, folder: Path, environ: Mapping[str, str], stdin: str = "") -> Done:
        """Runs one command in `folder`, with `environ` as its whole environment."""
        asked = {"arguments": arguments, "folder": str(folder), "environ": dict(environ), "stdin": stdin}
        async with asyncio.timeout(60):
            return Done(**json.loads(await asyncio.to_thread(self._answer, json.dumps(asked))))

    def _answer(self, line: str) -> str:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(line, file=self._process.stdin, flush=True)
        return self._process.stdout.readline()


def serve() -> None:
    """The program."""
    from dualcast.cli.root import run

    for line in sys.stdin:
        asked = json.loads(line)
        os.chdir(asked["folder"])
        shown = [io.BytesIO(), io.BytesIO()]
        out, err = (io.TextIOWrapper(raw, "utf-8", write_through=True) for raw in shown)
        given = mock.patch.object(sys, "stdin", io.StringIO(asked["stdin"]))
        environ = mock.patch.dict(os.environ, asked["environ"], clear=True)
        with given, environ, redirect_stdout(out), redirect_stderr(err):
            try:
                code = run(asked["arguments"])
            except Exception:
                traceback.print_exc()
                code = 1
        said = [raw.getvalue().decode() for raw in shown]
        print(json.dumps({"code": code, "out": said[0], "err": said[1]}), flush=True)


if __name__ == "__main__":
    serve()
