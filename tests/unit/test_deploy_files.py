"""docs/deploy/dualcast.service and the steps of docs/operations.md that go with it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from configparser import RawConfigParser
from pathlib import Path

import pytest

from dualcast.cli.doctor import FILES
from dualcast.cli.root import USAGE, cli
from dualcast.settings import Settings

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "docs/deploy/dualcast.service"
OPERATIONS = (ROOT / "docs/operations.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def unit() -> RawConfigParser:
    parser = RawConfigParser(strict=True, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    return parser


def test_the_unit_starts_a_command_that_exists(unit: RawConfigParser) -> None:
    program, name, *options = shlex.split(unit["Service"]["ExecStart"])
    assert f"{Path(program).parent}/pip install" in OPERATIONS
    known = {option for parameter in cli.commands[name].params for option in parameter.opts}
    assert {option for option in options if option.startswith("--")} <= known
    assert unit["Service"]["EnvironmentFile"] in OPERATIONS


def test_the_unit_agrees_with_the_server(unit: RawConfigParser) -> None:
    service = unit["Service"]
    assert float(service["TimeoutStopSec"]) > Settings().server.drain_s + 10
    assert int(service["LimitNOFILE"]) >= FILES
    assert int(service["RestartPreventExitStatus"]) == USAGE
    assert service["WorkingDirectory"] == f"/var/lib/{service['StateDirectory']}"
    # SIGTERM to the first process only: it counts the workers' ends, and starts what ends without it again.
    assert service["KillMode"] == "mixed"
    assert service["User"] == "dualcast" and service["StateDirectoryMode"] == "0700"


def test_systemd_takes_the_unit_without_a_word(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze here")
    copy = tmp_path / UNIT.name
    copy.write_text(
        re.sub(r"(?m)^(ExecStart=)\S+", rf"\g<1>{sys.executable}", UNIT.read_text(encoding="utf-8"))
    )
    done = subprocess.run([program, "verify", copy], check=False, capture_output=True, text=True)
    # It also reads the machine's own units, which are no matter here.
    said = [line for line in (done.stdout + done.stderr).splitlines() if UNIT.name in line]
    assert not said


def test_the_source_archive_holds_what_its_documents_ask_for() -> None:
    """`make` and `.locks/runtime.txt` stood in README.md and docs/operations.md, and were not packed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packed = project["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"]
    assert {"Makefile", ".ci", ".locks", "docs", "clients", "tests"} <= set(packed)
    assert all((ROOT / name).exists() for name in packed)
    assert "\ndist: " in (ROOT / "Makefile").read_text(encoding="utf-8") and "`make dist`" in OPERATIONS
