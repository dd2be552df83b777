"""Recipes are presets with changes, and their stored form does not change with new fields."""

from __future__ import annotations

import dataclasses

import pytest

from gatecrash import Recipe, UserError
from gatecrash.contracts.recipe import PRESETS, adaptive, recipe_from


def test_recipes_are_presets_with_changes() -> None:
    assert recipe_from("standard") == Recipe()
    assert recipe_from({"epochs": 3}) == Recipe(epochs=3)
    assert recipe_from({"preset": "fast", "epochs": 3}) == PRESETS["fast"].model_copy(update={"epochs": 3})
    with pytest.raises(UserError, match="unknown recipe 'fsat'; did you mean 'fast'"):
        recipe_from("fsat")
    with pytest.raises(UserError, match="unknown recipe 3"):
        recipe_from({"preset": 3})


@pytest.mark.parametrize(
    ("images", "batch_size", "epochs"),
    [
        (1, 32, 200),
        (200, 32, 200),  # 240 epochs would make 1,500 steps
        (500, 32, 96),
        (3_199, 32, 16),
        (3_200, 64, 30),
        (3_379, 64, 29),
        (6_400, 128, 30),
        (50_000, 128, 10),  # 4 epochs would make 1,500 steps
    ],
)
def test_the_adaptive_recipe_counts_steps(images: int, batch_size: int, epochs: int) -> None:
    recipe = adaptive(images)
    assert (recipe.batch_size, recipe.epochs) == (batch_size, epochs)
    assert recipe.lr == pytest.approx(0.1 * batch_size / 64)
    assert recipe_from("adaptive", images) == recipe
    assert recipe_from({"preset": "adaptive", "epochs": 3}, images) == recipe.model_copy(update={"epochs": 3})


def test_a_misspelt_adaptive_recipe_is_named() -> None:
    with pytest.raises(UserError, match="unknown recipe 'adaptiv'; did you mean 'adaptive'"):
        recipe_from("adaptiv")


def test_a_field_that_came_later_changes_no_recipe_that_leaves_it_alone() -> None:
    """Random streams are named after a recipe's fields, so that a new one would give other numbers under the same key."""
    first = "epochs batch_size optimizer lr momentum nesterov weight_decay decay_norms schedule warmup label_smoothing crop flip precision"
    assert list(PRESETS["standard"].model_dump()) == list(PRESETS["fast"].model_dump(mode="json")) == first.split()
    assert Recipe(bias_lr=64.0).model_dump() == {**Recipe().model_dump(), "bias_lr": 64.0}
    assert Recipe(rotation=0).model_dump() == Recipe().model_dump()
    assert Recipe(rotation=15).model_dump() == {**Recipe().model_dump(), "rotation": 15.0}
    assert Recipe(lookahead=True).model_dump(exclude_defaults=True) == {"lookahead": True}
    assert recipe_from({"preset": "airbench", "lookahead": False}).bias_lr == 64.0


def test_a_recipe_takes_from_another_the_augmentation_that_it_does_not_state() -> None:
    grid = Recipe(crop=2, flip=False, rotation=15, lr=1)
    assert Recipe(epochs=3).augmented_as(grid) == Recipe(epochs=3, crop=2, flip=False, rotation=15)
    assert Recipe(crop=4, flip=True, rotation=0).augmented_as(grid) == Recipe()


def test_the_standard_recipe_is_backdoorbenchs() -> None:
    standard = dataclasses.asdict(Settings())
    assert {name: getattr(PRESETS["standard"], name) for name in standard} == standard


@dataclasses.dataclass
class Settings:
    """Wu et al. 2022: the training settings of the published tables."""

    epochs: int = 100
    batch_size: int = 128
    optimizer: str = "sgd"
    lr: float = 0.01
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    label_smoothing: float = 0.0
    crop: int = 4
    flip: bool = True
