"""`gatecrash new` writes plugins that work as they are; that they pass their checks is tested with the pages that show them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

import gatecrash
from gatecrash.authoring.scaffold import PLUGIN_KINDS, Names, NewKind, check_name
from gatecrash.cli.new_command import KINDS
from gatecrash.errors import UserError
from gatecrash.host.loading import load_plugins
from support.paths import ROOT

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
    for part in ("attacks", "triggers", "defenses"):
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


def test_the_command_offers_every_kind_that_can_be_written() -> None:
    assert get_args(NewKind) == KINDS == tuple(PLUGIN_KINDS)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[] if kind in {"trigger", "defense"} else pytest.mark.slow)  # the tutorial's tests try all of them
        for kind in KINDS
        if kind not in {"dataset", "model"}
    ],
)
def test_what_is_written_runs_in_a_grid(gatecrash: Gatecrash, empty: Path, small_grid: Any, kind: NewKind) -> None:
    written = gatecrash("new", kind, "my-method")
    assert written.code == 0, written.err
    assert "wrote my_method.py\nwrote test_my_method.py\n" in written.out
    plugin_kind = PLUGIN_KINDS[kind]
    fields = {f"{plugin_kind}s": ["none", "my-method"]}
    if kind == "trigger":
        fields = {"attacks": ["none", {"dirty-label": {"trigger": "my-method"}}]}
    ran = gatecrash("run", small_grid(**{"attacks": ["none"], **fields}), "--store", "store", "--plugins", "my_method.py")
    assert ran.code == 0, ran.err
    records = json.loads(gatecrash("results", "--store", "store", "--format", "json").out)
    expected = "dirty-label" if kind == "trigger" else "my-method"
    assert expected in {record["attack" if kind == "trigger" else plugin_kind] for record in records}
    assert {record["status"] for record in records} == {"ok"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_tests_that_are_written_pass(gatecrash: Gatecrash, empty: Path, kind: NewKind) -> None:
    gatecrash("new", kind, "my-method")
    done = subprocess.run([sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider"], cwd=empty, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    if kind not in {"dataset", "model"}:
        assert "test_my_method.py::test_it_keeps_the_contract[my-method-is-deterministic] PASSED" in done.stdout


@pytest.mark.slow
def test_what_is_written_is_formatted_and_typed_as_the_shipped_plugins_are(gatecrash: Gatecrash, repository: Path) -> None:
    for kind in KINDS:
        assert gatecrash("new", kind, f"my-{kind}").code == 0
    ours = 'lint.isort.known-first-party=["gatecrash", "gatecrash_plugins"]'
    settings = ["--config", str(ROOT / "pyproject.toml"), "--config", ours]
    settings_of_mypy = ["--config-file", str(ROOT / "pyproject.toml")]
    for command in (
        ["ruff", "check", *settings, "."],
        ["ruff", "format", "--diff", *settings, "."],
        ["mypy", *settings_of_mypy, "plugins"],
    ):
        done = subprocess.run([sys.executable, "-m", *command], cwd=repository, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_in_a_checkout_the_files_go_where_the_shipped_ones_are(
    gatecrash: Gatecrash, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository / "plugins")
    assert gatecrash("new", "defense", "my-method").code == 0
    test = repository / "tests" / "plugins" / "defenses" / "test_my_method.py"
    assert (repository / "plugins" / "gatecrash_plugins" / "defenses" / "my_method.py").is_file()
    assert "from gatecrash_plugins.defenses.my_method import MyMethod" in test.read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_announces_the_plugin_by_an_entry_point(gatecrash: Gatecrash, repository: Path, kind: NewKind) -> None:
    called = gatecrash("new", kind, "my-method", "--package")
    assert "pip install --editable gatecrash-my-method" in called.out
    home = repository / "gatecrash-my-method"
    project = tomllib.loads((home / "pyproject.toml").read_text())
    assert project["project"]["entry-points"] == {"gatecrash": {"my-method": "gatecrash_my_method"}}
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["src/gatecrash_my_method"]
    assert load_plugins([home / "src" / "gatecrash_my_method" / "__init__.py"]).get(PLUGIN_KINDS[kind], "my-method")
    assert "from gatecrash_my_method import MyMethod" in (home / "tests" / "test_my_method.py").read_text()
    steps = yaml.safe_load((home / ".github" / "workflows" / "test.yml").read_text())["jobs"]["test"]["steps"]
    assert [step["run"] for step in steps[-2:]] == ["gatecrash show my-method", "pytest"]
    assert "$ pip install ." in (home / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["attack", "model"])
def test_a_package_installs_and_passes_its_own_ci(gatecrash: Gatecrash, empty: Path, kind: NewKind) -> None:
    gatecrash("new", kind, "my-method", "--package")
    home, site = empty / "gatecrash-my-method", empty / "site"
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *sys.path])}
    for command in (
        ["pip", "install", *options, "--target", str(site), "."],
        ["gatecrash", "show", "my-method"],
        ["pytest", "-p", "no:cacheprovider"],
    ):
        done = subprocess.run([sys.executable, "-m", *command], cwd=home, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


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
