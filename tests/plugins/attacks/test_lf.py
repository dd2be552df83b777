"""LF: the filter, DeepFool's step and the search by hand; the pattern is smooth, one for all, and aims at the class asked for."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gatecrash import AttackContext, Classifier, ContractError, ImageSet
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from gatecrash.testing import make_context
from gatecrash_plugins.attacks.lf import LF, Added, deepfool, low_pass
from gatecrash_plugins.models.small_cnn import SmallCnn


class Linear(Classifier):
    """Logits `weight . image + bias`; counts what it is shown."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias, self.num_classes = torch.nn.Parameter(weight), bias, len(bias)
        self.shown = 0

    def forward(self, images: Tensor) -> Tensor:
        self.shown += 1
        floats = images / 255 if images.dtype == torch.uint8 else images
        return floats.flatten(1) @ self.weight.T + self.bias


def images(shape: tuple[int, int, int] = (1, 16, 16)) -> ImageSet:
    coarse = torch.rand(80, shape[0], 4, 4, generator=torch.Generator().manual_seed(5))
    pixels = (F.interpolate(coarse, shape[1:], mode="bilinear") * 255).round().to(torch.uint8)
    return ImageSet(pixels, torch.arange(80) % 4, ("a", "b", "c", "d"))


def smooth_net(shape: tuple[int, int, int], classes: int = 4) -> Linear:
    """All images are of class 1, whose logit is constant; the others' weights are smooth and unrelated."""
    coarse = torch.randn(classes, shape[0], 4, 4, generator=torch.Generator().manual_seed(9))
    weight = F.interpolate(coarse, shape[1:], mode="bilinear")
    weight = weight - weight.mean((1, 2, 3), keepdim=True)
    weight[1] = 0
    return Linear(weight.flatten(1) / 16, torch.tensor([0.0, 9.0, *[0.0] * (classes - 2)]))


def scene(seed: int = 0, shape: tuple[int, int, int] = (1, 16, 16), **options: Any) -> tuple[LF, ImageSet, AttackContext]:
    attack, train = LF(LF.Config(**{"images": 12, "passes": 2, "iterations": 30, "poison_rate": 0.1, **options})), images(shape)
    return attack, train, make_context(attack, train, SmallCnn(), seed=seed, benign=smooth_net(shape))  # type: ignore[arg-type]


def pattern_of(ctx: AttackContext) -> Tensor:
    assert isinstance(ctx.prepared, Added)
    return ctx.prepared.pattern


def high_share(pattern: Tensor) -> float:
    """Share of the energy at half of Nyquist and above, by the DCT-II that the paper looks at images with; the mean is left out."""
    spectrum = pattern - pattern.mean((1, 2), keepdim=True)
    for dim in (1, 2):
        side = pattern.shape[dim]
        places = torch.arange(side)
        basis = torch.cos(math.pi / side * (places + 0.5) * places[:, None]) * math.sqrt(2 / side)
        basis[0] /= math.sqrt(2)
        spectrum = (spectrum.transpose(dim, 2) @ basis.T).transpose(dim, 2)
    height, width = pattern.shape[1:]
    high = (torch.arange(height)[:, None] >= height / 2) | (torch.arange(width) >= width / 2)
    return float(spectrum.square()[:, high].sum() / spectrum.square().sum())


def test_the_filter_spreads_a_point_into_the_authors_gaussian() -> None:
    point = torch.zeros(1, 32, 32)
    point[0, 16, 16] = 1
    made = low_pass(point, 6 / 32)
    assert made.sum().item() == pytest.approx(1, abs=0.01)  # 30 taps: nearly all of it lies inside
    line = made[0, 16] / made[0, 16].max()
    assert (line[16 + 6] / line[16]).item() == pytest.approx(math.exp(-0.5 * ((6.5**2 - 0.5**2) / 36)), abs=1e-5)  # an even number of taps
    assert made[0].allclose(made[0].T)


