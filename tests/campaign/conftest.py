"""What the campaign is made on: a small run, its store and its board; and how large the campaign is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from campaign.case import Case, fault
from gatecrash.records.summary import Summary
from gatecrash.running.run import run
from support.grids import SMALL_GRID
from support.plugin_files import attack_file


@pytest.fixture(scope="session")
def campaign_size() -> Callable[[int, int], int]:
    """`campaign_size(small, full)`: how many cases; GATECRASH_CAMPAIGN is `full`, or a number of cases."""
    asked = os.environ.get("GATECRASH_CAMPAIGN", "")

    def size(small: int, full: int) -> int:
        return full if asked == "full" else min(full, int(asked)) if asked else small

    return size


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the store of a small run and a folder of boards."""
    import yaml

    folder = tmp_path_factory.mktemp("campaign")
    summary = run(_written(folder / "small.yaml", yaml.safe_dump(SMALL_GRID)), folder / "store", "serial")
    assert summary.exit_code == 0
    shutil.copy(folder / "small.yaml", folder / "store" / "small.yaml")
    published = folder / "boards" / "results" / "small"
    published.mkdir(parents=True)
    for file in (folder / "store" / "results").glob("*/*.json"):
        shutil.copy(file, published)
    return folder


@pytest.fixture
def places(pristine: Path, tmp_path: Path) -> dict[str, Path]:
    for name in ("store", "boards"):
        shutil.copytree(pristine / name, tmp_path / name)
    home = tmp_path / "home"
    (home / "folder").mkdir(parents=True)
    _written(home / "plugin.py", attack_file())
    _written(home / "broken.py", "def broken(:")
    (home / "bytes.yaml").write_bytes(b"name: \xff\xfe")
    (home / "locked.yaml").touch(mode=0)
    (home / "loop").symlink_to(home / "loop")
    return {"home": home, "store": tmp_path / "store", "boards": tmp_path / "boards"}


@pytest.fixture(autouse=True)
def _input_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Input is tried here, not what is computed with it."""
    monkeypatch.setattr("gatecrash.cli.check_command._check", lambda *_: 0)
    monkeypatch.setattr("gatecrash.boards.verify.run_plan", lambda prepare, *_: Summary(prepare.plan))


@pytest.fixture
def tried(places: dict[str, Path]) -> Callable[[Callable[[int], Case], int], list[str]]:
    """`tried(generator, count)`: every case carried out; what went wrong. With GATECRASH_CORPUS=DIR each failing case is written there."""
    corpus = os.environ.get("GATECRASH_CORPUS")

    def try_all(case: Callable[[int], Case], count: int) -> list[str]:
        faults = []
        for number in range(count):
            drawn = case(number)
            if (found := fault(drawn, places)) is not None:
                faults.append(f"case {number}: {json.dumps(drawn.arguments)[:300]}\n{found[-1200:]}")
                if corpus is not None:
                    _written(Path(corpus) / f"{case.__module__.rpartition('.')[2]}-{number}.json", drawn.to_json())
        return faults

    return try_all


def _written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def pytest_make_parametrize_id(val: Any) -> str | None:
    return val.stem if isinstance(val, Path) else None
