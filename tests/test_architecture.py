"""The rooms of the house: each imports only from those below it, and no import goes in a circle."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from support.paths import ROOT

SOURCE = ROOT / "benchmark" / "gatecrash"
ROOMS = (
    "cli",
    "notebook",
    "testing",
    "authoring",
    "boards",
    "running",
    "planning",
    "host",
    "records",
    "evaluation",
    "datasets",
    "engine",
    "contracts",
    "process",
    "errors",
    "versions",
)
"""From the top: a room may import what stands after it."""
RAY = {f"running.executors.ray_{part}" for part in ("driver", "probe", "session", "worker")}


def name_of(path: Path, source: Path = SOURCE) -> str:
    parts = path.relative_to(source).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module that a file names in an import: at the top, in functions, for types only, and by string."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in {"import_module", "__import__"} and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant):
                yield str(name.value)
            elif isinstance(name, ast.JoinedStr) and isinstance(name.values[0], ast.Constant):
                yield str(name.values[0].value).rstrip(".")


@cache
def graph() -> dict[str, set[str]]:
    """Modules of the harness by name (without the package's), each with those that it imports."""
    files = {name_of(path): path for path in SOURCE.rglob("*.py") if path.name != "__main__.py"}
    files.pop("")  # the package itself, which lists the public names
    edges: dict[str, set[str]] = {}
    for name, path in files.items():
        found = set()
        for target in imported(ast.parse(path.read_text(encoding="utf-8"))):
            head, _, rest = target.partition(".")
            if head == "gatecrash":
                while rest and rest not in files:
                    rest = rest.rpartition(".")[0]
                found.add(rest)
        edges[name] = found - {name}
    return edges


def test_every_module_stands_in_a_room() -> None:
    assert {name.partition(".")[0] for name in graph()} == {*ROOMS, "grids"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_the_rooms_below_it(room: str) -> None:
    below = set(ROOMS[ROOMS.index(room) :])
    upwards = {
        (name, target)
        for name, targets in graph().items()
        for target in targets
        if name.partition(".")[0] == room and target.partition(".")[0] not in below
    }
    assert not upwards


def test_no_import_goes_in_a_circle() -> None:
    left = {name: set(targets) for name, targets in graph().items()}
    while True:
        free = [name for name, targets in left.items() if not targets & left.keys()]
        if not free:
            break
        for name in free:
            del left[name]
    assert not left


def test_no_module_of_the_harness_imports_the_public_package() -> None:
    assert not [name for name, targets in graph().items() if "" in targets]


def test_the_test_finds_a_circle_of_any_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    top = "from gatecrash.engine.training import train"
    hidden = f"def f():\n    {top}"
    types = f"if TYPE_CHECKING:\n    {top}"
    string = "importlib.import_module('gatecrash.engine.training')"
    for text in (top, hidden, types, string):
        assert any(target.startswith("gatecrash.engine.training") for target in imported(ast.parse(text)))


def test_only_the_ray_executor_imports_ray() -> None:
    users = {
        name_of(path)
        for path in SOURCE.rglob("*.py")
        if any(target.partition(".")[0] == "ray" for target in imported(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert users == RAY


def test_plugins_import_public_names_and_each_other_only() -> None:
    plugins = ROOT / "plugins" / "gatecrash_plugins"
    for path, other in itertools.product(plugins.rglob("*.py"), ("gatecrash",)):
        names = [target for target in imported(ast.parse(path.read_text(encoding="utf-8"))) if target.partition(".")[0] == other]
        assert all(name.count(".") <= 1 for name in names), path
