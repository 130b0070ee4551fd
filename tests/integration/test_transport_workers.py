"""The process around the server: signals, drain, worker restart. Real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dualcast.transport.options import TransportSettings
from dualcast.transport.server import listen, stop_signals
from dualcast.transport.supervisor import reserve_port
from support.ports import free_port

PROGRAM = """
import os, sys, asyncio
from dualcast.transport.options import TransportSettings
from dualcast.transport.server import listen, run
from dualcast.transport.supervisor import supervise

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"].endswith("shutdown"):
                return
    body = str(os.getpid()).encode()
    if scope["path"] == "/crash":
        os._exit(3)
    headers = [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})

def worker(settings, args):
    async def on_drain():
        with open(args[0], "a") as out:
            out.write(f"{os.getpid()}\\n")
    run(app, settings, on_drain=on_drain, sock=listen(settings, shared=True))

if __name__ == "__main__":
    settings = TransportSettings(port=int(sys.argv[1]), workers=int(sys.argv[2]), grace_s=1.0, drain_s=2.0)
    if settings.workers == 1:
        worker(settings, sys.argv[3:])
    else:
        sys.exit(supervise(worker, settings, tuple(sys.argv[3:])))
"""


def ask(port: int, path: str = "/") -> int:
    """The process id that answers; 0 if the connection ends without an answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
        received = b""
        while data := sock.recv(4096):
            received += data
    return int(received.rpartition(b"\r\n\r\n")[2]) if received else 0


def until_answers(port: int) -> int:
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        try:
            if pid := ask(port):
                return pid
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError("the server does not answer")


HANG_UP = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_one_process_drains_and_exits_with_0(tmp_path: Path, number: int) -> None:
    program, drained, port = tmp_path / "program.py", tmp_path / "drained", free_port()
    program.write_text(HANG_UP + PROGRAM)
    process = subprocess.Popen([sys.executable, program, str(port), "1", str(drained)])
    try:
        assert until_answers(port) == process.pid
        process.send_signal(number)
        assert process.wait(15) == 0
        assert drained.read_text().split() == [str(process.pid)]
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("before", "counts"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
def test_who_started_it_with_nohup_keeps_it_when_the_terminal_is_closed(
    before: signal.Handlers, counts: bool
) -> None:
    found = signal.signal(signal.SIGHUP, before)
    try:
        assert (signal.SIGHUP in stop_signals()) is counts
    finally:
        signal.signal(signal.SIGHUP, found)


def test_workers_share_the_port_restart_and_drain(tmp_path: Path) -> None:
    program, drained, port = tmp_path / "program.py", tmp_path / "drained", free_port()
    program.write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, program, str(port), "2", str(drained)], stderr=subprocess.PIPE
    )
    try:
        until_answers(port)
        seen: set[int] = set()
        ends = time.monotonic() + 20
        while len(seen) < 2 and time.monotonic() < ends:
            seen.add(until_answers(port))
        assert len(seen) == 2 and process.pid not in seen
        with contextlib.suppress(OSError):
            ask(port, "/crash")
        while len(seen) < 3 and time.monotonic() < ends:
            seen.add(until_answers(port))
        assert len(seen) == 3, "the crashed worker was not replaced"
        process.terminate()
        assert process.wait(20) == 0
        assert len(drained.read_text().split()) == 2
        assert process.stderr is not None
        assert b"ended with status 3" in process.stderr.read()
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def test_workers_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    program, drained, port = tmp_path / "program.py", tmp_path / "drained", free_port()
    program.write_text(PROGRAM)
    process = subprocess.Popen([sys.executable, program, str(port), "2", str(drained)])
    worker = 0
    try:
        worker = until_answers(port)
        process.kill()
        process.wait()
        ends = time.monotonic() + 15
        while time.monotonic() < ends and Path(f"/proc/{worker}/stat").exists():
            if Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                break
            time.sleep(0.05)
        else:
            assert not Path(f"/proc/{worker}/stat").exists()
        worker = 0
    finally:
        process.kill()
        process.wait()
        if worker:
            os.kill(worker, signal.SIGKILL)


def test_a_taken_port_is_an_error_for_workers_too() -> None:
    with listen(TransportSettings(port=0)) as taken:
        taken.listen()
        settings = TransportSettings(port=taken.getsockname()[1], workers=2)
        with pytest.raises(OSError, match="in use"):
            reserve_port(settings)
