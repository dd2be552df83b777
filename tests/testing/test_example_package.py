"""A package outside the repository is installed with pip and found through its entry points."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gatecrash.host.loading import load_plugins
from gatecrash.testing import Check, parametrize_with_checks
from support.paths import ROOT

EXAMPLE = ROOT / "tests" / "support" / "example_package"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the example package is installed in, as pip does it for a user; nothing is downloaded."""
    folder = tmp_path_factory.mktemp("site")
    source = shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(folder / "site"), str(source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture
def outside(installed: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line in a process of its own that has the package on its path."""

    def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(installed), *sys.path])
        return subprocess.run(
            [sys.executable, "-m", "gatecrash", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )

    return call


def test_it_is_found_through_its_entry_points(outside: Callable[..., Any]) -> None:
    shown = outside("plugins")
    assert shown.returncode == 0, shown.stdout
    assert "gatecrash_example.border (entry point example-attack): attack example-border" in shown.stdout
    assert "gatecrash_example.shrink (entry point example-defense): defense example-shrink" in shown.stdout


@pytest.mark.slow
@pytest.mark.ray
def test_it_runs_in_a_grid_under_ray(outside: Callable[..., Any], tmp_path: Path) -> None:
    """Its trigger and its classifier are rebuilt in workers that know the package by its entry points only."""
    grid = {
        "name": "outside",
        "dataset": {"digits": {"limit": 200, "limit_test": 60}},
        "model": "small-cnn",
        "recipe": {"preset": "tiny", "epochs": 3, "batch_size": 16},
        "attacks": ["none", "example-border"],
        "defenses": ["none", "example-shrink"],
    }
    (tmp_path / "outside.yaml").write_text(yaml.safe_dump(grid))
    done = outside("run", "outside.yaml", "--store", "store", "--executor", "ray", "--workers", "1", "-q")
    assert done.returncode == 0, done.stderr
    records = json.loads(outside("results", "--store", "store", "--format", "json").stdout)
    assert {(record["attack"], record["defense"], record["status"]) for record in records} == {
        (attack, defense, "ok") for attack in grid["attacks"] for defense in grid["defenses"]
    }


def plugins() -> list[Any]:
    host = load_plugins([EXAMPLE / "gatecrash_example"], installed=False)
    return [host.get("attack", "example-border").configure(), host.get("defense", "example-shrink").configure()]


@parametrize_with_checks(plugins())
def test_it_keeps_the_contracts(plugin: Any, check: Check) -> None:
    check(plugin)
