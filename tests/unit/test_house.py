"""House rules that no linter knows: sizes, words, paths, locks, docstrings of rooms, links."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from support.checklist import covered, requirements, uncovered

ROOT = Path(__file__).parents[2]
MAX_LINES = 400
SOURCES = {".py", ".lua", ".js", ".mjs", ".ts", ".tsx", ".vue", ".css", ".html", ".sh", ".c"}
TOP_LEVEL = {"pyproject.toml", "server", "clients", "migration", "tests", "docs"}
TOP_LEVEL |= {"README.md", "Makefile", "LICENSE", "CHANGELOG.md"}
PACKAGES = (ROOT / "server/dualcast", ROOT / "migration/dualcast_migration")
CLASS_WORDS = re.compile(r"(Manager|Helper|Util|Utils|Impl)$")
# Written in pieces: this file is one of those that are searched.
HOSTS = [
    re.escape(f"{name}.{end}") for name, end in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"))
]
HOSTS += [re.escape(f"{name}.{end}") for name, end in (("npmjs", "com"), ("yarnpkg", "com"))]
PATHS = [rf"(?<![\w.*])/{name}/" for name in ("work", "root", r"home/\w+", "Users", "opt/wheels")]
FORBIDDEN = re.compile("|".join(HOSTS + PATHS))


@cache
def files() -> tuple[Path, ...]:
    """Files of the project: those git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout.split("\0")
    return tuple(path for name in listed if name and (path := ROOT / name).is_file())


def texts() -> Iterator[tuple[Path, str]]:
    for path in files():
        try:
            yield path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            assert path.suffix in {".png", ".ico", ".woff2"}, f"{path} is not UTF-8"


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_project_is_seen() -> None:
    names = {name_of(path) for path in files()}
    assert {"pyproject.toml", "server/dualcast/__init__.py", "tests/unit/test_house.py"} <= names


def test_no_source_file_is_longer_than_400_lines() -> None:
    long = {
        name_of(path): lines
        for path, text in texts()
        if path.suffix in SOURCES and (lines := text.count("\n")) > MAX_LINES
    }
    assert not long


def test_the_top_level_holds_what_it_should() -> None:
    names = {name_of(path).split("/")[0] for path in files()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    found = [f"{name_of(path)}: {match[0]}" for path, text in texts() for match in FORBIDDEN.finditer(text)]
    assert not found


def test_locks_have_hashes_and_no_addresses() -> None:
    locks = sorted((ROOT / ".locks").glob("*.txt"))
    assert [path.name for path in locks] == ["dev.txt", "runtime.txt"]
    for path in locks:
        text = path.read_text()
        assert not re.search(r"://|^\s*--?(index|extra-index|find-links|i)\b", text, re.MULTILINE), path
        entries = re.findall(r"^([a-z0-9_.-]+)==\S+.*?(?=^[a-z0-9]|\Z)", text, re.MULTILINE | re.DOTALL)
        assert len(entries) > 20, path
        assert all(
            "--hash=sha256:" in block for block in re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
        ), path


def test_the_runtime_lock_is_part_of_the_development_lock() -> None:
    def pinned(name: str) -> set[str]:
        return set(re.findall(r"^[a-z0-9_.-]+==[^\s;]+", (ROOT / ".locks" / name).read_text(), re.MULTILINE))

    assert pinned("runtime.txt") <= pinned("dev.txt")


def test_npm_locks_hold_no_addresses() -> None:
    for path, text in texts():
        if path.name == "package-lock.json":
            packages = json.loads(text)["packages"].values()
            assert not [one for one in packages if "resolved" in one and not one.get("link")], name_of(path)
            assert "://" not in text, name_of(path)
            assert '"integrity"' in text, name_of(path)


def rooms() -> list[Path]:
    found = [path for path in sorted(PACKAGES[0].glob("*/__init__.py")) if "__pycache__" not in path.parts]
    assert len(found) >= 10
    return found


@pytest.mark.parametrize("path", rooms(), ids=lambda path: path.parent.name)
def test_every_room_says_what_goes_in_what_comes_out_and_what_it_must_not(path: Path) -> None:
    tree = ast.parse(path.read_text())
    text = ast.get_docstring(tree) or ""
    for word in ("In:", "Out:", "Must not:"):
        assert word in text, f"{name_of(path)} has no {word!r}"
    imported = [
        node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module != "__future__"
    ]
    assert not imported, f"{name_of(path)} exports again what a module of the room has"


def test_every_module_has_a_docstring() -> None:
    bare = [
        name_of(path)
        for path, text in texts()
        if path.suffix == ".py"
        and path.is_relative_to(PACKAGES[0])
        and not ast.get_docstring(ast.parse(text))
    ]
    assert not bare


def test_classes_are_named_after_what_they_are() -> None:
    found = [
        f"{name_of(path)}: {node.name}"
        for path, text in texts()
        if path.suffix == ".py" and any(path.is_relative_to(package) for package in PACKAGES)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef) and CLASS_WORDS.search(node.name)
    ]
    assert not found


def anchors(text: str) -> set[str]:
    """Heading anchors as GitHub makes them, and explicit `<a id>`s."""
    heads = re.findall(
        r"^#+\s+(.+?)\s*$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    slugs = {re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", head).lower()).replace(" ", "-") for head in heads}
    return slugs | set(re.findall(r'<a id="([^"]+)"', text))


def test_links_of_documents_resolve() -> None:
    broken = []
    for path, text in texts():
        if path.suffix != ".md":
            continue
        prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", prose):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            file = (path.parent / name).resolve() if name else path
            if not file.exists() or (
                anchor and file.suffix == ".md" and anchor not in anchors(file.read_text())
            ):
                broken.append(f"{name_of(path)}: {target}")
    assert not broken


def test_covered_requirements_exist() -> None:
    known = requirements()
    assert len(known) > 400
    assert sorted(covered() - known.keys()) == []


def test_every_requirement_is_covered() -> None:
    assert uncovered("server", "test", "regression", "client", "ops", "docs") == []


def test_what_ci_runs_is_what_the_readme_says() -> None:
    script = (ROOT / ".ci/run").read_text().splitlines()
    command = script[-1].removeprefix("exec ")
    assert "set -euo pipefail" in script
    assert f"`{command}`" in (ROOT / "README.md").read_text() and command == "make test"


def test_every_target_of_the_makefile_explains_itself() -> None:
    text = (ROOT / "Makefile").read_text()
    for target in ("help", "run", "test", "check", "bench"):
        assert re.search(rf"^{target}:.*## \S", text, re.MULTILINE), target


def test_the_street_map_names_every_room_and_only_files_that_exist() -> None:
    text = (ROOT / "server/README.md").read_text()
    for path in rooms():
        assert f"\n### {path.parent.name}\n" in text
        section = text.split(f"\n### {path.parent.name}\n")[1].split("\n### ")[0]
        for name in re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE):
            assert (path.parent / name).is_file(), f"{path.parent.name}/{name}"
