"""Narcissus: the noise of a linear net by hand, what the attacker may know, bounds, true labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gatecrash import AttackContext, Backbone, ContractError, DatasetInfo, ImageSet, Network, Point, Recipe, Role, UserError
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from gatecrash.testing import make_context
from gatecrash_plugins.attacks._noise import Noise
from gatecrash_plugins.attacks.narcissus import Narcissus, log_cross_entropy, made_pictures, widen
from gatecrash_plugins.models.small_cnn import SmallCnn

QUICK: dict[str, Any] = {"surrogate_epochs": 1, "warmup_epochs": 1, "rounds": 3, "poison_rate": 0.1}


class Linear(Backbone):
    """The head alone, on the flattened image."""

    def __init__(self, num_classes: int, shape: list[int]) -> None:
        super().__init__()
        self._config = {"num_classes": num_classes, "shape": shape}
        self.last = Point(shape[0])
        self.head = nn.Linear(shape[0] * shape[1] * shape[2], num_classes)

    def config(self) -> dict[str, Any]:
        return self._config

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.last(images).flatten(1))
        return logits


def linear(weights: list[list[float]]) -> Network:
    """A network for images of 1x1xn pixels with these weights per class."""
    network = Network(Linear(len(weights), [1, 1, len(weights[0])]), [0.5], [0.5])
    with torch.no_grad():
        network.head.weight.copy_(torch.tensor(weights))
        network.head.bias.zero_()
    return network


def images(count: int = 80, channels: int = 1, seed: int = 7) -> ImageSet:
    pixels = torch.randint(256, (count, channels, 8, 8), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(count) % 4, ("a", "b", "c", "d"))


def context(train: ImageSet, public: ImageSet | None = None, seed: int = 0, **options: Any) -> tuple[Narcissus, AttackContext]:
    attack = Narcissus(Narcissus.Config(**{**QUICK, "public": None if public is None else "elsewhere", **options}))
    datasets = None if public is None else {"public": public}
    recipe = Recipe(epochs=1, crop=0, flip=False)
    return attack, make_context(attack, train, SmallCnn(SmallCnn.Config(width=4)), seed=seed, datasets=datasets, recipe=recipe)


def noise_for(train: ImageSet, public: ImageSet, **options: Any) -> Tensor:
    """What `prepare` makes."""
    prepared = context(train, public, **options)[1].prepared
    assert isinstance(prepared, Noise)
    return prepared.noise


def noise_of(network: Network, own: Tensor, **options: Any) -> Tensor:
    """The noise towards class 0, in grey levels."""
    train = ImageSet(own, torch.zeros(len(own), dtype=torch.int64), ("target", "other"))
    attack = Narcissus(Narcissus.Config(**options))
    _, ctx = context(images(8), images(8))
    return 255 * attack.find_noise(network, train.images, 0, replace(ctx, shape=train.shape))


def grey(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.uint8).repeat(4, 1, 1, 1)


def test_the_noise_for_a_linear_net_is_epsilon_along_the_weights_sign() -> None:
    noise = noise_of(linear([[1.0, -2.0, 0.5], [0.5, 1.0, 0.5]]), grey(100, 100, 100), rounds=200)
    assert noise.flatten().tolist() == pytest.approx([16, -16, 0], abs=1e-4)


def test_the_noise_is_used_clamped_and_pixels_stay_within_their_range() -> None:
    """At a white pixel the way up is closed, so that no gradient moves the noise there."""
    noise = noise_of(linear([[1.0, 1.0], [0.0, 0.0]]), grey(255, 100), rounds=60, epsilon=4 / 255)
    assert noise.flatten()[1].item() == pytest.approx(4, abs=1e-4)
    assert noise.abs().max().item() <= 4.0001
    assert noise.flatten()[0].item() < 1


def test_one_step_by_hand() -> None:
    """RAdam's first steps are `lr` times the mean gradient: p (w_other - w_target) of a sure net, per pixel in [-1, 1]."""
    network = linear([[2.0, 0.0], [0.0, 0.0]])
    x = 2 * 100 / 255 - 1
    p = 1 - torch.sigmoid(torch.tensor(2 * x))
    moved = 0.01 * 2 * float(p)  # in [-1, 1], so half of it in [0, 1]
    assert noise_of(network, grey(100, 100), rounds=1)[0, 0].tolist() == pytest.approx([moved / 2 * 255, 0], abs=1e-4)


