"""Stealth against effect: each trigger's numbers at its mark, and the bounds of the bands."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("matplotlib")

from gatecrash.boards.panel import Panel, arrange
from gatecrash.boards.plots.stealth import stealth_effect
from gatecrash.boards.plots.triggers import TriggerExample
from gatecrash.errors import UserError
from support.cells import cell

IMAGE = torch.zeros(1, 2, 2, dtype=torch.uint8)


def example(attack: str, psnr: float | None, backdoor: str | None = None) -> TriggerExample:
    label = f"{attack}: {backdoor}" if backdoor else attack
    return TriggerExample(label, IMAGE, IMAGE, {"psnr": psnr, "ssim": 0.5}, attack, backdoor)


def panel() -> Panel:
    two = {"asr_by_backdoor": {"left": 0.2, "right": 0.8}}
    return arrange(
        [
            *(cell("badnets", "none", seed, asr=asr) for seed, asr in enumerate((0.94, 0.98))),
            cell("badnets", "anp", asr=0.0),
            cell("pair", "none", asr=0.5, measures=two),
            cell("none", "none"),
        ]
    )


def marks(figure: Any) -> list[tuple[float, float]]:
    return [(line.get_xdata()[0], line.get_ydata()[0]) for line in figure.axes[0].get_lines() if line.get_marker() in "os^"]


FOUND = [example("badnets", 20.0), example("pair", 31.0, "left"), example("pair", 40.0, "right")]


def test_a_mark_for_each_backdoor_at_its_distance_and_undefended_asr() -> None:
    figure = stealth_effect(panel(), FOUND)
    assert marks(figure) == [pytest.approx((20, 96)), pytest.approx((31, 20)), pytest.approx((40, 80))]
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == ["badnets (high)", "pair: left (low)", "pair: right (moderate)"]


def test_the_bounds_of_the_bands_are_drawn() -> None:
    lines = [line for line in stealth_effect(panel(), FOUND).axes[0].get_lines() if line.get_linestyle() == "--"]
    assert [line.get_ydata()[0] for line in lines[:2]] == [90, 70]
    assert lines[2].get_xdata()[0] == 30


def test_ssim_has_no_band_of_its_own() -> None:
    figure = stealth_effect(panel(), FOUND, "ssim")
    assert [x for x, _ in marks(figure)] == [0.5] * 3
    assert len([line for line in figure.axes[0].get_lines() if line.get_linestyle() == "--"]) == 2
    assert "SSIM" in figure.axes[0].get_xlabel()


def test_what_has_no_number_has_no_mark() -> None:
    figure = stealth_effect(panel(), [*FOUND[:1], example("pair", None, "left"), example("gone", 10.0)])
    assert len(marks(figure)) == 1
    with pytest.raises(UserError, match="no stored victim has a trigger with PSNR and ASR"):
        stealth_effect(panel(), [])
