"""What clean images a defense is given: kinds, nested sizes, and keys."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from gatecrash import ImageSet, RunOptions
from gatecrash.datasets.clean_data import CleanData
from gatecrash.errors import NotApplicable
from gatecrash.running.run import run
from support.small_runs import small


def rows(first: int, counts: list[int]) -> ImageSet:
    """`counts[c]` images of each class c, whose only pixel is their number from `first` on."""
    labels = torch.repeat_interleave(torch.tensor(counts))
    return ImageSet((first + torch.arange(len(labels))).to(torch.uint8).view(-1, 1, 1, 1), labels, ("one", "two"))


TRAIN, RESERVE = rows(0, [50, 40]), rows(200, [6, 4])


def chosen(seed: int = 0, **fields: Any) -> set[int]:
    return set(CleanData(**fields).choose(TRAIN, RESERVE, "dots", seed).images.flatten().tolist())


def test_by_default_it_is_the_reserve_itself() -> None:
    assert CleanData().choose(TRAIN, RESERVE, "dots", 0) is RESERVE


def test_seen_images_are_of_the_training_set_and_as_many_as_the_reserve_has() -> None:
    seen = CleanData(kind="seen").choose(TRAIN, RESERVE, "dots", 0)
    assert seen.class_counts() == (6, 4)
    assert seen.images.max() < 200


@pytest.mark.parametrize("kind", ["reserved", "seen"])
def test_fewer_images_are_a_subset_of_more_and_another_seed_draws_others(kind: str) -> None:
    one, three = chosen(kind=kind, per_class=1), chosen(kind=kind, per_class=3)
    assert len(one) == 2
    assert one < three
    assert three != chosen(seed=1, kind=kind, per_class=3)


def test_more_than_a_class_has_does_not_apply() -> None:
    with pytest.raises(NotApplicable, match="5 clean images of each class are asked for; class 'two' has 4 in the hold-out"):
        chosen(per_class=5)
    with pytest.raises(NotApplicable, match="class 'two' has 40 in the training set"):
        chosen(kind="seen", per_class=41)


COUNTING = """
    import gatecrash

    class Counting(gatecrash.Defense):
        name, summary = "counting", "counts its clean images"
        needs, gives = frozenset({gatecrash.Need.CLEAN_DATA, gatecrash.Need.TRAINING_DATA}), frozenset()

        def defend(self, evidence):
            seen = evidence.training_data.images.flatten(1)
            shared = [bool((seen == one).all(1).any()) for one in evidence.clean.images.flatten(1)]
            counts = evidence.clean.class_counts()
            return gatecrash.Outcome(tables={"clean": [{"least": min(counts), "most": max(counts), "shared": sum(shared)}]})

    @gatecrash.hookimpl
    def register_defenses(register):
        register(Counting)
"""


def test_a_grid_measures_a_defense_under_several_kinds_and_trains_each_victim_once(tmp_path: Path) -> None:
    file, folder = tmp_path / "counting.py", tmp_path / "store"
    file.write_text(textwrap.dedent(COUNTING))
    kinds = ["reserved", "seen", {"kind": "seen", "per_class": 2}, {"per_class": 10_000}]
    plain = run(small(defenses=["none", "counting"]), folder, plugins=[file], options=RunOptions())
    summary = run(small(defenses=["none", "counting"], clean_data=kinds), folder, plugins=[file], options=RunOptions())
    assert summary.plan.victims.keys() == plain.plan.victims.keys()
    assert plain.plan.cells.keys() < summary.plan.cells.keys()
    found = {cell.title: summary.results[key] for key, cell in summary.plan.cells.items() if cell.victim.attack.name == "none"}
    assert {name: (result.status, result.measures.holdout_size) for name, result in found.items()} == {
        "none × none (seed 0)": ("ok", None),
        "none × counting (seed 0)": ("ok", 50),
        "none × counting (clean.kind=seen) (seed 0)": ("ok", 50),
        "none × counting (clean.kind=seen, clean.per_class=2) (seed 0)": ("ok", 20),
        "none × counting (clean.kind=reserved, clean.per_class=10000) (seed 0)": ("not-applicable", None),
    }
