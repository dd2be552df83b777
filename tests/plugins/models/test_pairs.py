"""Which norm and point belong to a convolution, in every shipped model: what is claimed is what a forward pass does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from gatecrash import Network, Pair
from support.shipped_models import CASES, built_network

CHANNEL = 1


@pytest.fixture(params=[case for case in CASES if case not in {"small-cnn-8", "small-cnn-oblong", "small-cnn"}])
def case(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def network(case: str) -> Network:
    return built_network(case).duplicate()


@pytest.fixture
def images(case: str) -> Tensor:
    return torch.randint(0, 256, (2, *CASES[case][1]), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_what_a_convolution_gives_passes_through_its_norm_and_its_point(network: Network, images: Tensor) -> None:
    for pair in network.pairs:
        weight = network.convolutions[pair.convolution].weight
        for place in filter(None, (pair.norm, pair.point)):
            with switched_off(network, place):
                without, kept = network(images), weight.clone()
                weight[CHANNEL] = 7.0
                assert torch.equal(network(images), without), (pair, place)
                weight.copy_(kept)


@torch.no_grad()
def test_a_norm_whose_channel_is_zero_does_what_the_points_mask_does(network: Network, images: Tensor) -> None:
    """The activations between them map 0 to 0; a sum, or other channels, between them would make a difference."""
    for pair in network.pairs:
        if pair.norm is not None and pair.point is not None:
            with switched_off(network, pair.norm):
                by_norm = network(images)
            with switched_off(network, pair.point):
                assert torch.equal(network(images), by_norm), pair


def test_every_convolution_is_in_one_pair(network: Network) -> None:
    assert sorted(pair.convolution for pair in network.pairs) == sorted(network.convolutions)


def test_behind_the_first_activation_the_next_norm_is_a_convolutions_own_only_inside_a_branch() -> None:
    """The stem's output goes into a shortcut as well as into the first norm; the second convolution's output is summed before any norm."""
    pairs = built_network("preact-resnet18").pairs
    assert pairs[:3] == (
        Pair("conv1", None, "stem"),
        Pair("layer1.0.conv1", "layer1.0.bn2", "layer1.0.mid"),
        Pair("layer1.0.conv2", None, "layer1.0.branch"),
    )
    assert {pair for pair in pairs if pair.convolution.startswith("layer2.0")} == {
        Pair("layer2.0.shortcut.0", None, None),
        Pair("layer2.0.conv1", "layer2.0.bn2", "layer2.0.mid"),
        Pair("layer2.0.conv2", None, "layer2.0.branch"),
    }


def test_a_projecting_shortcut_has_a_norm_and_no_point() -> None:
    pairs = {pair.convolution: pair for pair in built_network("resnet18").pairs}
    assert pairs["conv1"] == Pair("conv1", "bn1", "stem")
    assert pairs["layer2.0.conv2"] == Pair("layer2.0.conv2", "layer2.0.bn2", "layer2.0.branch")
    assert pairs["layer2.0.shortcut.0"] == Pair("layer2.0.shortcut.0", "layer2.0.shortcut.1", None)


def test_airbenchs_first_layer_has_no_norm_and_pooling_lies_between_the_others_and_theirs() -> None:
    pairs = built_network("airbench").pairs
    assert pairs[:2] == (Pair("stem", None, "point"), Pair("groups.0.conv", "groups.0.norm", "groups.0.point"))


def test_torchvisions_points_behind_modules_are_seen() -> None:
    pairs = {pair.convolution: pair for pair in built_network("torchvision-resnet18").pairs}
    assert pairs["net.conv1"] == Pair("net.conv1", "net.bn1", "points.maxpool")
    assert pairs["net.layer1.0.conv1"] == Pair("net.layer1.0.conv1", "net.layer1.0.bn1", None)


@contextmanager
def switched_off(network: Network, place: str) -> Iterator[None]:
    """Channel `CHANNEL` of a point, or of a norm's weight and bias, is 0."""
    norm, point = network.norms.get(place), network.points.get(place)
    if point is not None:
        point.set_mask(torch.arange(point.channels).ne(CHANNEL).float())
        yield
        point.set_mask(torch.ones(point.channels))
    if norm is not None:
        kept = norm.weight.clone(), norm.bias.clone()
        norm.weight[CHANNEL] = norm.bias[CHANNEL] = 0
        yield
        norm.weight.copy_(kept[0])
        norm.bias.copy_(kept[1])
