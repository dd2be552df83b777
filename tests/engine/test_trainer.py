"""Calls of `train` and `new_model` by one attack or defense: what each draws, and what a recipe leaves to the grid."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gatecrash import AttackContext, ContractError, ImageSet, Model, Network, Recipe, TrainState
from gatecrash.testing import make_context, make_evidence
from support.small_training import TinyBackbone, recipe, toy_set, weights
from support.sound_plugins import Dot, Tuning

CLASSES = ("a", "b", "c", "d")


class Tiny(Model):
    """The tiny net, freshly initialised."""

    name = "tiny"
    summary = "one convolution"

    def build(self, num_classes: int, shape: tuple[int, int, int]) -> Any:
        return TinyBackbone(num_classes)


def data() -> ImageSet:
    return ImageSet(*toy_set(), CLASSES)


def context(**changes: Any) -> AttackContext:
    return make_context(Dot(), data(), Tiny(), recipe=recipe(**{"epochs": 1, "crop": 1, **changes}), flip=True)


def seen(ctx: AttackContext, **more: Any) -> Tensor:
    """All images that one training passes to its loss, in order."""
    batches = []

    def loss(network: Network, images: Tensor, labels: Tensor, _rows: Tensor) -> Tensor:
        batches.append(images.clone())
        return nn.functional.cross_entropy(network(images), labels)

    ctx.train(data(), loss=loss, diverges=True, **more)
    return torch.cat(batches)


def test_a_second_training_is_no_replay_of_the_first() -> None:
    ctx = context()
    first, second = seen(ctx), seen(ctx)
    assert not torch.equal(first, second)
    again = context()
    assert torch.equal(seen(again), first)
    assert torch.equal(seen(again), second)


def test_a_name_stands_for_one_set_of_streams_and_moves_no_number() -> None:
    ctx = context()
    teacher, first = seen(ctx, name="teacher"), seen(ctx)
    assert torch.equal(first, seen(context()))
    assert torch.equal(teacher, seen(ctx, name="teacher"))
    assert not any(torch.equal(teacher, other) for other in (first, seen(ctx, name="student"), seen(ctx, name="1")))


def test_two_networks_begin_from_different_weights_and_equal_names_from_equal_ones() -> None:
    ctx, again = context(), context()
    first, second, named = ctx.new_model(), ctx.new_model(), ctx.new_model("teacher")
    assert not torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(named), weights(first))
    assert torch.equal(weights(named), weights(again.new_model("teacher")))
    assert torch.equal(weights(first), weights(again.new_model()))


def test_a_network_that_train_makes_counts_as_a_call_of_new_model() -> None:
    ctx, given = context(lr=1e-9), context(lr=1e-9)
    made = ctx.train(data(), diverges=True)
    fresh = [given.new_model(), given.new_model()]
    torch.testing.assert_close(made.head.weight, fresh[0].head.weight)
    assert torch.equal(weights(ctx.new_model()), weights(fresh[1]))


def test_the_first_training_is_that_of_a_plugin_with_one() -> None:
    """Its numbers are promises: no number or name enters its streams."""
    by_train, by_hand = context(), context()
    assert torch.equal(weights(by_train.train(data())), weights(by_hand.train(data(), network=by_hand.new_model())))


class TestAugmentation:
    @pytest.mark.parametrize(
        ("own", "grid", "changed"),
        [
            ({}, {"crop": 0, "flip": False}, False),
            ({}, {"crop": 0, "flip": True}, True),
            ({}, {"crop": 0, "flip": False, "rotation": 30}, True),
            ({"rotation": 0, "flip": False}, {"crop": 0, "flip": True, "rotation": 30}, False),
            ({"crop": 2}, {"crop": 0, "flip": False}, True),
        ],
    )
    def test_a_recipe_that_does_not_state_it_has_the_grids(self, own: dict[str, Any], grid: dict[str, Any], changed: bool) -> None:
        tuning = Recipe.model_validate({"epochs": 1, "batch_size": 64, "precision": "float32", **own})
        images = seen(context(**grid), recipe=tuning)
        as_they_are = {image.numpy().tobytes() for image in data().images}
        assert ({image.numpy().tobytes() for image in images} != as_they_are) == changed

    def test_a_defense_reads_it_without_the_right_to_retrain(self) -> None:
        defense = Tuning()
        network = context().new_model()
        made = make_evidence(defense, network, data(), recipe=Recipe(crop=2, flip=True, rotation=5), flip=False)
        assert (made.augmentation.crop, made.augmentation.flip, made.augmentation.rotation) == (2, False, 5)


class TestStates:
    def test_later_parts_need_neither_network_nor_name_and_move_no_number(self) -> None:
        ctx, whole = context(), context()
        state = TrainState()
        options = recipe(epochs=4, crop=1)
        first = ctx.train(data(), recipe=options, name="victim", part=(0, 0.5), resume=state)
        other = ctx.train(data(), recipe=options)
        second = ctx.train(data(), recipe=options, part=(0.5, 1), resume=state)
        assert first is second is state.network
        assert other is not first
        assert torch.equal(weights(second), weights(whole.train(data(), recipe=options, name="victim")))

    def test_what_does_not_belong_to_a_state_is_named(self) -> None:
        ctx, state = context(), TrainState()
        options = recipe(epochs=4, crop=1)
        ctx.train(data(), recipe=options, name="victim", part=(0, 0.5), resume=state)
        for wrong, message in (
            ({"part": (0.75, 1)}, "begins at epoch 3, but what resume= holds stopped at epoch 2"),
            ({"part": (0.5, 1), "name": "other"}, "holds the training 'victim', not 'other'"),
            ({"part": (0.5, 1), "network": ctx.new_model()}, "another network"),
            ({"part": (0.5, 1), "recipe": recipe(epochs=4, lr=0.2)}, "another recipe"),
            ({"part": (0.5, 0.5)}, "is no share of a training"),
            ({"part": (0, 2)}, "is no share of a training"),
        ):
            arguments: dict[str, Any] = {"recipe": options, "resume": state, **wrong}
            with pytest.raises(ContractError, match=message):
                ctx.train(data(), **arguments)