def test_a_surrogate_that_is_sure_of_its_class_still_moves_the_noise() -> None:
    """The published loop stands still there: its gradients are below RAdam's epsilon, and rounded."""
    for weight in (12.0, 200.0):
        network, own = linear([[weight, -weight], [-weight, weight]]), grey(200, 55)
        with torch.no_grad():
            assert float(F.cross_entropy(network(own), torch.zeros(4, dtype=torch.int64))) == 0
        assert noise_of(network, own, rounds=60)[0, 0].tolist()[0] > 1


def test_the_log_of_the_loss_is_that_of_cross_entropy() -> None:
    logits = torch.tensor([[20.0, -20.0, 3.0], [25.0, 0.0, 1.0], [0.0, 1.0, 2.0]], requires_grad=True)
    labels = torch.tensor([0, 0, 1])
    for rows in ([0, 1, 2], [0], [1], [2], [0, 1]):
        exact = logits.detach()[rows].double().requires_grad_()
        wanted, found = F.cross_entropy(exact, labels[rows]).log(), log_cross_entropy(logits[rows], labels[rows])
        assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
        (gradient,), (right,) = torch.autograd.grad(found, logits), torch.autograd.grad(wanted, exact)
        assert torch.allclose(gradient[rows].double(), right, rtol=1e-4, atol=1e-7)
    sure = torch.tensor([[500.0, 0.0, -9.0]], requires_grad=True)
    found = log_cross_entropy(sure, labels[:1])
    assert found.item() == pytest.approx(-500, rel=1e-3)
    assert torch.autograd.grad(found, sure)[0][0].tolist() == pytest.approx([-1, 1, 0], abs=1e-3)


def test_the_noise_leaves_the_surrogates_weights() -> None:
    network = linear([[1.0, -2.0], [0.5, 1.0]])
    before = state_of(network)
    noise_of(network, grey(100, 90), rounds=3)
    assert all(tensor.equal(before[name]) for name, tensor in state_of(network).items())


def test_the_attacker_knows_the_target_class_and_the_public_images_alone() -> None:
    train, public = images(), images(40, seed=8)
    others = replace(train, images=train.images.clone())
    others.images[train.labels != 2] = 255 - others.images[train.labels != 2]
    first, second = (noise_for(data, public, target=2) for data in (train, others))
    assert first.equal(second)
    changed = replace(train, images=train.images.clone())
    changed.images[train.labels == 2] = 255 - changed.images[train.labels == 2]
    assert not noise_for(changed, public, target=2).equal(first)
    assert not noise_for(train, images(40, seed=9), target=2).equal(first)


def test_the_surrogate_has_a_class_beside_the_public_ones_and_is_warmed_up_on_it() -> None:
    train, public = images(), images(40, seed=8)
    own = train.images[train.labels == 0]
    losses = []
    for epochs in (0, 3):
        attack, ctx = context(train, public, warmup_epochs=epochs, warmup_lr=0.01)
        network, label = attack.surrogate(own, ctx)
        assert (network.num_classes, label) == (5, 4)
        assert network(own).shape == (20, 5)
        with torch.no_grad():
            losses.append(float(F.cross_entropy(network.train()(own), torch.full((20,), label))))
    assert losses[1] < losses[0]


def test_a_widened_head_is_initialised_as_torch_does() -> None:
    network = linear([[1.0] * 16, [0.5] * 16])
    widen(network, 40, torch.Generator().manual_seed(0))
    assert (network.num_classes, network.head.out_features) == (40, 40)
    assert network.head.weight.shape == (40, 16)
    assert 0.24 < float(network.head.weight.detach().abs().max()) <= 0.25
    assert network.head.bias.abs().max() <= 0.25


