"""`gatecrash new` writes methods that work as they are."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gatecrash
from gatecrash.authoring.scaffold import Names, check_name
from gatecrash.errors import UserError
from gatecrash.host.loading import load_plugins
from gatecrash.testing import checks_for

Gatecrash = Callable[..., Any]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def repository(empty: Path) -> Path:
    """What makes a folder a checkout."""
    for part in ("attacks", "defenses"):
        (empty / "plugins" / "gatecrash_plugins" / part).mkdir(parents=True)
    return empty


def test_the_names_of_a_plugin_its_module_and_its_class() -> None:
    names = check_name("corner-dot2")
    assert (names.name, names.module, names.cls, names.title) == ("corner-dot2", "corner_dot2", "CornerDot2", "Corner dot2")
    assert names == Names("corner-dot2")


@pytest.mark.parametrize("name", ["Corner", "corner_dot", "-dot", "dot-", "2fast", "a--b", "", "../dot", "class", "match", "dot.py"])
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="cannot name a"):
        check_name(name)


@pytest.mark.parametrize("kind", ["attack", "defense"])
def test_what_is_written_passes_its_checks_and_runs_in_a_grid(gatecrash: Gatecrash, empty: Path, small_grid: Any, kind: str) -> None:
    written = gatecrash("new", kind, "my-method")
    assert written.code == 0, written.err
    assert "wrote my_method.py\nwrote test_my_method.py\n" in written.out
    plugin = load_plugins([empty / "my_method.py"]).get(kind, "my-method").configure()  # type: ignore[arg-type]
    for check in checks_for(plugin):
        check(plugin)
    fields = {"attacks": ["none", "my-method"]} if kind == "attack" else {"attacks": ["none"], "defenses": ["none", "my-method"]}
    ran = gatecrash("run", small_grid(**fields), "--store", "store", "--plugins", "my_method.py")
    assert ran.code == 0, ran.err
    records = json.loads(gatecrash("results", "--store", "store", "--format", "json").out)
    assert "my-method" in {record[kind] for record in records}
    assert {record["status"] for record in records} == {"ok"}


@pytest.mark.slow
def test_the_tests_that_are_written_pass(gatecrash: Gatecrash, empty: Path) -> None:
    gatecrash("new", "attack", "my-attack")
    gatecrash("new", "defense", "my-defense")
    done = subprocess.run([sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider"], cwd=empty, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "test_my_attack.py::test_it_keeps_the_contract[my-attack-is-deterministic] PASSED" in done.stdout
    assert "test_my_defense.py::test_it_keeps_the_contract[my-defense-benign-victim-survives] PASSED" in done.stdout


def test_in_a_checkout_the_files_go_where_the_shipped_ones_are(
    gatecrash: Gatecrash, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository / "plugins")
    assert gatecrash("new", "defense", "my-method").code == 0
    test = repository / "tests" / "plugins" / "defenses" / "test_my_method.py"
    assert (repository / "plugins" / "gatecrash_plugins" / "defenses" / "my_method.py").is_file()
    assert "from gatecrash_plugins.defenses.my_method import MyMethod" in test.read_text()


def test_a_package_announces_the_method_by_an_entry_point(gatecrash: Gatecrash, repository: Path) -> None:
    called = gatecrash("new", "attack", "my-method", "--package")
    assert "pip install --editable gatecrash-my-method" in called.out
    project = tomllib.loads((repository / "gatecrash-my-method" / "pyproject.toml").read_text())
    assert project["project"]["entry-points"] == {"gatecrash": {"my-method": "gatecrash_my_method"}}
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["gatecrash_my_method"]
    code = repository / "gatecrash-my-method" / "gatecrash_my_method" / "__init__.py"
    assert load_plugins([code]).get("attack", "my-method")
    assert "from gatecrash_my_method import MyMethod" in (repository / "gatecrash-my-method" / "tests" / "test_my_method.py").read_text()


def test_nothing_is_overwritten(gatecrash: Gatecrash, empty: Path) -> None:
    (empty / "test_my_method.py").write_text("precious")
    called = gatecrash("new", "attack", "my-method")
    assert called.code == 2
    assert "test_my_method.py exists already" in called.err
    assert (empty / "test_my_method.py").read_text() == "precious"
    assert not (empty / "my_method.py").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("badnets", "the attack 'badnets' exists already (gatecrash_plugins.attacks.badnets)"),
        ("random", "random.py would hide the installed module 'random'"),
    ],
)
def test_a_name_that_is_taken_is_refused(gatecrash: Gatecrash, empty: Path, name: str, said: str) -> None:
    called = gatecrash("new", "attack", name)
    assert called.code == 2
    assert said in called.err
    assert list(empty.iterdir()) == []


def test_the_generated_code_uses_public_names_only() -> None:
    templates = Path(gatecrash.__file__).parent / "authoring" / "scaffold" / "templates"
    imports = [line for path in templates.glob("*.txt") for line in path.read_text().splitlines() if line.startswith("from gatecrash")]
    assert imports
    assert all(line.startswith(("from gatecrash import", "from gatecrash.testing import")) for line in imports)