def test_the_filter_has_zeros_outside_the_image() -> None:
    made = low_pass(torch.ones(1, 32, 32), 6 / 32)
    assert made[0, 16, 16].item() == pytest.approx(1)
    assert made[0, 0, 0] < 0.35  # about a quarter of the filter lies inside


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 17, 23), (3, 32, 32), (3, 64, 40)])
def test_the_filter_keeps_any_shape(shape: tuple[int, int, int]) -> None:
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    assert low_pass(noise, 6 / 32).shape == shape
    assert high_share(noise) > 0.6
    assert high_share(low_pass(noise, 6 / 32)) < 0.02


def test_one_step_of_deepfool_lands_beyond_the_boundary_of_a_linear_net() -> None:
    network = Linear(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([0.0, -1.0]))
    image = torch.tensor([[[[0.6, 0.2]]]])  # logits 0.6 and -0.6
    step = deepfool(network, image, torch.tensor([1]), 0.02, 10)
    # 1.2 / |(-1, 2)|^2 of (-1, 2), and 2% more
    assert step is not None
    assert step.flatten().tolist() == pytest.approx([-0.24 * 1.02, 0.48 * 1.02])
    assert network.shown == 2
    assert network(image + step).argmax() == 1


def test_deepfool_goes_to_the_class_asked_for_not_to_the_nearest() -> None:
    weight = torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 1.0]])
    network = Linear(weight, torch.zeros(3))
    image = torch.tensor([[[[0.9, 0.1]]]])
    step = deepfool(network, image, torch.tensor([2]), 0.02, 50)
    assert step is not None
    assert network(image + step).argmax() == 2


def test_deepfool_leaves_out_what_is_the_target_and_what_it_cannot_move() -> None:
    network = Linear(torch.tensor([[1.0], [0.0]]), torch.zeros(2))
    assert deepfool(network, torch.ones(1, 1, 1, 1), torch.tensor([0]), 0.02, 10) is None
    assert deepfool(network, torch.ones(1, 1, 1, 1), torch.tensor([1]), 0.02, 1) is None
    flat = Linear(torch.zeros(2, 1), torch.tensor([1.0, 0.0]))
    assert deepfool(flat, torch.ones(1, 1, 1, 1), torch.tensor([1]), 0.02, 10) is None


class Exploding(Classifier):
    """Class 1 for every image, and class 0 once an image is no number: its slope grows with the image until it overflows."""

    num_classes = 2

    def forward(self, images: Tensor) -> Tensor:
        floats = (images / 255 if images.dtype == torch.uint8 else images).flatten(1)
        return torch.stack([-floats.square().sum(1) * 1e30, torch.ones(len(floats))], 1)


def test_a_step_that_overflows_is_none() -> None:
    assert deepfool(Exploding(), torch.full((1, 1, 4, 4), 0.5), torch.tensor([0]), 0.02, 50) is None


def test_steps_are_taken_on_logits_so_that_sure_answers_have_gradients() -> None:
    network = Linear(torch.tensor([[500.0], [-500.0]]), torch.zeros(2))  # softmax: 1 and 0, gradients of exactly 0
    step = deepfool(network, torch.ones(1, 1, 1, 1), torch.tensor([1]), 0.02, 10)
    assert step is not None
    assert step.item() == pytest.approx(-1.02)


def test_the_pattern_is_smooth_and_within_its_range() -> None:
    pattern = pattern_of(scene()[2])
    assert high_share(pattern) < 0.05
    assert pattern.min() == 0
    assert pattern.max().item() == pytest.approx(0.2)


def test_both_signs_have_as_large_a_range_around_zero() -> None:
    pattern = pattern_of(scene(signs="both", strength=0.3)[2])
    assert high_share(pattern) < 0.05
    assert pattern.min().item() == pytest.approx(-0.15)
    assert pattern.max().item() == pytest.approx(0.15)


