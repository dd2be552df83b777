"""`gatecrash plot triggers --trigger`: triggers that no attack has used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.text import Text

from gatecrash.boards.plots.named_triggers import named_triggers
from gatecrash.errors import UserError
from gatecrash.host.loading import load_plugins

NEEDY = """
from gatecrash import TriggerMaker, hookimpl


class Needy(TriggerMaker):
    name = "needy"
    summary = "needs a benign victim"
    needs_benign = True

    def make(self, ctx):
        raise AssertionError("has no victim")


@hookimpl
def register_triggers(register):
    register(Needy)
"""


def test_a_row_for_each_value_of_a_sweep() -> None:
    figure = named_triggers([{"patch": {"size": [3, 5]}}, "blend"], "digits", load_plugins(installed=False))
    said = {text.get_text() for text in figure.findobj(Text)}
    assert {"patch (size=3)", "patch (size=5)", "blend", "Triggers on a test image of digits"} <= said
    small, large = (figure.axes[row * 3 + 2].images[0].get_array() for row in (0, 1))
    assert (small[-3:, -3:] > 0).sum() >= (small > 0).sum() > 0  # the patch lies in the last 3 rows and columns
    assert (large > 0).sum() > (small > 0).sum()


def test_the_command_needs_no_store(gatecrash: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "triggers.png"
    called = gatecrash("plot", "triggers", "--trigger", "{patch: {size: 4}}", "--store", tmp_path / "none", "--output", path)
    assert (called.code, called.out.strip()) == (0, str(path))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--trigger", "blendd"], "unknown trigger 'blendd'; did you mean 'blend'?"),
        (["--trigger", "{patch: {size: 99}}"], "a 99x99 patch at bottom-right with inset 0 does not fit an image of 16x16"),
        (["--trigger", "{patch: {seize: 3}}"], "seize"),
        (["--trigger", "{{"], "--trigger"),
        (["--trigger", "blend", "--dataset", "[digits]"], "dataset: write a name"),
        (["--trigger", "blend", "-o", "seeds=0"], "--trigger needs none of them"),
        (["--dataset", "digits"], "--dataset belongs to --trigger"),
    ],
)
def test_a_mistake_is_one_line(gatecrash: Callable[..., Any], arguments: list[str], said: str) -> None:
    called = gatecrash("plot", "triggers", *arguments)
    assert (called.code, called.out) == (2, "")
    assert said in called.err
    assert len(called.err.splitlines()) == 1


def test_a_trigger_that_needs_a_benign_victim_is_refused(tmp_path: Path) -> None:
    (tmp_path / "needy.py").write_text(NEEDY)
    with pytest.raises(UserError, match="--trigger needy: it is made with a benign victim"):
        named_triggers(["needy"], "digits", load_plugins((tmp_path / "needy.py",), installed=False))
