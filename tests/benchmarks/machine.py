"""What the machine says: CPUs to pin to, CPU time and memory of processes, and its description for the
report.

Linux only (`/proc`). CPU times are seconds, memory is bytes.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PACKAGES = ("litestar", "uvicorn", "uvloop", "httptools", "redis", "hiredis", "msgspec", "websockets")


def cpus() -> tuple[set[int], set[int]]:
    """(the server's CPU, the CPUs of Redis and all load). The same set twice on a machine with one CPU."""
    available = sorted(os.sched_getaffinity(0))
    return ({available[0]}, set(available[1:])) if len(available) > 1 else (set(available), set(available))


def tree(pid: int) -> list[int]:
    """`pid` and all its descendants that are alive."""
    found = [pid]
    for one in found:
        try:
            found += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
        except OSError:
            continue
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of `pid` and its live descendants."""
    ticks = 0
    for one in tree(pid):
        try:
            # The command name may hold spaces and brackets: count fields behind the last one.
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICK


def writes(pid: int) -> int:
    """Write calls of `pid` and its live descendants, as the kernel counts them; those to Redis included."""
    return sum(
        int(line.partition(b":")[2])
        for one in tree(pid)
        for line in Path(f"/proc/{one}/io").read_bytes().splitlines()
        if line.startswith(b"syscw")
    )


def rss_bytes(pid: int) -> int:
    """Resident memory of `pid` and its live descendants; shared pages count in each."""
    return sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) * _PAGE for one in tree(pid))


def busy_seconds(which: set[int]) -> float:
    """Time the CPUs in `which` were not idle since boot, all processes together."""
    busy = 0.0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in which:
            user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, fields)
            busy += (user + nice + system + irq + softirq) / _TICK
    return busy


def _first_line(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return "not installed"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip().partition("\n")[0]


def commit(folder: Path) -> str:
    """Short id of the commit `folder` is at, with `+changes` when the work tree differs; `unknown` outside
    git.
    """
    git = ["git", "-C", str(folder)]
    if shutil.which("git") is None:
        return "unknown"
    head = subprocess.run(
        [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False
    )
    if head.returncode:
        return "unknown"
    # The report this run writes must not mark itself as a change.
    changes = subprocess.run(
        [*git, "status", "--porcelain", "--", ".", ":!docs/benchmarks.*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return head.stdout.strip() + ("+changes" if changes.stdout.strip() else "")


def describe(folder: Path) -> dict[str, str]:
    """Name → text, in the order of the report."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "CPU": f"{model}, {os.cpu_count()} cores",
        "memory": f"{memory_kib / 2**20:.0f} GiB",
        "kernel": platform.release(),
        "python": sys.version.split()[0],
        "packages": ", ".join(f"{name} {version(name)}" for name in _PACKAGES),
        "redis-server": _first_line("redis-server", "--version").partition(" sha=")[0],
        "nginx": _first_line("nginx", "-v").partition(": ")[2] or "not installed",
        "commit": commit(folder),
    }
