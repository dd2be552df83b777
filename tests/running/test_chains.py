"""Chains with a detector of inputs or a conditional stage, run from a grid."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from gatecrash import Rejecting, Result, RunOptions, Summary, load_cell
from gatecrash.datasets.preparation import prepare_dataset
from gatecrash.host.loading import load_plugins
from gatecrash.records.store import Store
from gatecrash.running.run import run
from support.grids import SMALL_GRID
from support.small_runs import small

JUDGE = """
    import gatecrash
    from pydantic import Field

    class Judge(gatecrash.Defense):
        name, summary = "judge", "says what it is told to say"
        needs, gives = frozenset({gatecrash.Need.MODEL}), frozenset({gatecrash.Give.VERDICT})

        class Config(gatecrash.Config):
            guilty: bool = Field(True, description="the verdict")

        def defend(self, evidence):
            return gatecrash.Outcome(verdict=gatecrash.Verdict(self.config.guilty, targets=(0,) if self.config.guilty else ()))

    @gatecrash.hookimpl
    def register_defenses(register):
        register(Judge)
"""
STRIP = {"strip": {"overlays": 3}}
REPAIR: dict[str, Any] = {"fine-pruning": {"epochs": 1}}


def after(guilty: bool) -> dict[str, Any]:
    return {"chain": [{"judge": {"guilty": guilty}}, {**REPAIR, "when": "accused"}]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chains") / "store"


@pytest.fixture(scope="module")
def summary(store: Path) -> Summary:
    plugin = store.parent / "judge.py"
    plugin.write_text(textwrap.dedent(JUDGE), encoding="utf-8")
    chains = [{"chain": [STRIP, REPAIR]}, after(guilty=True), after(guilty=False)]
    grid = small(defenses=["none", STRIP, REPAIR, *chains])
    summary = run(grid, store, plugins=[plugin], options=RunOptions(keep_models=True))
    assert (summary.exit_code, summary.failures) == (0, [])
    return summary


def cell(summary: Summary, attack: str, defense: str, **options: Any) -> Result:
    (found,) = (
        result
        for result in summary.results.values()
        if (result.attack.name, result.defense_name) == (attack, defense) and options.items() <= result.defense[0].config.items()
    )
    return found


def test_a_detector_is_measured_by_its_scores_and_by_the_classifier_behind_it(summary: Summary) -> None:
    found, benign = (cell(summary, attack, "strip").measures for attack in ("badnets", "none"))
    assert found.scores is not None
    assert found.input_scores is not None
    assert found.input_scores.clean == found.scores.n_test == 60
    assert found.clean_reject_rate == found.input_fpr
    assert found.trigger_reject_rate == found.input_tpr
    assert found.input_scores.successful.images == round((found.asr_before or 0) * found.input_scores.triggered.images)
    assert (benign.input_tpr, benign.input_auroc) == (None, None)
    assert benign.input_fpr is not None
    assert cell(summary, "badnets", "strip").access == "input-time"


def test_a_later_repair_gets_the_classifier_and_the_detector_stands_before_what_it_made(summary: Summary, store: Path) -> None:
    loaded = {name: load_cell(store, cell(summary, "badnets", name).key) for name in ("strip", "fine-pruning", "strip + fine-pruning")}
    chained, repaired, alone = (loaded[name] for name in ("strip + fine-pruning", "fine-pruning", "strip"))
    assert isinstance(chained.classifier, Rejecting)
    assert isinstance(alone.classifier, Rejecting)
    assert chained.detector is not None
    assert repaired.classifier is not None
    images = images_of_the_test()
    with torch.no_grad():
        assert chained.classifier.classifier(images).equal(repaired.classifier(images))
        assert chained.detector.score(images).equal(alone.classifier.detector.score(images))


def test_a_kept_detector_decides_as_it_did(summary: Summary, store: Path) -> None:
    for name in ("strip", "strip + fine-pruning"):
        loaded = load_cell(store, cell(summary, "badnets", name).key)
        assert loaded.classifier is not None
        with torch.no_grad():
            rejected = loaded.classifier(images_of_the_test()).argmax(1) == loaded.classifier.num_classes
        assert float(rejected.double().mean()) == pytest.approx(loaded.result.measures.clean_reject_rate)


def test_a_conditional_stage_runs_where_the_model_is_accused(summary: Summary, store: Path) -> None:
    ran, repaired = (
        cell(summary, "badnets", name, **which) for name, which in (("judge + fine-pruning", {"guilty": True}), ("fine-pruning", {}))
    )
    assert (ran.skipped, ran.measures.scores) == ([], repaired.measures.scores)
    assert (ran.measures.verdict, ran.measures.verdict_targets, ran.measures.verdict_right) == (True, [0], True)
    assert [stage.when for stage in ran.defense] == [None, "accused"]


def test_elsewhere_it_is_skipped_and_the_result_says_so(summary: Summary, store: Path) -> None:
    skipped, undefended = cell(summary, "badnets", "judge + fine-pruning", guilty=False), cell(summary, "badnets", "none")
    assert (skipped.skipped, skipped.measures.scores) == ([1], undefended.measures.scores)
    assert (skipped.measures.verdict, skipped.measures.verdict_right) == (False, False)
    assert Store(store).result(skipped.key) == skipped
    assert '"skipped"' not in cell(summary, "badnets", "fine-pruning").to_text()


def images_of_the_test() -> torch.Tensor:
    dataset = load_plugins().get("dataset", "digits").configure(SMALL_GRID["dataset"]["digits"])
    return prepare_dataset(dataset).splits().test.images
