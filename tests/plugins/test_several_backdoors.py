"""Three triggers with three targets in one victim, all-to-all and one-to-one, through every shipped defense and onto the boards."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gatecrash import ImageSet
from gatecrash.boards.panel import arrange
from gatecrash.boards.tables.backdoors import backdoors_table
from gatecrash.evaluation.detection import verdict_scores
from gatecrash.host.loading import load_plugins
from gatecrash.records.result import Result
from gatecrash.records.summary import Summary
from gatecrash.running.run import run
from gatecrash.testing import make_context
from gatecrash_plugins.defenses._reverse_triggers import Reversed, anomaly_indices
from gatecrash_plugins.models.small_cnn import SmallCnn
from gatecrash_plugins.triggers.patch import PatchMaker
from support.boards import leaderboard_text, page_text
from support.cells import cell
from support.grids import SMALL_GRID
from support.small_runs import small

pytestmark = pytest.mark.slow

THREE: list[dict[str, Any]] = [
    {"trigger": {"patch": {"place": place}}, "target": target, "poison_rate": 0.08}
    for target, place in enumerate(("bottom-right", "top-left", "bottom-left"))
]
ATTACKS: list[Any] = [
    "none",
    {"dirty-label": {"backdoors": THREE}},
    {"badnets": {"goal": "all-to-all", "poison_rate": 0.1}},
    {"blend": {"goal": "one-to-one", "source": 3, "target": 4, "poison_rate": 0.03}},
]
SEARCH = {"searches": 1, "rounds": 2, "samples": 16}
QUICK: dict[str, dict[str, Any]] = {
    "abl": {"unlearn_epochs": 1},
    "anp": {"iterations": 4},
    "fine-pruning": {"epochs": 1},
    "ft": {"epochs": 1},
    "ft-sam": {"epochs": 1},
    "nad": {"teacher_epochs": 1, "epochs": 1},
    "neural-cleanse": {**SEARCH, "epochs": 1},
    "neural-cleanse-filter": SEARCH,
    "strip": {"overlays": 2},
}
DEFENSES: list[Any] = [{plugin.name: QUICK.get(plugin.name, {})} for plugin in load_plugins(installed=False).all("defense")]
NAMES = ["patch", "patch 2", "patch 3"]


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    grid = small(attacks=ATTACKS, defenses=DEFENSES, recipe={**SMALL_GRID["recipe"], "epochs": 1})
    return run(grid, tmp_path_factory.mktemp("several"))


def test_every_shipped_defense_takes_them(summary: Summary):
    assert {result.status for result in summary.results.values()} <= {"ok", "not-applicable"}, summary.failures
    # the small net has too few BatchNorms for it
    assert {result.defense_name for result in summary.results.values() if result.status == "not-applicable"} <= {"ibd-psc"}


def scored(summary: Summary) -> list[Result]:
    return [result for result in summary.results.values() if result.status == "ok"]


def test_every_backdoor_is_scored_under_every_defense(summary: Summary):
    several = [result for result in scored(summary) if result.attack.name == "dirty-label"]
    assert len(several) >= len(DEFENSES) - 1
    for result in several:
        rates = result.measures.asr_by_backdoor
        assert rates is not None
        assert list(rates) == NAMES
        values = [rate for rate in rates.values() if rate is not None]
        assert result.measures.asr == pytest.approx(sum(values) / 3)
        assert result.measures.asr_worst == max(values)
        assert result.measures.scores is not None
        assert [one.targets for one in result.measures.scores.backdoors] == [(0,), (1,), (2,)]


def test_all_to_all_wants_every_class_and_one_to_one_counts_its_source_alone(summary: Summary):
    for result in scored(summary):
        assert result.measures.scores is not None
        backdoors = result.measures.scores.backdoors
        if result.attack.name == "badnets":
            assert [(one.kind, one.targets) for one in backdoors] == [("all-to-all", tuple(range(10)))]
            assert backdoors[0].eligible == result.measures.scores.n_test
        if result.attack.name == "blend":
            assert [(one.kind, one.targets) for one in backdoors] == [("one-to-one", (4,))]
            assert backdoors[0].classes is not None
            assert [label for label, count in enumerate(backdoors[0].classes.eligible) if count] == [3]


def test_boards_show_each_their_mean_and_the_worst(summary: Summary):
    results = [result for result in summary.results.values() if result.defense_name in {"none", "fine-pruning", "strip"}]
    for text in (leaderboard_text(results), page_text(results)):
        assert text.count("## Several backdoors in one victim") == 1
    table = backdoors_table(arrange(results))
    assert [row[1].text for row in table.rows] == [*NAMES, "mean", "worst"]
    assert len({row[0].text for row in table.rows}) == 1
    one = [result for result in results if result.attack.name != "dirty-label"]
    assert "Several backdoors" not in leaderboard_text(one)


def test_with_many_defenses_each_backdoor_has_a_row_for_every_one():
    rates = {"left": 0.25, "right": 0.75}
    cells = [
        cell("dirty-label", defense, asr=0.5, measures={"asr_by_backdoor": rates, "asr_worst": 0.75})
        for defense in ("none", *(f"d{number}" for number in range(13)))
    ]
    table = backdoors_table(arrange(cells))
    assert table.columns == ("attack", "defense", "backdoor", "ASR")
    assert [tuple(field.text for field in row[2:]) for row in table.rows if row[1].text == "d7"] == [
        ("left", "25.0"),
        ("right", "75.0"),
        ("mean", "50.0"),
        ("worst", "75.0"),
    ]


def test_three_triggers_have_rows_of_their_own_and_leave_out_other_images():
    train = ImageSet(torch.zeros(60, 1, 16, 16, dtype=torch.uint8), torch.arange(60) % 3, ("a", "b", "c"))
    attack = (
        load_plugins(installed=False)
        .get("attack", "dirty-label")
        .configure({"backdoors": [{**one, "trigger": PatchMaker(PatchMaker.Config(**one["trigger"]["patch"]))} for one in THREE]})
    )
    found = attack.poison(train, make_context(attack, train, SmallCnn()))
    assert len(found.changed) == 15  # five rows each, and no row twice
    assert torch.bincount(found.labels[found.changed], minlength=3).tolist() == [5, 5, 5]
    eligible = [frozenset(torch.nonzero(one.goal.eligible(train.labels)).flatten().tolist()) for one in found.backdoors]
    assert len(set(eligible)) == 3
    assert [len(rows) for rows in eligible] == [40, 40, 40]


def test_neural_cleanse_may_name_all_three():
    norms = [5.0, 7.0, 6.0, 40.0, 42.0, 44.0, 41.0, 43.0, 45.0, 40.0]
    assert [label for label, index in enumerate(anomaly_indices(norms)) if index > 2] == [0, 1, 2]
    masks = torch.tensor(norms)[:, None, None] / 64 * torch.ones(10, 8, 8)
    verdict = Reversed(masks, torch.zeros(10, 1, 8, 8, dtype=torch.uint8), (1,) * 10, (1.0,) * 10, (0, 2, 1)).verdict()
    assert verdict.targets == (0, 2, 1)
    judged = verdict_scores(True, list(verdict.targets), [0, 1, 2], is_backdoored=True, names_classes=True)
    assert (judged.targets_equal, judged.targets_recall) == (True, 1.0)
