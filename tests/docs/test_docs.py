"""What the documents show works as shown."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gatecrash.cli import COMMANDS
from gatecrash.planning.grid import shipped_grids
from support.documents import code_blocks
from support.paths import ROOT


@pytest.mark.parametrize(("index", "fields"), [(0, {"attacks": ["corner-dot"]}), (1, {"defenses": ["plain-fine-tuning"]})])
def test_the_plugins_in_contributing_run(
    gatecrash: Callable[..., Any], small_grid: Any, tmp_path: Path, index: int, fields: dict[str, Any]
) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text(code_blocks("CONTRIBUTING.md", "python")[index])
    called = gatecrash(
        "run", small_grid(**fields), "--store", tmp_path / "s", "--plugins", plugin, "--executor", "serial", "--only", _only(fields)
    )
    assert called.code == 0, called.err
    assert "warning" not in called.err


def test_the_defense_in_contributing_passes_its_checks(gatecrash: Callable[..., Any], tmp_path: Path) -> None:
    plugin = tmp_path / "plain_fine_tuning.py"
    plugin.write_text(code_blocks("CONTRIBUTING.md", "python")[1])
    called = gatecrash("check", plugin)
    assert called.code == 0, called.out


def test_the_conformance_test_in_contributing_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = code_blocks("CONTRIBUTING.md", "python")
    (tmp_path / "corner_dot.py").write_text(blocks[0])
    monkeypatch.syspath_prepend(tmp_path)
    names: dict[str, Any] = {}
    exec(blocks[3], names)
    (mark,) = names["test_it_keeps_the_contract"].pytestmark
    assert len(mark.args[1]) > 20
    for case in mark.args[1]:
        names["test_it_keeps_the_contract"](*case.values)
    sys.modules.pop("corner_dot")


def _only(fields: dict[str, Any]) -> str:
    return "attack=none,corner-dot" if "attacks" in fields else "attack=none"


def test_every_command_and_grid_that_the_readme_names_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"gatecrash ([a-z]+)\b", "\n".join(code_blocks("README.md", "console")))) <= set(COMMANDS)
    assert set(re.findall(r"gatecrash run ([a-z0-9-]+)(?![\w./-])", text)) <= {*shipped_grids(), "my-grid"}


def test_no_document_names_a_command_that_is_not_there() -> None:
    for document in ("CONTRIBUTING.md", "CHANGELOG.md"):
        commands = re.findall(r"\$ gatecrash ([a-z]+)\b", (ROOT / document).read_text(encoding="utf-8"))
        assert set(commands) <= set(COMMANDS)
