"""Refool: the blend by hand, labels that stay true, and reflections that are ranked without the test set."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from gatecrash import ImageSet, Role
from gatecrash.testing import make_context
from gatecrash_plugins.attacks.refool import Reflection, Refool, _blur, ghosted, window
from gatecrash_plugins.models.small_cnn import SmallCnn

SHAPE = (3, 16, 16)


def noise(count: int, shape: tuple[int, int, int] = SHAPE, seed: int = 1) -> Tensor:
    return torch.randint(0, 256, (count, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def reflection(alpha: tuple[float, float] = (0.55, 0.95), ghost_rate: float = 0.49, seed: int = 0, count: int = 5) -> Reflection:
    return Reflection(SHAPE, count, alpha, ghost_rate, seed, noise(count, seed=7))


def test_a_ghost_that_leaves_all_of_the_image_leaves_equal_bytes() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(2, 3, 1, 1)
    assert reflection((1.0, 1.0), ghost_rate=1.0)(images).equal(images)  # no level is lost to rounding


def test_light_is_added_in_linear_values() -> None:
    white = Reflection((1, 8, 8), 1, (0.5, 0.5), 1.0, 0, torch.full((1, 1, 8, 8), 255, dtype=torch.uint8))
    black = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    assert white(black).unique().tolist() == [186]  # 255 * 0.5 ** (1 / 2.2), not 128


def test_a_ghost_is_two_copies_apart_stretched_to_the_whole() -> None:
    light = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    light[0, 0, 4, 4] = 1
    shift, none = torch.tensor([4.0]), torch.tensor([0.0])
    copies = ghosted(light, shift, none, torch.full((1, 1, 1, 1), 0.3, dtype=torch.float64))[0, 0, :, 4]
    # 4 rows are left, of which 8 are made: the first copy (row 4) is their row 0; the other one (row 8) has left the image
    assert copies.tolist() == pytest.approx([0.3, 0.3 * 0.75, 0.3 * 0.25, 0, 0, 0, 0, 0])
    light[0, 0] = 0
    light[0, 0, 3, 4] = 1  # below the first copy's part; the other one shows it in the last row
    copies = ghosted(light, shift, none, torch.full((1, 1, 1, 1), 0.3, dtype=torch.float64))[0, 0, :, 4]
    assert copies.tolist() == pytest.approx([0, 0, 0, 0, 0, 0.7 * 0.25, 0.7 * 0.75, 0.7])


@pytest.mark.parametrize("length", [1, 4, 8, 32])
def test_a_blur_keeps_the_light_even_where_it_is_wider_than_the_image(length: int) -> None:
    made = _blur(torch.tensor([1.0, 3.3, 5.0], dtype=torch.float64), length)
    assert made.sum(2).allclose(torch.ones(3, length, dtype=torch.float64))
    assert length < 32 or made[0, 16, 14:19].tolist() == pytest.approx([0.0545, 0.2442, 0.4026, 0.2442, 0.0545], abs=1e-4)


def test_the_window_is_largest_in_the_middle() -> None:
    made = window(32, 32, torch.device("cpu"))
    assert float(made.max()) == 1.0
    assert float(made[0, 0]) < 0.02
    assert made.allclose(made.flip(0))
    assert made.allclose(made.T)
    assert window(16, 32, torch.device("cpu")).equal(made[8:24])


def test_each_image_draws_for_itself_and_the_same_again() -> None:
    images, made = noise(40), reflection()
    together = made(images)
    assert torch.cat([made(image[None]) for image in images]).equal(together)
    assert made(images.flip(0)).flip(0).equal(together)
    assert made.duplicate()(images).equal(together)
    assert set(made.drawn(images)[0].tolist()) == set(range(5))
    assert not reflection(seed=1)(images).equal(together)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 8, 8), (3, 20, 36)])
def test_any_size_works(shape: tuple[int, int, int]) -> None:
    made = Reflection(shape, 2, (0.55, 0.95), 0.5, 0, noise(2, shape))
    assert made(noise(8, shape)).shape == (8, *shape)


def letters(count: int = 200) -> ImageSet:
    labels = torch.arange(count) % 4
    return ImageSet(noise(count, (1, 8, 8)) // 4 + (labels * 40).to(torch.uint8)[:, None, None, None], labels, tuple("abcd"))


def poison(train: ImageSet, datasets: dict[str, ImageSet] | None = None, **options: Any) -> tuple[Any, Reflection]:
    attack = Refool(Refool.Config(poison_rate=0.1, **options))
    ctx = make_context(attack, train, SmallCnn(), datasets=datasets)
    assert isinstance(ctx.prepared, Reflection)
    made = attack.poison(train, ctx)
    made.check(train)
    return made, ctx.prepared


def test_poison_is_of_the_target_and_keeps_its_label() -> None:
    train = letters()
    made, chosen = poison(train, rounds=0, target=2, kept=7, candidates=20)
    rows = made.role == Role.POISON
    assert int(rows.sum()) == 20
    assert set(train.labels[rows].tolist()) == {2}
    assert made.labels.equal(train.labels)
    assert made.images[made.changed].equal(chosen(train.images[rows]))
    others = train.images[train.labels != 2].flatten(1)
    assert all((others == image).all(1).any() for image in chosen.reflections.flatten(1))  # images of other classes
    assert len(chosen.reflections) == 7


def test_a_named_data_set_gives_the_reflections() -> None:
    public = ImageSet(torch.full((6, 1, 8, 8), 9, dtype=torch.uint8), torch.zeros(6, dtype=torch.int64), ("sky",))
    _, chosen = poison(letters(), {"reflections": public}, reflections="public", rounds=0)
    assert set(chosen.reflections.flatten().tolist()) == {9}
    assert len(chosen.reflections) == 6  # as many as there are


def test_ranked_reflections_are_the_same_again_and_other_than_unranked_ones() -> None:
    train = letters(80)
    options: dict[str, Any] = {"kept": 3, "candidates": 30, "epochs": 1}
    one, again, unranked = (poison(train, rounds=rounds, **options)[1] for rounds in (1, 1, 0))
    assert one.reflections.equal(again.reflections)
    assert not one.reflections.equal(unranked.reflections)


def test_a_reflection_scores_the_judged_images_that_it_sends_to_the_target() -> None:
    train = letters(80)
    attack = Refool(Refool.Config(rounds=0, target=0))
    ctx = make_context(attack, train, SmallCnn())
    made = Reflection((1, 8, 8), 3, (0.55, 0.95), 0.5, 0, noise(3, (1, 8, 8)))
    judged = train.subset(train.labels != 0)

    def scores(answer: int) -> Tensor:
        """Of a surrogate that gives every image this class."""
        told: Any = lambda *_, **__: lambda x: torch.eye(4)[[answer] * len(x)]  # noqa: E731
        return attack._scores(made, train, judged, train.labels == 0, 0, replace(ctx, train=told))

    assert scores(0).equal(torch.bincount(made.drawn(judged.images)[0], minlength=3).float())
    assert scores(1).tolist() == [0, 0, 0]  # not the median: one that fools nobody is worth nothing


@pytest.mark.parametrize("options", [{"alpha_min": 0.9, "alpha_max": 0.8}, {"kept": 9, "candidates": 8}])
def test_options_that_exclude_each_other_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Refool.Config(**options)


@pytest.mark.parametrize(("goal", "options"), [("all-to-one", {}), ("one-to-one", {"source": 1}), ("many-to-one", {"sources": [1, 3]})])
def test_labels_stay_true_with_every_goal_there_is(goal: str, options: dict[str, Any]) -> None:
    train = letters()
    made, _ = poison(train, rounds=0, target=2, goal=goal, **options)
    assert made.labels.equal(train.labels)
    assert set(train.labels[made.changed].tolist()) == {2}


def test_all_to_all_is_refused_since_no_true_label_can_teach_it() -> None:
    with pytest.raises(ValidationError, match="goal"):
        Refool.Config.model_validate({"goal": "all-to-all"})
