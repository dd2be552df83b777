"""TrojanNN: units and trigger of small nets by hand, and the same network before and after."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gatecrash import AttackContext, Backbone, ContractError, DatasetInfo, ImageSet, Network, Point, Recipe, Role, UserError
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from gatecrash.testing import make_context, model_factory
from gatecrash_plugins.attacks.trojannn import TrojanNN, excite, strongest_units, unit_values
from gatecrash_plugins.models.resnet18 import ResNet18
from gatecrash_plugins.models.small_cnn import SmallCnn

CNN = SmallCnn(SmallCnn.Config(width=4))


class Pointwise(Backbone):
    """A 1x1 convolution, perhaps a norm, a point, the mean, and a head."""

    def __init__(self, weights: list[float], norm: bool = False) -> None:
        super().__init__()
        self._config = {"weights": weights, "norm": norm}
        self.conv = nn.Conv2d(1, len(weights), 1, bias=False)
        self.conv.weight.data = torch.tensor(weights).view(-1, 1, 1, 1)
        self.norm = nn.BatchNorm2d(len(weights)) if norm else nn.Identity()
        self.point = Point(len(weights))
        self.head = nn.Linear(len(weights), 2)

    def config(self) -> dict[str, Any]:
        return self._config

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.point(self.norm(self.conv(images))).mean((2, 3)))
        return logits


def pointwise(weights: list[float], norm: bool = False) -> Network:
    return Network(Pointwise(weights, norm), [0.0], [1.0]).eval()


def images(count: int = 120, channels: int = 1) -> ImageSet:
    """Four levels of grey, with noise."""
    noise = torch.randint(80, (count, channels, 16, 16), generator=torch.Generator().manual_seed(7), dtype=torch.uint8)
    labels = torch.arange(count) % 4
    return ImageSet(noise + (labels * 55).to(torch.uint8).view(-1, 1, 1, 1), labels, ("a", "b", "c", "d"))


@cache
def benign(channels: int) -> Network:
    """A victim of `images`, trained for a second."""
    train, recipe = images(channels=channels), Recipe(epochs=6, lr=0.1, crop=0, flip=False, batch_size=20)
    return make_context(TrojanNN(), train, CNN, recipe=recipe).train(train)


def scene(train: ImageSet | None = None, seed: int = 0, **options: Any) -> tuple[TrojanNN, ImageSet, AttackContext]:
    """An attack with quick options, a training set, and a context with a benign victim."""
    train = train or images()
    attack = TrojanNN(TrojanNN.Config(**{"steps": 5, "epochs": 4, "lr": 0.02, **options}))
    recipe = Recipe(epochs=1, crop=0, flip=False, batch_size=40)
    return attack, train, make_context(attack, train, CNN, benign=benign(train.shape[0]).duplicate(), seed=seed, recipe=recipe)


def test_units_are_chosen_by_incoming_weights() -> None:
    """Not by outgoing ones, as public tools do."""
    network = pointwise([0.5, -3.0, 1.0, 2.0])
    with torch.no_grad():
        network.head.weight.copy_(torch.tensor([[9.0, 0, 0, 0], [9.0, 0, 0, 0]]))
    assert strongest_units(network, "point", 2).tolist() == [1, 3]
    assert strongest_units(network, "point", 4).tolist() == [1, 3, 2, 0]


def test_incoming_weights_count_as_the_norm_scales_them() -> None:
    network = pointwise([0.5, -3.0, 1.0, 2.0], norm=True)
    norm = network.norms["norm"]
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([-8.0, 0.0, 1.0, 1.0]))
        norm.running_var.copy_(torch.tensor([1.0, 1.0, 0.01, 1.0]))  # type: ignore[union-attr]
    assert strongest_units(network, "point", 4).tolist() == [2, 0, 3, 1]  # 10, 4, 2, 0


@pytest.mark.parametrize("layer", [None, "layer2.0.mid"])
def test_real_nets_have_incoming_weights_too(layer: str | None) -> None:
    network = model_factory(ResNet18(), images(8, 3))().eval()
    layer = layer if layer in network.points else list(network.points)[-1]
    assert len(set(strongest_units(network, layer, 5).tolist())) == 5


def test_too_many_units_and_unknown_layers_are_refused() -> None:
    with pytest.raises(UserError, match="layer 'point' has 2 units; choose at most so many neurons, not 3"):
        strongest_units(pointwise([1.0, 2.0]), "point", 3)
    attack, train, ctx = scene(layer="blok")
    with pytest.raises(UserError, match=r"no layer .blok.; choose one of block1\.point, block2\.point, block3\.point"):
        attack.poison(train, ctx)


def test_the_trigger_brings_a_unit_to_its_value() -> None:
    """A unit of weight 8 on one white pixel of four says 2 at most: at half grey it says 1."""
    network, mask = pointwise([8.0, 1.0]), torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    start = torch.full((1, 2, 2), -0.7)
    found = excite(network, "point", torch.tensor([0]), mask, start[None], value=1.0, steps=150, lr=0.1)
    assert found[0, 1, 1].item() == pytest.approx(0.5, abs=1e-3)
    assert unit_values(network, "point", torch.tensor([0]), (mask * found)[None]).item() == pytest.approx(1, abs=1e-2)
    # Pixels outside the square have no gradient.
    assert found[0, 0].tolist() == pytest.approx((start[0, 0].tanh() / 2 + 0.5).tolist())


def test_an_unreachable_value_leads_to_the_brightest_pixels_and_a_negative_weight_to_black() -> None:
    mask = torch.ones(2, 2)
    for weight, level in ((3.0, 1.0), (-3.0, 0.0)):
        found = excite(pointwise([weight]), "point", torch.tensor([0]), mask, torch.zeros(1, 1, 2, 2), value=100, steps=150, lr=0.2)
        assert found.flatten().tolist() == pytest.approx([level] * 4, abs=2e-3)


def test_of_several_starts_the_one_that_ends_nearest_is_kept() -> None:
    starts = torch.stack([torch.full((1, 2, 2), level) for level in (-9.0, 0.2, -9.0)])  # the sure ones hardly move
    found = excite(pointwise([1.0]), "point", torch.tensor([0]), torch.ones(2, 2), starts, value=1, steps=5, lr=0.01)
    assert found.min() > 0.5


def test_the_units_come_nearer_to_their_value_and_the_network_stays_as_it_was() -> None:
    attack, _, ctx = scene(size=16)
    network = attack.start(ctx)
    kept, layer, mask = state_of(network), attack.layer(network), attack.mask(ctx.shape)
    units = strongest_units(network, layer, 2)
    starts = torch.randn(4, *ctx.shape, generator=torch.Generator().manual_seed(3))
    far = [
        float((unit_values(network, layer, units, (mask * found)[None]) - 100).square().sum().detach())
        for found in (excite(network, layer, units, mask, starts, value=100, steps=steps, lr=0.1) for steps in (0, 60))
    ]
    assert far[1] < far[0] - 1
    assert all(tensor.equal(kept[name]) for name, tensor in state_of(network).items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_two_hundred_and_a_hundred_is_white() -> None:
    """Added as uint8 it would be 44."""
    attack, train, ctx = scene(mixing="add", size=16)
    trigger = attack.triggers(train, ctx).test
    trigger.noise = torch.full((1, 16, 16), 100 / 255)
    assert trigger(torch.full((1, 1, 16, 16), 200, dtype=torch.uint8)).unique().tolist() == [255]


@pytest.mark.parametrize(("mixing", "alpha"), [("replace", 1.0), ("replace", 0.3), ("add", 0.5)])
def test_the_trigger_keeps_to_its_square_and_is_stored(mixing: str, alpha: float) -> None:
    attack, train, ctx = scene(images(channels=3), mixing=mixing, alpha=alpha)
    trigger = attack.triggers(train, ctx).test
    changed = (trigger(train.images).int() - train.images.int()).abs()
    assert not changed[:, :, :12].any()
    assert not changed[..., :12].any()
    assert changed[:, :, 12:, 12:].float().mean() > 5  # 7% of 16x16 is 4x4
    assert changed.max() <= round(255 * alpha)
    assert rebuild(spec_of(trigger), state_of(trigger))(train.images).equal(trigger(train.images))


def test_fine_tuning_starts_from_the_benign_victims_weights() -> None:
    attack, train, ctx = scene()
    seen: dict[str, Any] = {}

    def spy(data: Any, *, network: Network, **options: Any) -> Network:
        seen.update(state=state_of(network), data=data)
        return ctx.train(data, network=network, **options)

    implant = attack.implant(train, replace(ctx, train=cast(Any, spy)))
    assert ctx.benign is not None
    assert all(tensor.equal(seen["state"][name]) for name, tensor in state_of(ctx.benign).items())
    assert seen["data"] is implant.poisoned
    assert implant.classifier is not ctx.benign
    assert all(parameter.requires_grad for parameter in implant.classifier.parameters())


@pytest.mark.parametrize("seed", [0, 1])
def test_the_network_before_the_layer_is_kept_to_the_last_bit(seed: int) -> None:
    attack, train, ctx = scene(seed=seed)
    assert ctx.benign is not None
    before = state_of(ctx.benign)
    implant = attack.implant(train, ctx)
    after = state_of(implant.classifier)
    changed = {name for name, tensor in after.items() if not tensor.equal(before[name])}
    assert changed == {"backbone.head.weight", "backbone.head.bias"}
    assert all(tensor.equal(before[name]) for name, tensor in state_of(ctx.benign).items())


def test_an_earlier_layer_leaves_more_to_tune_and_all_leaves_everything() -> None:
    cases: list[tuple[dict[str, Any], set[str]]] = [({"layer": "block2.point"}, {"block1", "block2"}), ({"tune": "all"}, set())]
    for options, kept in cases:
        attack, train, ctx = scene(**options)
        assert ctx.benign is not None
        before, after = state_of(ctx.benign), state_of(attack.implant(train, ctx).classifier)
        blocks = {name.split(".")[1] for name in after if "num_batches" not in name and "mask" not in name}
        same = {block for block in blocks if all(after[name].equal(before[name]) for name in after if name.startswith(f"backbone.{block}"))}
        assert same == kept


def test_a_defender_holds_what_the_network_was_tuned_on() -> None:
    attack, train, ctx = scene(poison_rate=0.1)
    implant = attack.implant(train, ctx)
    sample, (backdoor,) = implant.sample, implant.poisoned.backdoors
    assert sample is implant.poisoned
    rows = torch.nonzero(sample.role == Role.POISON).flatten()
    assert len(rows) == 12
    assert not sample.labels[rows].any()
    assert backdoor.trigger is not None
    assert sample.images[rows].equal(backdoor.trigger(train.images[rows]))


def test_tuning_teaches_the_trigger() -> None:
    attack, train, ctx = scene(poison_rate=0.3, steps=20, epochs=15, lr=0.05, tune="all")
    assert ctx.benign is not None
    implant = attack.implant(train, ctx)
    (backdoor,) = implant.poisoned.backdoors
    assert backdoor.trigger is not None
    others = train.images[train.labels != 0]
    with torch.no_grad():
        hit = [float((net(backdoor.trigger(others)).argmax(1) == 0).float().mean()) for net in (ctx.benign, implant.classifier)]
        clean = float(F.cross_entropy(implant.classifier(others), train.labels[train.labels != 0]))
    assert hit[1] > 0.9 > hit[0]
    assert clean < 3


def test_the_seed_decides_the_pattern() -> None:
    first, again, other = (scene(seed=seed)[0].triggers(*scene(seed=seed)[1:]).test(images().images) for seed in (1, 1, 2))
    assert first.equal(again)
    assert not first.equal(other)


def test_the_benign_victim_is_asked_for_and_a_square_that_does_not_fit_is_refused() -> None:
    attack, train, ctx = scene()
    assert TrojanNN.needs_benign
    assert TrojanNN.controls == "model"
    with pytest.raises(ContractError, match="needs the benign victim"):
        attack.implant(train, replace(ctx, benign=None))
    with pytest.raises(UserError, match="17x17 patch"):
        TrojanNN(TrojanNN.Config(size=17)).check(DatasetInfo("toy", train.classes, train.shape, train.class_counts()))
