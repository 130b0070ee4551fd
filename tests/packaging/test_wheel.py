"""The wheel holds all that runs and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"dualcast": ROOT / "server/dualcast", "dualcast_migration": ROOT / "migration/dualcast_migration"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("dist")
    command = [
        sys.executable,
        "-P",
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder),
        str(ROOT),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = folder.glob("*.whl")
    return zipfile.ZipFile(file)


def sources(folder: Path) -> set[str]:
    return {
        path.relative_to(folder.parent).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in path.parts)
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_of_both_packages_is_in_the_wheel(wheel: zipfile.ZipFile, package: str) -> None:
    wanted = sources(PACKAGES[package])
    assert f"{package}/py.typed" in wanted and f"{package}/__init__.py" in wanted
    missing = wanted - set(wheel.namelist())
    assert not missing


def test_the_modules_of_the_client_are_among_them_as_they_are(wheel: zipfile.ZipFile) -> None:
    source = ROOT / "clients/core/src"
    prefix = "dualcast/gateway/client/"
    packed = {name.removeprefix(prefix): wheel.read(name) for name in wheel.namelist() if prefix in name}
    assert packed == {
        path.relative_to(source).as_posix(): path.read_bytes() for path in source.rglob("*") if path.is_file()
    }
    assert "transports/websocket.js" in packed


def test_scripts_and_pages_are_among_them(wheel: zipfile.ZipFile) -> None:
    suffixes = {Path(name).suffix for name in wheel.namelist()}
    assert {".lua", ".html"} <= suffixes


def test_nothing_else_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    (info,) = tops - set(PACKAGES)
    assert info.endswith(".dist-info")
    assert not [name for name in wheel.namelist() if "test" in Path(name).name and name.endswith(".py")]


def test_the_console_script_starts_the_command_line(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    entries = ConfigParser()
    entries.read_string(wheel.read(name).decode())
    assert entries["console_scripts"]["dualcast"] == "dualcast.cli:main"


def test_the_metadata_names_licence_and_python(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("METADATA"))
    text = wheel.read(name).decode()
    assert "License-Expression: Apache-2.0" in text
    assert "Requires-Python: >=3.11" in text
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())
