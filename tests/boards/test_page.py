"""What a published board says."""

from __future__ import annotations

import re

from gatecrash.boards.leaderboard import leaderboard
from gatecrash.boards.panel import arrange
from gatecrash.boards.published.redaction import redacted
from gatecrash.boards.render.markdown import to_markdown
from gatecrash.host.loading import load_plugins
from gatecrash.records.runs import AskedCell
from gatecrash.records.stage import Stage
from support.boards import a_result_of_images, leaderboard_text, matrix_text, page_text
from support.cells import cell, undefended


def test_detectors_are_scored_on_backdoored_and_on_benign_victims() -> None:
    results = undefended()
    for seed in range(3):
        verdict = {
            "verdict": True,
            "verdict_probability": 0.9,
            "verdict_targets_equal": seed != 0,
            "detection_tpr": 0.8,
            "detection_fpr": 0.1,
        }
        results.append(cell("badnets", "detector", seed, gives=["verdict", "suspects"], measures=verdict))
        false_alarm = {"verdict": seed == 0, "verdict_probability": 0.4, "detection_fpr": 0.05}
        results.append(cell("none", "detector", seed, gives=["verdict", "suspects"], measures=false_alarm))
    shown = page_text(results)
    assert re.search(r"\| detector +\| 3 of 3 +\| 2 of 3 +\| 1 of 3 +\| 1\.000 \(", shown)
    assert re.search(r"\| detector +\| badnets +\| 80\.0 \[80\.0, 80\.0\] +\| 10\.0 \[10\.0, 10\.0\]", shown)
    assert re.search(r"\| detector +\| none +\| +\| 5\.0 \[5\.0, 5\.0\]", shown)


def test_the_matrix_shows_seeds_failures_and_gaps_as_such() -> None:
    results = undefended()
    results += [cell("badnets", "d", 0, asr=0.2), cell("badnets", "d", 1, status="failed", error="x")]
    results += [cell("none", "d", seed, status="not-applicable") for seed in range(3)]
    rows = matrix_text(results).splitlines()
    assert re.search(r"\| none +\| 90\.0 \[90\.0, 90\.0\] +\| not-applicable +\|", rows[2])
    assert re.search(r"90\.0 / 20\.0 \(n=1, 1 failed, 1 missing\)", rows[3])


def test_a_board_says_that_it_has_one_seed_and_a_part_of_the_dataset() -> None:
    text = page_text([redacted(a_result_of_images(), load_plugins(installed=False))])
    assert "imagefolder signs (20,000 training images of it), small-cnn, 1 epoch; seed 0." in text
    assert "> **One seed (n = 1).** How much the numbers vary" in text
    assert "Wilson" in text
    assert "> **A part of the dataset:** 20,000 training images of it" in text
    assert "$ gatecrash verify b -o dataset.imagefolder.root=signs\n" in text
    whole = page_text([a_result_of_images(seed=seed, dataset=Stage(name="digits", config={"limit": None})) for seed in (0, 1)])
    assert "\n> " not in whole
    assert "$ gatecrash verify b\n" in whole


def test_a_place_cannot_break_out_of_the_command() -> None:
    root = "a b\n```\n<script>; rm -rf"
    text = page_text(
        [redacted(a_result_of_images(dataset=Stage(name="imagefolder", config={"root": root})), load_plugins(installed=False))]
    )
    assert "$ gatecrash verify b -o 'dataset.imagefolder.root=a b ``` <script>; rm -rf'\n" in text


def test_a_defense_without_a_finished_cell_is_named() -> None:
    """It once vanished from the board: nothing said that it had been tried."""
    results = [*undefended(), *(cell("badnets", "good", seed, asr=0.1) for seed in range(3))]
    results += [cell("badnets", "broken", seed, status="failed", error="x") for seed in range(3)]
    for text in (page_text(results), leaderboard_text(results)):
        assert "\nWithout a finished cell: broken (3 failed).\n" in text


def test_what_a_run_asked_for_has_its_row_and_column_before_there_is_a_result() -> None:
    asked = [AskedCell(f"{name}-{seed}", Stage(name="badnets"), (Stage(name=name),), seed) for name in ("none", "later") for seed in (0, 1)]
    panel = arrange([cell("none", "none", 0), cell("badnets", "none", 0)], asked)
    assert (panel.attacks, panel.defenses, panel.seeds) == (("none", "badnets"), ("none", "later"), (0, 1))
    assert ("badnets", "later", 1) in panel.missing()
    assert "Without a finished cell: later (no result yet)." in to_markdown([leaderboard(panel, "x")])
