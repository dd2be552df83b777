"""What of a grid depends on its dataset: classes by name, the adaptive recipe, notes on targets that are rarer than the poison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gatecrash import DatasetInfo, UserError
from gatecrash.contracts.recipe import adaptive
from gatecrash.host.loading import load_plugins
from gatecrash.planning.grid import parse_grid
from gatecrash.planning.planned import PlannedGrid, plan_grid
from gatecrash_plugins.attacks.badnets import BadNets
from gatecrash_plugins.attacks.clean_label import CleanLabel
from support.grids import SMALL_GRID
from support.image_folders import write_classes

HOST = load_plugins(installed=False)
SIGNS = ("Stop", "Yield", "Turn right")
"""As image folders sort them: Stop 0, Turn right 1, Yield 2."""


def planned(root: Path, *options: dict[str, Any], **fields: Any) -> PlannedGrid:
    if not root.exists():
        write_classes(root, *SIGNS, count=20)
    dataset = {"imagefolder": {"root": str(root), "resize": 8}}
    attacks = [{"badnets": {"poison_rate": 0.1, **more}} for more in options]
    return plan_grid(parse_grid({**SMALL_GRID, "dataset": dataset, "attacks": attacks, **fields}), HOST)


def keys(planned: PlannedGrid) -> list[str]:
    return list(planned.plan.victims)


def test_a_class_by_name_is_the_class_of_that_number(tmp_path: Path) -> None:
    root = tmp_path / "signs"
    assert keys(planned(root, {"target": "Yield"})) == keys(planned(root, {"target": 2}))
    assert keys(planned(root, {"target": "Stop"})) == keys(planned(root, {}))
    sources = [{"goal": "one-to-one", "source": source, "target": target} for source, target in (("Turn right", "Yield"), (1, 2))]
    assert keys(planned(root, sources[0])) == keys(planned(root, sources[1]))
    several: list[dict[str, Any]] = [
        {"goal": "many-to-one", "sources": classes, "target": 2} for classes in (["Turn right", "Stop"], [0, 1], ["Stop", 1, 1])
    ]
    assert len({keys(planned(root, options))[1] for options in several}) == 1
    assert [victim.attack.config.get("target") for victim in planned(root, {"target": "Yield"}).plan.victims.values()] == [None, 2]


def test_names_sweep_as_numbers_do(tmp_path: Path) -> None:
    root = tmp_path / "signs"
    assert keys(planned(root, {"target": ["Yield", 1]})) == keys(planned(root, {"target": 2}, {"target": "Turn right"}))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"target": "Stpo"}, "badnets: target: no class is called 'Stpo'; did you mean 'Stop'?"),
        ({"target": "2"}, "badnets: target: no class is called '2'; write 2 without quotes for the class of that number"),
        ({"goal": "one-to-one", "source": 0, "target": "Stop"}, "badnets: source and target are the same class"),
        ({"target": False}, "target: a class is its number, from 0, or its name, in quotes where YAML would read something else"),
        ({"goal": "many-to-one", "sources": [1, "Stpo"], "target": 2}, "sources: no class is called 'Stpo'; did you mean 'Stop'?"),
        ({"goal": "many-to-one", "sources": [1, "Yield"], "target": 2}, "badnets: source and target are the same class"),
        ({"goal": "many-to-one", "sources": []}, "goal many-to-one needs sources, a list of classes"),
        ({"goal": "many-to-one", "sources": [False]}, "a class is its number, from 0"),
        ({"target": 1.0}, "target: a class is its number, from 0"),
    ],
)
def test_what_names_no_class_is_refused_in_one_line(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        planned(tmp_path / "signs", options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_number_that_is_the_name_of_another_class_is_noted(tmp_path: Path) -> None:
    """As text, 10 comes before 2: class number 2 is called 2 only by luck."""
    root = tmp_path / "numbers"
    write_classes(root, "1", "10", "2", count=20)
    assert not planned(root, {"target": 2}, {"target": "2"}, {"target": 0}).plan.notes
    (note,) = planned(root, {"target": 1}).plan.notes
    assert note == "badnets: target 1 is class number 1, which is called '10'; write '1' in quotes for the class of that name"
    assert keys(planned(root, {"target": "10"})) == keys(planned(root, {"target": 1}))


def test_a_target_rarer_than_the_poison_is_noted() -> None:
    """5% of 1,000 images are 50: more than the 40 of class 0, fewer than the 360 of class 1."""
    info = DatasetInfo("toy", ("rare", "b", "c"), (1, 8, 8), (40, 360, 600))
    (note,) = BadNets(BadNets.Config(target=0)).notes(info)
    assert "target class 'rare' (0) has about 40 images of its own and 50 poisoned ones" in note
    assert not BadNets(BadNets.Config(target=1)).notes(info)
    assert not BadNets(BadNets.Config(target=0, poison_rate=0.04)).notes(info)  # 40 and 40: no majority


def test_poison_that_leaves_and_enters_classes_is_counted_for_each_goal() -> None:
    info = DatasetInfo("toy", ("rare", "b", "c"), (1, 8, 8), (40, 360, 600))
    # All to all, 10%: 60 of class c enter class 0, of which 4 leave.
    (note,) = BadNets(BadNets.Config(goal="all-to-all", poison_rate=0.1)).notes(info)
    assert "target class 'rare' (0) has about 36 images of its own and 60 poisoned ones" in note
    # Clean label, 3%: 30 of the class's own 40 images are poisoned, 10 are left.
    (note,) = CleanLabel(CleanLabel.Config(poison_rate=0.03)).notes(info)
    assert "has about 10 images of its own and 30 poisoned ones" in note
    assert not CleanLabel(CleanLabel.Config(poison_rate=0.02)).notes(info)


def test_the_adaptive_recipe_is_that_of_the_images_left_after_the_hold_out(tmp_path: Path) -> None:
    # 3 classes of 20: 4 of each for the test, a quarter of 16 for the hold-out, 36 left to train on.
    plan = planned(tmp_path / "signs", {}, recipe={"preset": "adaptive", "label_smoothing": 0.2}).plan
    assert plan.recipe == {**adaptive(36).model_dump(mode="json"), "label_smoothing": 0.2}
    written_out = planned(tmp_path / "signs", {}, recipe=plan.recipe).plan
    assert list(written_out.victims) == list(plan.victims)


@pytest.fixture
def fussy(write: Any) -> Path:
    """A model that declares no size, and whose second convolution needs more pixels than a small image has."""
    text = """
        import gatecrash
        import torch
        from torch import nn

        class Net(gatecrash.Backbone):
            stages = ("point",)
            def __init__(self, num_classes, shape):
                super().__init__()
                self._config = {"num_classes": num_classes, "shape": list(shape)}
                self.wide = nn.Conv2d(shape[0], 4, 9)
                self.point = gatecrash.Point(4)
                self.head = nn.Linear(4, num_classes)
                self.head.weight.data.mul_(float(torch.ones(1).sum().item()))  # a weight that depends on a value
            def config(self):
                return self._config
            def forward(self, images):
                return self.head(self.point(self.wide(images)).mean((2, 3)))

        class Fussy(gatecrash.Model):
            name, summary = "fussy", "x"
            def build(self, num_classes, shape):
                return Net(num_classes, shape)

        @gatecrash.hookimpl
        def register_models(register):
            register(Fussy)
    """
    file: Path = write("fussy.py", text)
    return file


def test_a_model_that_cannot_take_the_image_size_is_found_when_planning(fussy: Path, tmp_path: Path) -> None:
    host = load_plugins([fussy], installed=False)
    root = tmp_path / "signs"
    write_classes(root, *SIGNS, count=20)

    def plan(side: int) -> PlannedGrid:
        return plan_grid(
            parse_grid({**SMALL_GRID, "dataset": {"imagefolder": {"root": str(root), "resize": side}}, "model": "fussy"}), host
        )

    assert plan(9).plan.victims
    with pytest.raises(
        UserError, match=r"model fussy cannot take images of 8x8 with 3 channels \(RuntimeError: .*\); choose another model"
    ):
        plan(8)


def test_a_vision_transformer_that_would_see_one_patch_is_refused() -> None:
    model = {"torchvision": {"arch": "vit_b_16"}}
    said = "vit_b_16 would see images of 16x16 as one patch of 16 pixels and learn nothing; resize the dataset to at least 32"
    with pytest.raises(UserError, match=said):
        plan_grid(parse_grid({**SMALL_GRID, "model": model}), HOST)
    HOST.get("model", "torchvision").configure({"arch": "vit_b_16"}).check((3, 32, 32))
