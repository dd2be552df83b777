"""Points, masks and normalisation, on a network small enough to follow by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gatecrash import Backbone, ContractError, Network, Point
from gatecrash.contracts.portable import rebuild, spec_of, state_of


class TwoChannels(Backbone):
    """Doubles and negates the only channel, sums over pixels; logits are the two sums and their total."""

    stages = ("point",)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1, bias=False)
        self.point = Point(2)
        self.head = nn.Linear(2, 3, bias=False)
        self.conv.weight.data = torch.tensor([2.0, -1.0]).view(2, 1, 1, 1)
        self.head.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.point(self.conv(images)).sum((2, 3)))
        return logits


@pytest.fixture
def network() -> Network:
    return Network(TwoChannels(), [0.2], [0.4]).eval()


@pytest.fixture
def image() -> Tensor:
    """Two pixels: 0.2 (the mean) and 1.0 (two deviations above)."""
    return torch.tensor([51, 255], dtype=torch.uint8).view(1, 1, 1, 2)


def close(found: Tensor, expected: Any) -> bool:
    return torch.allclose(found, torch.tensor(expected), atol=1e-6)


@torch.no_grad()
def test_pixels_are_normalised_by_mean_and_deviation(network: Network, image: Tensor) -> None:
    assert close(network.normalise(image).flatten(), [0.0, 2.0])
    assert close(network.normalise(image.float() / 255).flatten(), [0.0, 2.0])
    assert close(network(image), [[4.0, -2.0, 2.0]])
    assert network.num_classes == 3


@torch.no_grad()
def test_features_and_activations_are_read_in_one_pass(network: Network, image: Tensor) -> None:
    assert close(network.features(image), [[4.0, -2.0]])
    assert close(network.activations(image, ["point"])["point"], [[[[0.0, 4.0]], [[0.0, -2.0]]]])
    assert not network.points["point"]._forward_hooks
    with pytest.raises(ContractError, match="no point 'layer9'; this network has point"):
        network.activations(image, ["layer9"])


@torch.no_grad()
def test_a_mask_switches_a_channel_off_and_on(network: Network, image: Tensor) -> None:
    point = network.points["point"]
    point.set_mask(torch.tensor([0.0, 1.0]))
    assert close(network(image), [[0.0, -2.0, -2.0]])
    point.set_mask(torch.tensor([0.5, 1.0]))
    assert close(network(image), [[2.0, -2.0, 0.0]])
    point.set_mask(torch.ones(2))
    assert close(network(image), [[4.0, -2.0, 2.0]])
    with pytest.raises(ContractError, match=r"mask must have shape \[2\]; got \[3\]"):
        point.set_mask(torch.ones(3))


@torch.no_grad()
def test_a_mask_is_stored_with_the_network_and_comes_back(network: Network, image: Tensor) -> None:
    network.points["point"].set_mask(torch.tensor([0.0, 1.0]))
    back = rebuild(spec_of(network), state_of(network))
    assert close(back(image), [[0.0, -2.0, -2.0]])
    open_again = Network(TwoChannels(), [0.2], [0.4]).state_dict()
    back.load_state_dict(open_again)
    assert close(back(image), [[4.0, -2.0, 2.0]])


def test_activations_carry_gradients(network: Network, image: Tensor) -> None:
    pixels = (image.float() / 255).requires_grad_()
    network.activations(pixels, ["point"])["point"].sum().backward()
    assert pixels.grad is not None
    assert close(pixels.grad.flatten(), [2.5, 2.5])  # (2 - 1) / 0.4


def test_masks_work_on_vectors_too() -> None:
    point = Point(3)
    point.set_mask(torch.tensor([1.0, 0.0, 2.0]))
    assert point(torch.ones(2, 3)).tolist() == [[1, 0, 2], [1, 0, 2]]


def test_the_inside_is_named_by_the_backbone(network: Network) -> None:
    assert list(network.points) == ["point"]
    assert list(network.convolutions) == ["conv"]
    assert network.norms == {}
    assert network.stages == ("point",)
    assert network.head is network.backbone.head
