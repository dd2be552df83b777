"""Tables of detectors."""

from __future__ import annotations

from gatecrash.boards.panel import arrange
from gatecrash.boards.render.markdown import blocks_to_markdown
from gatecrash.boards.standings import defense_standings
from gatecrash.boards.tables.detectors import input_detectors, model_detectors, row_detectors
from gatecrash.records.stage import Stage
from support.counted import changed, counted, defended, detected


def test_a_control_shows_what_a_detector_has_that_always_accuses_the_same_class() -> None:
    """By default every attack's target is class 0: naming it always would be exact."""
    victim = counted()
    judged = changed(defended(victim, access="model", gives=["verdict"]), verdict=True, verdict_targets=[0], verdict_targets_equal=True)
    benign = counted(key="aa" * 20, victim_key="bb" * 20, attack=Stage(name="none"), measures={"acc": 0.9})
    page = blocks_to_markdown([model_detectors(arrange([victim, judged, benign]))])
    rows = [[field.strip() for field in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    named = {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[1:]}
    assert named["always accuses 0"]["targets named exactly"] == named["fine-pruning"]["targets named exactly"] == "1 of 1"
    assert named["always accuses 0"]["benign models flagged"] == "1 of 1"


def test_detectors_of_inputs_have_a_table_with_intervals_over_images() -> None:
    victim = counted()
    page = blocks_to_markdown([input_detectors(arrange([victim, defended(victim), detected(victim)]))])
    titles, row = ([field.strip() for field in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| "))
    shown = dict(zip(titles, row, strict=True))
    assert (shown["detector"], shown["attack"]) == ("strip", "badnets")
    assert (shown["input TPR"], shown["input FPR"]) == ("80.0 [71.1, 86.7]", "2.0 [0.8, 5.0]")  # Wilson's of 80 of 100, and of 4 of 200
    assert (shown["TPR at 1% FPR"], shown["TPR at 5% FPR"]) == ("60.0 [50.2, 69.1]", "90.0 [82.6, 94.5]")
    assert shown["input AUROC"].startswith("0.900")
    assert (shown["ACC"].split()[0], shown["ASR"].split()[0], shown["input TPR, successful"].split()[0]) == ("92.0", "20.0", "79.6")


def test_rows_called_rightly_have_a_column_where_results_hold_it() -> None:
    victim = counted()
    older = changed(defended(victim), detection_tpr=0.8, detection_fpr=0.1)
    assert "accuracy" not in row_detectors(arrange([victim, older])).columns
    shown = row_detectors(arrange([victim, changed(older, detection_accuracy=0.89)]))
    (row,) = shown.rows
    assert row[shown.columns.index("accuracy")].text == "89.0"


def test_a_detector_of_inputs_is_ranked_as_what_it_makes_of_the_classifier() -> None:
    victim = counted()
    panel = arrange([victim, detected(victim)])
    assert [standing.defense for standing in defense_standings(panel)["input-time"]] == ["strip"]
