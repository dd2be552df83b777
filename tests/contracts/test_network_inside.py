"""A network's inside: one pass for all of it, modules inserted, norms exchanged. Shipped nets have tests/plugins/models besides."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gatecrash import Backbone, ContractError, ImageSet, Network, NotApplicable, Pair, Point, Portable
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from gatecrash.contracts.randomness import Streams
from gatecrash.contracts.recipe import Recipe
from gatecrash.engine.training import Method, train


class TwoPoints(Backbone):
    """A convolution, its norm, and a mean over pixels; points in front of the norm's ReLU and behind the mean."""

    stages = ("map",)

    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.channels, self.calls = channels, 0
        self.conv = nn.Conv2d(1, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.map = Point(channels)
        self.mean = Point(channels)
        self.head = nn.Linear(channels, 2)

    def config(self) -> dict[str, Any]:
        return {"channels": self.channels}

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        x = self.map(self.norm(self.conv(images)).relu())
        logits: Tensor = self.head(self.mean(x.mean((2, 3))))
        return logits


class Branching(TwoPoints):
    """Decides by what it computes, which cannot be traced."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images if float(images.sum()) > 0 else -images)


class Described(Branching):
    """The same, with its pairs written out."""

    def find_pairs(self) -> tuple[Pair, ...]:
        return (Pair("conv", "norm", "map"),)


class Mixing(Portable):
    """A 1x1 convolution that starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)
        nn.init.dirac_(self.conv.weight)

    def config(self) -> dict[str, Any]:
        return {"channels": self.channels}

    def forward(self, activation: Tensor) -> Tensor:
        mixed: Tensor = self.conv(activation)
        return mixed


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network(TwoPoints(), [0.4], [0.3]).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (4, 1, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_one_pass_gives_logits_activations_and_the_heads_input(network: Network, images: Tensor) -> None:
    logits, seen = network.run(images, ["head", "map"])
    assert (network.backbone.calls, list(seen)) == (1, ["head", "map"])
    assert torch.equal(logits, network(images))
    assert torch.equal(seen["map"], network.activations(images, ["map"])["map"])
    assert torch.equal(seen["head"], network.features(images))
    assert torch.equal(network.head(seen["head"]), logits)
    assert network.run(images)[1] == {}
    with pytest.raises(ContractError, match="no point 'norm'; this network has map, mean"):
        network.run(images, ["norm"])


def test_a_pair_is_a_convolution_with_its_norm_and_its_point(network: Network) -> None:
    assert network.pairs == (Pair("conv", "norm", "map"),)


def test_a_backbone_that_cannot_be_traced_says_so_and_may_name_its_pairs_itself() -> None:
    with pytest.raises(NotApplicable, match=r"the pairs of Branching cannot be traced \(.*\); its author can define find_pairs\(\)"):
        _ = Network(Branching(), [0.4], [0.3]).pairs
    assert Network(Described(), [0.4], [0.3]).pairs == (Pair("conv", "norm", "map"),)


@torch.no_grad()
def test_a_module_is_inserted_behind_the_mask(network: Network, images: Tensor) -> None:
    before = network(images)
    twice = Mixing(6)
    network.insert("map", twice)
    assert torch.equal(network(images), before)  # it starts as the identity
    twice.conv.weight.mul_(2)
    network.points["map"].set_mask(torch.tensor([0.0, 1, 1, 1, 1, 1]))
    plain = Network(network.backbone.__class__(), [0.4], [0.3]).eval()
    plain.load_state_dict({name: tensor for name, tensor in network.state_dict().items() if "inserted" not in name})
    logits, seen = network.run(images, ["map"])
    assert torch.equal(seen["map"], 2 * plain.activations(images, ["map"])["map"])  # what the next layer gets
    assert not torch.equal(logits, before)
    assert list(network.points) == ["map", "mean"]
    assert network.pairs == (Pair("conv", "norm", "map"),)


@torch.no_grad()
@pytest.mark.parametrize("again", ["stored", "duplicate", "deepcopy"])
def test_a_network_with_inserted_modules_stays_a_network_that_can_be_stored(network: Network, images: Tensor, again: str) -> None:
    for scale in (2.0, -3.0):
        network.insert("map", module := Mixing(6))
        module.conv.weight.mul_(scale)
    copies = {
        "stored": lambda: rebuild(json.loads(json.dumps(spec_of(network))), state_of(network)),
        "duplicate": network.duplicate,
        "deepcopy": lambda: copy.deepcopy(network),
    }
    other = copies[again]()
    assert isinstance(other, Network)
    assert torch.equal(other(images), network(images))
    other.points["map"].inserted[0].conv.weight.zero_()  # type: ignore[union-attr]
    assert not torch.equal(other(images), network(images))


def test_inserted_modules_are_trained_and_the_rest_may_stay(network: Network, images: Tensor) -> None:
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    network.insert("map", module := Mixing(6))
    head, start = network.head.weight.clone(), module.conv.weight.clone()
    data = ImageSet(images, torch.tensor([0, 1, 0, 1]), ("a", "b"))
    recipe = Recipe(epochs=1, crop=0, flip=False, lr=0.01)
    train(
        network,
        data.images,
        data.labels,
        recipe,
        streams=Streams("test"),
        flip=False,
        device="cpu",
        method=Method(loss=_squares, diverges=True),
    )
    assert torch.equal(network.head.weight, head)
    assert not torch.equal(module.conv.weight, start)


def test_what_cannot_be_inserted_is_refused(network: Network) -> None:
    with pytest.raises(ContractError, match=r"only a gatecrash.Portable can be inserted, since the network is stored; got Conv2d"):
        network.insert("map", nn.Conv2d(6, 6, 1))  # type: ignore[arg-type]
    with pytest.raises(ContractError, match="no point 'conv'"):
        network.insert("conv", Mixing(6))
    network.insert("map", module := Mixing(6))
    with pytest.raises(ContractError, match="this Mixing is part of the network already"):
        network.insert("mean", module)


def test_a_network_without_inserted_modules_is_described_as_ever(network: Network) -> None:
    assert set(spec_of(network)["config"]) == {"backbone", "mean", "std"}
    assert not [name for name in network.state_dict() if "inserted" in name]


def _squares(network: Network, images: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
    return (network(images) - labels[:, None]).square().mean()
