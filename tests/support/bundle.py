"""JavaScript of a test as one file that a browser loads: esbuild of the clients' npm workspace.

Packages are those of the workspace (`@dualcast/client`, `react`, `vue`, …), built as a bundler of users does
for development: StrictMode mounts twice, warnings are shown.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from typing import Literal

from support.client_door import Door
from support.front_door import send_answer

CLIENTS = Path(__file__).parents[2] / "clients"
MODULES = CLIENTS / "node_modules"
_ESBUILD = MODULES / ".bin" / "esbuild"
_SECONDS = 60
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".map": "application/json"}


def bundle(
    entry_source: str | Path,
    folder: Path,
    *,
    react: Literal[18, 19] | None = None,
    name: str = "page",
    platform: Literal["browser", "node"] = "browser",
) -> Path:
    """The module `folder/<name>.js`, beside it `<name>.css` if a style sheet is imported. `entry_source`: the
    text of a module (JSX too; imports relative to `clients/`) or its file. `react`: the version that
    `react` and `react-dom` mean. Load it with
    `<script type="module">`.

    Raises AssertionError with what esbuild says.
    """
    assert _ESBUILD.exists(), "npm ci was not run in clients/"
    out = folder / f"{name}.js"
    command = [str(_ESBUILD), "--bundle", "--format=esm", "--target=es2022", f"--platform={platform}"]
    command += [f"--outfile={out}", "--log-level=warning", '--define:process.env.NODE_ENV="development"']
    command += ["--define:__VUE_OPTIONS_API__=true", "--define:__VUE_PROD_DEVTOOLS__=false"]
    command += ["--define:__VUE_PROD_HYDRATION_MISMATCH_DETAILS__=false"]
    if react == 18:
        command += ["--alias:react=react-18", "--alias:react-dom=react-dom-18"]
    if isinstance(entry_source, Path):
        command.append(str(entry_source.resolve()))
    else:
        command += ["--loader=jsx", "--jsx=automatic", "--sourcefile=entry.js"]
    done = subprocess.run(
        command,
        input=None if isinstance(entry_source, Path) else entry_source,
        stdin=subprocess.DEVNULL if isinstance(entry_source, Path) else None,
        cwd=CLIENTS,
        env={"PATH": os.environ.get("PATH", ""), "NODE_PATH": str(MODULES)},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out


def page(
    folder: Path, *, name: str = "page", title: str = "test", style: bool = False, lang: str = "en"
) -> None:
    """The document `folder/<name>.html`: an element `root` and the bundle `<name>.js`."""
    sheet = f'<link rel="stylesheet" href="{name}.css">' if style else ""
    text = f"""<!doctype html><html lang="{lang}"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">{sheet}
<body><div id="root"></div><script type="module" src="{name}.js"></script></body></html>"""
    (folder / f"{name}.html").write_text(text)


class BundleDoor(Door):
    """Serves the files below `folder` under `/site/` and is the network to one server."""

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(port)
        self.folder = folder.resolve()

    async def _page(self, writer: asyncio.StreamWriter, target: str) -> None:
        name = target.partition("?")[0].removeprefix("/site/") or "page.html"
        file = (self.folder / name).resolve()
        if file.is_relative_to(self.folder) and file.is_file():
            await send_answer(writer, "200 OK", _TYPES.get(file.suffix, "text/plain"), file.read_bytes())
        else:
            await send_answer(writer, "404 Not Found", "text/plain", b"")