def test_it_is_one_tensor_for_all_images_rounded_and_clipped() -> None:
    attack, train, ctx = scene(shape=(3, 17, 20))
    poisoned = attack.poison(train, ctx)
    poisoned.check(train)
    levels = 255 * pattern_of(ctx)
    assert levels.shape == (3, 17, 20)
    rows = poisoned.changed
    expected = (train.images[rows] + levels).clamp(0, 255)
    assert (poisoned.images[rows] - expected).abs().max() <= 0.501
    (backdoor,) = poisoned.backdoors
    assert backdoor.trigger is not None
    again = rebuild(spec_of(backdoor.trigger), state_of(backdoor.trigger))
    assert again(train.images).equal(backdoor.trigger(train.images))
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert Added((1, 16, 16))(every).equal(every)  # nothing to add: rounded, never truncated


@pytest.mark.parametrize("target", [0, 2, 3])
def test_the_target_is_the_one_asked_for(target: int) -> None:
    """The authors' search moves on to the class that most images went to."""
    network, pattern = smooth_net((1, 16, 16)), pattern_of(scene(target=target)[2])
    towards = torch.stack([low_pass(low_pass(weight.view(1, 16, 16), 6 / 32), 6 / 32).flatten() for weight in network.weight.detach()])
    alike = torch.corrcoef(torch.cat([pattern.view(1, -1), towards[[0, 2, 3]]]))[0, 1:]
    assert [0, 2, 3][int(alike.argmax())] == target


@pytest.mark.parametrize(("rates", "kept"), [([0.05, 0.15, 0.1], 1), ([0.3, 0.9, 0.9], 0), ([0.0, 0.0, 0.0], 2)])
def test_what_fooled_most_is_kept_and_the_search_ends_at_its_rate(rates: list[float], kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    attack, train, ctx = scene(images=2, passes=3)
    seen: list[Tensor] = []

    def fooled(_self: LF, trigger: Added, *_others: object) -> float:
        seen.append(trigger.pattern)
        return rates[len(seen) - 1]

    monkeypatch.setattr(LF, "_fooled", fooled)
    found = attack.prepare(train, ctx)
    assert len(seen) == (1 if rates[0] >= 0.2 else 3)
    assert found.pattern.equal(seen[kept])
    assert found.fooled == rates[kept]


def test_fooled_is_what_the_uint8_images_are_sent_to_the_target() -> None:
    attack, train, ctx = scene(images=16, strength=1.0, passes=1)
    brightness = torch.zeros(4, 256)
    brightness[0] = 1 / 16
    object.__setattr__(ctx, "benign", Linear(brightness, torch.tensor([0.0, 9.5, 0.0, 0.0])))
    found = attack.prepare(train, ctx)
    assert found.fooled > 0.5  # a pattern that brightens by a third
    assert ctx.benign is not None
    eligible = train.images[train.labels != 0]
    assert found.fooled == pytest.approx((ctx.benign(found(eligible)).argmax(1) == 0).float().mean().item(), abs=0.3)


def test_the_network_is_left_as_it_was_and_the_pattern_depends_on_the_seed() -> None:
    attack, train, ctx = scene()
    assert ctx.benign is not None
    before = state_of(ctx.benign)
    attack.prepare(train, ctx)
    assert all(tensor.equal(before[name]) for name, tensor in state_of(ctx.benign).items())
    assert all(parameter.grad is None for parameter in ctx.benign.parameters())
    assert pattern_of(scene()[2]).equal(pattern_of(ctx))
    assert not pattern_of(scene(seed=1)[2]).equal(pattern_of(ctx))


def test_it_needs_a_benign_victim_and_what_was_prepared() -> None:
    attack, train, ctx = scene()
    object.__setattr__(ctx, "prepared", None)
    with pytest.raises(ContractError, match="needs the pattern"):
        attack.poison(train, ctx)
    object.__setattr__(ctx, "benign", None)
    with pytest.raises(ContractError, match="needs the benign victim"):
        attack.prepare(train, ctx)
