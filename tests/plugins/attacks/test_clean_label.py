"""Clean-Label by hand: projected gradient ascent on linear nets, the published trigger, and true labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from gatecrash import AttackContext, Classifier, ContractError, DatasetInfo, ImageSet, Network, Role, UserError
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from gatecrash.engine.batching import batches
from gatecrash.testing import make_context, model_factory
from gatecrash_plugins.attacks.clean_label import CleanLabel, projected_gradient
from gatecrash_plugins.models.small_cnn import SmallCnn
from gatecrash_plugins.triggers.sinusoid import SinusoidMaker


class Linear(Classifier):
    """Two classes: the logit of class 0 is `weight . image + bias` (image in [0, 1]), that of class 1 is zero. Counts what it is shown."""

    num_classes = 2

    def __init__(self, weight: Tensor, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight)
        self.bias = bias
        self.shown: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.shown.append(len(images))
        floats = images / 255 if images.dtype == torch.uint8 else images
        logit = (floats * self.weight).flatten(1).sum(1) + self.bias
        return torch.stack([logit, torch.zeros_like(logit)], 1)


def ascend(network: Classifier, images: Tensor, starts: Sequence[Tensor] | None = None, **options: Any) -> Tensor:
    settings = {"epsilon": 0.1, "step": 0.02, "iterations": 10, "early_stop": False, **options}
    labels = torch.zeros(len(images), dtype=torch.int64)
    return projected_gradient(network, images, labels, starts or [torch.zeros(images.shape)], **settings)


def pixel(*values: int) -> Tensor:
    """One-pixel images."""
    return torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1)


THRESHOLD = partial(Linear, torch.full((1, 1, 1), 10.0), -5.0)
"""Class 0 above one half, else class 1: darker is worse."""


def test_the_optimum_for_a_linear_net_is_epsilon_against_the_weights_sign() -> None:
    network = Linear(torch.tensor([[[3.0, -0.1], [0.0, -7.0]]]))
    images = torch.full((1, 1, 2, 2), 100, dtype=torch.uint8)
    assert ascend(network, images).tolist() == [[[[75, 125], [100, 125]]]]  # 0.1 is 25.5: 25 whole levels


def test_perturbed_pixels_stay_within_0_and_255() -> None:
    network = Linear(torch.tensor([[[1.0, -1.0]]]))
    images = torch.tensor([[[[10, 250]]]], dtype=torch.uint8)
    assert ascend(network, images).tolist() == [[[[0, 255]]]]


@pytest.mark.parametrize(("step", "iterations", "expected"), [(0.1, 1, 174), (0.02, 3, 185), (0.05, 2, 174), (0.4, 1, 149)])
def test_step_and_iterations_decide_how_far_it_goes(step: float, iterations: int, expected: int) -> None:
    assert ascend(THRESHOLD(), pixel(200), epsilon=0.2, step=step, iterations=iterations).item() == expected


def test_images_that_are_misclassified_leave_the_batch_and_stay_as_they_are() -> None:
    network = THRESHOLD()
    # 140/255 = 0.549 is below one half after one step of 0.05; 250/255 stays above it even at the ball's border, 199.
    perturbed = ascend(network, pixel(140, 250), epsilon=0.2, step=0.05, iterations=5, early_stop=True)
    assert perturbed.flatten().tolist() == [127, 199]  # 140 - 12.75, 250 - 51
    assert network.shown == [2, 2, 1, 1, 1, 2]  # one pass per iteration, and one to score the result


def test_without_early_stop_misclassified_images_are_driven_further() -> None:
    network = THRESHOLD()
    assert ascend(network, pixel(140, 250), epsilon=0.2, step=0.05, iterations=5).flatten().tolist() == [89, 199]
    assert network.shown == [2] * 6


def test_a_batch_that_is_finished_costs_nothing_more() -> None:
    network = THRESHOLD()
    assert ascend(network, pixel(20, 30), iterations=100, early_stop=True).flatten().tolist() == [20, 30]
    assert network.shown == [2, 2]


def test_each_image_keeps_the_start_of_its_greatest_loss() -> None:
    up, down = torch.ones(2, 1, 1, 1), -torch.ones(2, 1, 1, 1)
    starts = [torch.stack([up[0], down[1]]), torch.stack([down[0], up[1]]), torch.zeros(2, 1, 1, 1)]
    perturbed = ascend(THRESHOLD(), pixel(200, 100), starts, step=1e-6, iterations=1)
    assert perturbed.flatten().tolist() == [175, 75]  # the darker start: the second for one, the first for the other


def test_a_start_of_no_use_leaves_the_image_inside_the_ball() -> None:
    assert ascend(Linear(torch.zeros(1, 1, 1)), pixel(200), [torch.full((1, 1, 1, 1), 0.4)]).item() == 210  # no gradient: 200 + 10.2


@pytest.mark.parametrize(("levels", "iterations"), [(8, 10), (16, 9)])
def test_without_a_random_start_it_is_plain_projected_gradient_ascent_to_the_pixel(levels: int, iterations: int) -> None:
    """Madry et al. 2018 restated, on a convolutional net."""
    train = images(40)
    network: Network = model_factory(SmallCnn(SmallCnn.Config(width=4)), train, seed=11)().eval()
    epsilon, step = levels / 255, 2 / 255
    original = train.images / 255
    moved = original
    for _ in range(iterations):
        moved = moved.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(network(moved), torch.zeros(40, dtype=torch.int64), reduction="sum"), moved)
        moved = moved + step * gradient.sign()
        moved = (original + (moved - original).clamp(-epsilon, epsilon)).clamp(0, 1)
    expected = (255 * moved.detach()).round().to(torch.uint8)
    assert ascend(network, train.images, epsilon=epsilon, step=step, iterations=iterations).equal(expected)
    assert int((expected.int() - train.images.int()).abs().max()) == levels


@given(seed=st.integers(0, 10_000), epsilon=st.floats(1 / 255, 1), iterations=st.integers(1, 4), early_stop=st.booleans())
def test_the_uint8_result_is_within_epsilon_after_rounding(seed: int, epsilon: float, iterations: int, early_stop: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (5, 1, 3, 3), generator=generator, dtype=torch.uint8)
    network = Linear(torch.randn(1, 3, 3, generator=generator))
    starts = [2 * torch.rand(images.shape, generator=generator) - 1 for _ in range(2)]
    perturbed = ascend(network, images, starts, epsilon=epsilon, step=epsilon / 2, iterations=iterations, early_stop=early_stop)
    assert perturbed.dtype == torch.uint8
    assert (perturbed.int() - images.int()).abs().max() <= epsilon * 255 + 1e-6


@pytest.mark.parametrize("levels", [1, 8, 16, 32, 255])
def test_bounds_of_whole_levels_are_used_in_full(levels: int) -> None:
    assert ascend(THRESHOLD(), pixel(255), epsilon=levels / 255, step=1.0, iterations=1).item() == 255 - levels


def test_the_network_is_left_as_it_was() -> None:
    train, ctx = scene()
    assert ctx.benign is not None
    before = state_of(ctx.benign)
    CleanLabel().poison(train, ctx)
    assert all(tensor.equal(before[name]) for name, tensor in state_of(ctx.benign).items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in ctx.benign.parameters())
    assert not ctx.benign.training


def images(count: int = 200) -> ImageSet:
    pixels = torch.randint(60, 190, (count, 1, 8, 8), generator=torch.Generator().manual_seed(7), dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(count) % 4, ("a", "b", "c", "d"))


def scene(attack: CleanLabel | None = None, seed: int = 0, train: ImageSet | None = None) -> tuple[ImageSet, AttackContext]:
    """A training set and a context with a benign network (untrained is good enough to follow gradients of)."""
    train = train or images()
    benign: Network = model_factory(SmallCnn(SmallCnn.Config(width=4)), train, seed=11)().eval()
    return train, make_context(attack or CleanLabel(), train, SmallCnn(), seed=seed, benign=benign)


def loss(ctx: AttackContext, images: Tensor) -> Tensor:
    assert ctx.benign is not None
    with torch.no_grad():
        return F.cross_entropy(ctx.benign(images), torch.zeros(len(images), dtype=torch.int64), reduction="none")


def test_target_class_images_are_changed_and_keep_their_labels() -> None:
    train, ctx = scene()
    before = train.images.clone()
    poisoned = CleanLabel(CleanLabel.Config(poison_rate=0.1, target=2)).poison(train, ctx)
    poisoned.check(train)
    rows = poisoned.changed
    assert len(rows) == 20  # of all 200
    assert (train.labels[rows] == 2).all()
    assert poisoned.labels.equal(train.labels)
    assert (poisoned.role[rows] == Role.POISON).all()
    assert train.images.equal(before)
    (backdoor,) = poisoned.backdoors
    assert backdoor.goal.eligible(train.labels).equal(train.labels != 2)  # scored on the other classes


def test_poisoned_images_are_perturbed_within_epsilon_under_the_trigger() -> None:
    train, ctx = scene()
    poisoned = CleanLabel(CleanLabel.Config(epsilon=0.1)).poison(train, ctx)
    rows = poisoned.changed
    (backdoor,) = poisoned.backdoors
    under = (backdoor.trigger.signs != 0).expand(len(rows), 1, 8, 8)
    assert poisoned.images[rows][under].equal(backdoor.trigger(train.images[rows])[under])  # full amplitude hides what it covers
    change = (poisoned.images[rows].int() - train.images[rows].int()).abs()[~under]
    assert 20 <= change.max() <= 25
    assert change.float().mean() > 10


def test_perturbation_raises_the_benign_loss_and_restarts_never_lower_it() -> None:
    train, ctx = scene()
    chosen = train.subset(train.labels == 0)
    losses = [loss(ctx, chosen.images)]
    for restarts in (1, 3):
        perturbed = CleanLabel(CleanLabel.Config(restarts=restarts)).perturb(chosen.images, chosen.labels, ctx)
        losses.append(loss(ctx, perturbed))
    assert (losses[1] > losses[0]).all()
    assert (losses[2] >= losses[1]).all()
    assert (losses[2] > losses[1]).any()


def test_one_gradient_step_leads_away_from_the_own_class() -> None:
    """x + eps sign(grad CE(x, y)), clamped to [0, 1]; the opposite sign would lower the loss."""
    train, ctx = scene()
    chosen = train.subset(train.labels == 0)
    made = CleanLabel(CleanLabel.Config(method="fgsm", epsilon=25 / 255)).perturb(chosen.images, chosen.labels, ctx)
    assert ctx.benign is not None
    floats = (chosen.images / 255).requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(ctx.benign(floats), chosen.labels, reduction="sum"), floats)
    assert made.equal((chosen.images.int() + 25 * gradient.sign().int()).clamp(0, 255).to(torch.uint8))
    assert (loss(ctx, made) > loss(ctx, chosen.images)).all()


def test_one_step_stays_in_the_range_of_pixels_and_follows_no_seed() -> None:
    """A clamp to [-1, 1] would let black pixels fall below 0."""
    network = Linear(torch.tensor([[[1.0, -1.0]]]))
    images = torch.tensor([[[[10, 250]]]], dtype=torch.uint8)
    assert ascend(network, images, step=0.1, iterations=1).tolist() == [[[[0, 255]]]]
    attack = CleanLabel(CleanLabel.Config(method="fgsm"))
    train, ctx = scene(attack)
    chosen = train.subset(train.labels == 0)
    assert attack.perturb(chosen.images, chosen.labels, ctx).equal(
        attack.perturb(chosen.images, chosen.labels, make_context(attack, train, SmallCnn(), seed=5, benign=ctx.benign))
    )


@pytest.mark.parametrize("option", [{"step": 0.1}, {"iterations": 3}, {"restarts": 2}, {"early_stop": True}])
def test_one_step_has_no_options_of_many(option: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=f"{next(iter(option))} is for method pgd only"):
        CleanLabel.Config(method="fgsm", **option)


def test_the_method_stays_out_of_the_keys_of_those_who_do_not_ask_for_it() -> None:
    assert "method" not in CleanLabel.Config().model_dump()
    assert CleanLabel.Config(method="fgsm").model_dump()["method"] == "fgsm"


def test_starts_do_not_depend_on_the_batch_size() -> None:
    train, ctx = scene()
    chosen = train.subset(train.labels == 0)
    # A step of next to nothing shows the starts themselves.
    attack = CleanLabel(CleanLabel.Config(step=1e-9, iterations=1, restarts=2))
    together = attack.perturb(chosen.images, chosen.labels, ctx)
    parted = attack.perturb(chosen.images, chosen.labels, replace(ctx, batches=partial(batches, device="cpu", size=7)))
    assert parted.equal(together)
    assert len(together.unique(dim=0)) == len(together)


def test_the_seed_decides_rows_and_starts() -> None:
    same = [CleanLabel().poison(*scene(seed=1)) for _ in range(2)]
    assert same[0].images.equal(same[1].images)
    assert not CleanLabel().poison(*scene(seed=2)).images.equal(same[0].images)


def test_a_rate_above_the_target_class_is_refused_with_the_largest_that_works() -> None:
    train, ctx = scene(train=images(150))  # 38, 38, 37, 37 of a class
    info = DatasetInfo("toy", train.classes, train.shape, train.class_counts())
    too_much = CleanLabel(CleanLabel.Config(poison_rate=0.4))
    for attempt in (lambda: too_much.check(info), lambda: too_much.poison(train, ctx)):
        with pytest.raises(UserError, match=r"clean-label: poison_rate 0\.4 asks for 60 images but only 38 of 150") as caught:
            attempt()
        largest = float(str(caught.value).rsplit(maxsplit=1)[1])
        attack = CleanLabel(CleanLabel.Config(poison_rate=largest))
        attack.check(info)
        poisoned = attack.poison(train, ctx)
        assert poisoned.changed.equal(torch.nonzero(train.labels == 0).flatten())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": 4}, "target class 4 does not exist"),
        ({"size": 5}, "5x5 patch at four-corners"),
        ({"poison_rate": 0.001}, "is none"),
    ],
)
def test_what_cannot_work_is_refused_when_planning(options: dict[str, Any], message: str) -> None:
    train = images()
    with pytest.raises(UserError, match=message):
        CleanLabel(CleanLabel.Config(**options)).check(DatasetInfo("toy", train.classes, train.shape, train.class_counts()))


@pytest.mark.parametrize(
    "options", [{"goal": "all-to-all"}, {"goal": "one-to-one", "source": 1}, {"source": 1}, {"epsilon": 0}, {"restarts": 0}]
)
def test_options_without_a_meaning_here_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CleanLabel.Config(**options)


def test_the_benign_victim_is_asked_for() -> None:
    train, ctx = scene()
    assert CleanLabel.needs_benign
    assert CleanLabel.clean_label
    with pytest.raises(ContractError, match="needs the benign victim"):
        CleanLabel().poison(train, replace(ctx, benign=None))


def test_the_published_trigger_by_hand() -> None:
    trigger = CleanLabel().trigger((1, 7, 7))
    w, o = 255, 100
    assert trigger(torch.full((1, 1, 7, 7), 100, dtype=torch.uint8)).tolist() == [
        [
            [
                [w, 0, 0, o, 0, 0, w],
                [0, w, 0, o, 0, w, 0],
                [w, 0, w, o, w, 0, w],
                [o, o, o, o, o, o, o],
                [w, 0, 0, o, 0, 0, w],
                [0, w, 0, o, 0, w, 0],
                [w, 0, w, o, w, 0, w],
            ]
        ]
    ]


def test_arts_pattern_changes_its_white_pixels_alone() -> None:
    trigger = CleanLabel(CleanLabel.Config(pattern="art", place="bottom-right")).trigger((1, 4, 4))
    assert trigger(torch.full((1, 1, 4, 4), 100, dtype=torch.uint8))[0, 0].tolist() == [
        [100, 100, 100, 100],
        [100, 100, 100, 255],
        [100, 100, 255, 100],
        [100, 255, 100, 255],
    ]


def test_a_reduced_amplitude_adds_and_subtracts_and_clips() -> None:
    trigger = CleanLabel(CleanLabel.Config(amplitude=32 / 255, place="bottom-right")).trigger((1, 3, 3))
    image = torch.tensor([[[[100, 20, 240], [100, 250, 100], [0, 32, 223]]]], dtype=torch.uint8)
    assert trigger(image).tolist() == [[[[68, 0, 255], [68, 255, 68], [32, 0, 255]]]]


def test_a_larger_trigger_is_the_published_one_enlarged() -> None:
    trigger = CleanLabel(CleanLabel.Config(size=6, place="bottom-right")).trigger((2, 6, 6))
    small = CleanLabel(CleanLabel.Config(place="bottom-right")).trigger((2, 3, 3))
    assert trigger.signs.equal(small.signs.repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_the_trigger_is_rebuilt_from_its_stored_form() -> None:
    trigger = CleanLabel(CleanLabel.Config(amplitude=0.3)).trigger((1, 8, 8))
    again = rebuild(spec_of(trigger), state_of(trigger))
    assert again(images().images).equal(trigger(images().images))
    assert not again(images().images).equal(images().images)


@pytest.mark.parametrize("option", [{"size": 5}, {"pattern": "art"}, {"place": "center"}, {"inset": 1}, {"amplitude": 0.5}])
def test_options_of_the_default_trigger_are_refused_beside_another(option: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=f"{next(iter(option))} is of the default trigger, contrast; give the trigger sinusoid"):
        CleanLabel.Config(trigger=SinusoidMaker(), **option)
    assert CleanLabel.Config(trigger=SinusoidMaker()).trigger is not None