@pytest.mark.parametrize(("goal", "options"), [("all-to-one", {}), ("one-to-one", {"source": 1}), ("many-to-one", {"sources": [1, 3]})])
def test_labels_stay_true_and_training_images_are_within_16_levels(goal: str, options: dict[str, Any]) -> None:
    train = images(channels=3)
    attack, ctx = context(train, images(40, 3, seed=8), target=2, goal=goal, **options)
    before = train.images.clone()
    poisoned = attack.poison(train, ctx)
    poisoned.check(train)
    rows = poisoned.changed
    assert len(rows) == 8
    assert (train.labels[rows] == 2).all()
    assert poisoned.labels.equal(train.labels)
    assert (poisoned.role[rows] == Role.POISON).all()
    assert (poisoned.images[rows].int() - before[rows].int()).abs().max() <= 16
    assert train.images.equal(before)


def test_bounds_hold_after_rounding_and_test_images_get_three_times_the_noise() -> None:
    train = images()
    attack, ctx = context(train, images(40, seed=8), noise_lr=1.0, rounds=40)
    middle = torch.full((1, 1, 8, 8), 128, dtype=torch.uint8)
    made = attack.triggers(train, ctx)
    small, large = made.train(middle).int() - 128, made.test(middle).int() - 128
    assert int(small.abs().max()) == 16
    assert int(large.abs().max()) == 48
    assert (large - 3 * small).abs().max() <= 2  # rounded once, not three times
    for trigger, bound in ((made.train, 16), (made.test, 48)):
        assert (trigger(train.images).int() - train.images.int()).abs().max() <= bound


def test_a_noise_is_rounded_and_clipped_and_never_wraps() -> None:
    trigger = Noise((1, 1, 4), torch.tensor([[[100.0, -100.0, 0.6, 0.4]]]) / 255)
    image = torch.tensor([[[[200, 50, 10, 10]]]], dtype=torch.uint8)
    assert trigger(image).flatten().tolist() == [255, 0, 11, 10]
    assert rebuild(spec_of(trigger), state_of(trigger))(image).equal(trigger(image))
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert Noise((1, 16, 16))(every).equal(every)


def test_what_victims_share_depends_on_the_seed_and_not_on_rate_or_amplification() -> None:
    assert not {"poison_rate", "amplification", "goal", "source", "sources"} & Narcissus.prepare_options
    assert {"public", "target", "surrogate_epochs", "rounds", "epsilon"} <= Narcissus.prepare_options
    train, public = images(), images(40, seed=8)
    one, same, other = (noise_for(train, public, seed=seed) for seed in (1, 1, 2))
    assert one.equal(same)
    assert not one.equal(other)


def test_without_public_images_the_surrogate_learns_gratings_and_the_reader_is_told() -> None:
    train = images(channels=3)
    info = DatasetInfo("toy", train.classes, train.shape, train.class_counts())
    assert "public" in Narcissus(Narcissus.Config(**QUICK)).notes(info)[-1]
    assert not Narcissus(Narcissus.Config(**QUICK, public="cifar100")).notes(info)
    _, ctx = context(train, images(40, 3, seed=8))
    pictures = made_pictures(ctx)
    assert pictures.shape == train.shape
    assert pictures.class_counts() == (100,) * 20
    upright = pictures.images[pictures.labels == 0].float().mean(1)  # one cycle across, at no angle
    assert float(upright.mean(1).std(1).mean()) > 3 * float(upright.mean(2).std(1).mean())


@pytest.mark.parametrize("public", ["toy", {"toy": {"limit": 100}}])
def test_the_attacked_data_set_is_not_public(public: Any) -> None:
    train = images()
    info = DatasetInfo("toy", train.classes, train.shape, train.class_counts())
    with pytest.raises(UserError, match="toy is the data set that is attacked; name another one"):
        Narcissus(Narcissus.Config(**QUICK, public=public)).check(info)


def test_a_target_without_images_is_refused() -> None:
    train = replace(images(), classes=("a", "b", "c", "d", "e"))
    with pytest.raises(UserError, match="no training image is of target class 4"):
        context(train, images(40, seed=8), target=4)


def test_the_noise_is_asked_for() -> None:
    attack, ctx = context(images(), images(40, seed=8))
    with pytest.raises(ContractError, match="needs the noise"):
        attack.poison(images(), replace(ctx, prepared=None))
