"""Tables of detectors."""

from __future__ import annotations

from gatecrash.boards.panel import arrange
from gatecrash.boards.render.markdown import blocks_to_markdown
from gatecrash.boards.tables.detectors import model_detectors
from gatecrash.records.stage import Stage
from support.counted import changed, counted, defended


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
