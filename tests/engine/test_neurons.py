"""Neurons of a network: factors on a norm's weight and bias, by hand. ANP's tests compare them with norms that hold their own factors."""

from __future__ import annotations

import pytest
import torch

from gatecrash import Network, Neurons, NotApplicable
from support.planted_neurons import NoNeurons, OneNeuron
from support.shipped_models import built_network


@torch.no_grad()
def test_factors_scale_weight_and_bias_and_leave_the_network() -> None:
    """A pixel of 1 becomes w x + b = 2 + 1 (epsilon of the norm aside); with factors 1/2 on both, half of it."""
    network = Network(OneNeuron(), [0.0], [1.0]).eval()
    neurons, image = Neurons(network), torch.ones(1, 1, 1, 1)
    before = network(image)
    half = torch.tensor([0.5])
    torch.testing.assert_close(neurons(image, half, half), before / 2)
    torch.testing.assert_close(neurons(image, torch.zeros(1), torch.zeros(1)), before * 0)
    assert torch.equal(network(image), before)


@torch.no_grad()
def test_what_is_pruned_are_state_dict_entries_of_the_layers_concerned() -> None:
    network = built_network("small-cnn-gray-16").duplicate()
    neurons = Neurons(network)
    assert (neurons.count, [layer.name for layer in neurons.layers]) == (16 + 32 + 64, list(network.norms))
    chosen = torch.zeros(neurons.count, dtype=torch.bool)
    chosen[neurons.layers[1].start + 3] = True
    changes = neurons.pruned(chosen)
    assert list(changes) == ["backbone.block2.norm.weight"]
    images = torch.randint(0, 256, (2, 1, 16, 16), dtype=torch.uint8)
    expected = neurons(images, (~chosen).float())
    network.load_state_dict(changes, strict=False)
    assert torch.equal(network(images), expected)
    assert network.norms["block2.norm"].weight.eq(0).nonzero().flatten().tolist() == [3]


def test_statistics_of_the_batch_leave_the_networks_own_as_they_are() -> None:
    network = built_network("small-cnn-gray-16").duplicate()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    neurons, images = Neurons(network), torch.randint(0, 256, (4, 1, 16, 16), dtype=torch.uint8)
    ones = torch.ones(neurons.count)
    neurons.use_batch_statistics(True)
    by_batch = neurons(images, ones)
    neurons.use_batch_statistics(False)
    assert not torch.allclose(by_batch, network(images))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_network_without_neurons_is_refused() -> None:
    with pytest.raises(NotApplicable, match="neither a BatchNorm nor a convolution"):
        Neurons(Network(NoNeurons(), [0.0], [1.0]))
