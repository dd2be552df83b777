"""What a defender holds of an attack that controls training: the sample that it hands out, or nothing."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from gatecrash import Store, Summary
from gatecrash.boards.panel import arrange
from gatecrash.boards.standings import defense_standings
from gatecrash.running.run import run
from support.small_runs import small

ATTACK = """
    import gatecrash
    import torch
    from pydantic import Field

    class Own(gatecrash.Attack):
        name, summary, controls = "own-training", "triggers rows of each batch while it trains", "training"

        class Config(gatecrash.Config):
            sample: bool = Field(False, description="hand out a training set")

        def backdoor(self, ctx):
            mask = gatecrash.patch_mask(ctx.shape, 3, "top-left", 0)
            trigger = gatecrash.Stamp(ctx.shape, 1.0, torch.full(ctx.shape, 255, dtype=torch.uint8), mask)
            return gatecrash.Backdoor("own", gatecrash.Goal.all_to_one(ctx.num_classes, 0), trigger)

        def poison(self, train, ctx):
            return gatecrash.Poisoned.untouched(train, [self.backdoor(ctx)])

        def implant(self, train, ctx):
            poisoned, trigger = self.poison(train, ctx), self.backdoor(ctx).trigger

            def some(images, labels, rows):
                chosen = rows % 5 == 0
                changed = torch.where(chosen[:, None, None, None], trigger(images.clone()), images)
                return changed, torch.where(chosen, 0, labels)

            rows = torch.arange(0, len(train), 5)
            images = trigger(train.images[rows].clone())
            sample = gatecrash.Poisoned.replacing(train, rows, images, torch.zeros(len(rows), dtype=torch.int64), poisoned.backdoors)
            return gatecrash.Implant(poisoned, ctx.train(poisoned, on_batch=some), sample if self.config.sample else None)

    @gatecrash.hookimpl
    def register_attacks(register):
        register(Own)
"""
CLUSTERING = {"activation-clustering": {"retrain": False}}
RETRAINING = {"chain": ["fine-pruning", "activation-clustering"]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("own") / "store"


@pytest.fixture(scope="module")
def summary(store: Path) -> Summary:
    plugin = store.parent / "own.py"
    plugin.write_text(textwrap.dedent(ATTACK), encoding="utf-8")
    grid = small(attacks=["none", {"own-training": {"sample": [False, True]}}], defenses=["none", CLUSTERING, RETRAINING, "fine-pruning"])
    return run(grid, store, plugins=[plugin])


def test_without_a_sample_defenses_that_need_training_data_do_not_apply(summary: Summary) -> None:
    ended = {
        (result.attack.config.get("sample"), result.defense_name): (result.status, result.error) for result in summary.results.values()
    }
    no_data = ("not-applicable", "the attack controls training and hands out no training data")
    assert ended[False, "activation-clustering"] == ended[False, "fine-pruning + activation-clustering"] == no_data
    assert {status for (sample, name), (status, _) in ended.items() if (sample, "clustering" in name) != (False, True)} == {"ok"}
    assert (summary.exit_code, summary.failures) == (0, [])


def test_with_a_sample_the_defender_holds_it_and_is_scored_by_its_roles(summary: Summary, store: Path) -> None:
    (found,) = (
        result
        for result in summary.results.values()
        if result.attack.config.get("sample") and result.defense_name == "activation-clustering"
    )
    victim = Store(store).victim(found.victim_key)
    assert victim is not None
    scores = found.measures.detection_scores
    assert scores is not None
    assert scores.poison == len(victim.poison["rows"]) > 0
    assert found.measures.poison_share == pytest.approx(scores.poison / (scores.poison + scores.clean))
    assert victim.record.hands_out_data


def test_a_victim_says_whether_there_is_a_sample_only_where_there_is_none(summary: Summary, store: Path) -> None:
    for victim in summary.plan.victims.values():
        record = Store(store).victim_record(victim.key)
        assert record is not None
        withheld = victim.attack.config.get("sample") is False
        assert (record.hands_out_data, "hands_out_data" in record.to_text()) == (not withheld, withheld)


def test_what_does_not_apply_has_no_part_in_a_ranking(summary: Summary) -> None:
    """Nor in its mean: only victims that the defense was given data of count."""
    standings = defense_standings(arrange(summary.results.values()))
    cells = [cell for members in standings.values() for standing in members for cell in standing.cells]
    assert {cell.status for cell in cells} <= {"ok"}
