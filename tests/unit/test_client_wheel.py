"""The wheel of the Python client holds all of it and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from support.client_package import FOLDER


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    done = subprocess.run([*command, str(FOLDER)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = tmp_path.glob("*.whl")
    names = [name for name in zipfile.ZipFile(file).namelist() if ".dist-info/" not in name]
    package = FOLDER / "src/dualcast_client"
    sources = {f"dualcast_client/{path.name}" for path in package.iterdir() if path.is_file()}
    assert set(names) == sources and "dualcast_client/py.typed" in sources
