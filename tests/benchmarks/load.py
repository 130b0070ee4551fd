"""The load programs (`load/*.c`): compiled once per run, started on the load CPUs, spoken to in lines of
JSON.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.processes import BenchmarkFailed, pinned

SOURCES = Path(__file__).parent / "load"


def compile_programs(folder: Path) -> None:
    """`fan` and `publish` into `folder`. Raises BenchmarkFailed naming the Debian package when there is no
    compiler.
    """
    if shutil.which("gcc") is None:
        raise BenchmarkFailed("gcc is missing: install the Debian packages gcc and libc6-dev")
    for name in ("fan", "publish"):
        command = ["gcc", "-O2", "-Wall", "-o", str(folder / name), str(SOURCES / f"{name}.c")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchmarkFailed(f"{name}.c does not compile (package libc6-dev?)\n{done.stderr}")


class Lines:
    """A load program whose standard output is one JSON object per line."""

    def __init__(self, folder: Path, program: str, arguments: list[str], cpus: set[int]) -> None:
        self.name = program
        self.errors = folder / f"{program}.err"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                pinned([str(folder / program), *arguments], cpus),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self._read = b""

    def next(self, timeout_s: float) -> dict[str, Any] | None:
        """The next object, None when there was none in time; raises BenchmarkFailed when the program
        ended.
        """
        assert self.process.stdout is not None
        end = time.monotonic() + timeout_s
        while b"\n" not in self._read:
            if not select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
                return None
            chunk = os.read(self.process.stdout.fileno(), 65536)
            if not chunk:
                raise BenchmarkFailed(f"{self.name} ended: {self.errors.read_text(errors='replace')[-800:]}")
            self._read += chunk
        line, _, self._read = self._read.partition(b"\n")
        result: dict[str, Any] = json.loads(line)
        return result

    def complaint(self) -> str:
        """The start of what it wrote to standard error."""
        return self.errors.read_text(errors="replace")[:400].strip()

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


class Fan(Lines):
    """Subscriber connections; see load/fan.c."""

    def __init__(self, folder: Path, arguments: list[str], cpus: set[int]) -> None:
        super().__init__(folder, "fan", arguments, cpus)

    def event(self, name: str, timeout_s: float) -> dict[str, Any] | None:
        """The next `name` event; None when it does not come in time. Others are passed over."""
        end = time.monotonic() + timeout_s
        while (found := self.next(max(0.0, end - time.monotonic()))) is not None:
            if found["event"] == name:
                return found
        return None

    def opened(self, timeout_s: float = 60) -> dict[str, Any]:
        """Waits until every connection is open. Raises BenchmarkFailed when some were refused or time is
        up.
        """
        found = self.event("open", timeout_s)
        if found is None:
            raise BenchmarkFailed(f"connections not open after {timeout_s:g} s; {self.complaint()}")
        if found["refused"]:
            raise BenchmarkFailed(f"{found['refused']} connections refused; {self.complaint()}")
        return found

    def mark(self) -> dict[str, Any]:
        """The counters now; latencies are those since the mark before."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"mark\n")
        self.process.stdin.flush()
        found = self.event("mark", 30)
        if found is None:
            raise BenchmarkFailed("the subscribers do not answer")
        return found


class Publisher(Lines):
    """A publisher under way; see load/publish.c."""

    def __init__(self, folder: Path, arguments: list[str], cpus: set[int]) -> None:
        super().__init__(folder, "publish", arguments, cpus)

    def result(self, timeout_s: float) -> dict[str, Any]:
        """Its figures, when it is done. Raises BenchmarkFailed when a publication was refused or time is
        up.
        """
        found = self.next(timeout_s)
        if found is None:
            raise BenchmarkFailed("the publisher does not end")
        if found["failed"]:
            raise BenchmarkFailed(f"{found['failed']} publications refused; {self.complaint()}")
        return found
