"""Batches on the device, sized by memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gatecrash import ContractError
from gatecrash.engine import batching
from gatecrash.engine.batching import activation_bytes, batches, evaluation_batch_size


def test_one_tensor_gives_tensors_and_several_give_tuples() -> None:
    images, labels = torch.arange(10).view(5, 2), torch.arange(5)

    assert [batch.tolist() for batch in batches(labels, device="cpu", size=2)] == [[0, 1], [2, 3], [4]]
    pairs = list(batches(images, labels, device="cpu", size=3))
    assert [(x.tolist(), y.tolist()) for x, y in pairs] == [([[0, 1], [2, 3], [4, 5]], [0, 1, 2]), ([[6, 7], [8, 9]], [3, 4])]


def test_without_a_size_batches_have_one_that_suits_the_images() -> None:
    large = torch.zeros(40, 1, 64, 64, dtype=torch.uint8)
    assert [len(batch) for batch in batches(large, device="cpu")] == [16, 16, 8]
    assert [len(batch) for batch in batches(torch.zeros(1500), device="cpu")] == [1024, 476]


def test_an_empty_set_has_no_batches() -> None:
    assert list(batches(torch.zeros(0, 3, 8, 8), device="cpu")) == []


def test_batches_of_unequal_lengths_or_no_size_are_refused_at_once() -> None:
    with pytest.raises(ContractError, match=r"one length; got \[3, 2\]"):
        batches(torch.zeros(3), torch.zeros(2), device="cpu")
    with pytest.raises(ContractError, match="one length"):
        batches(device="cpu")
    with pytest.raises(ContractError, match="positive size; got 0"):
        batches(torch.zeros(3), device="cpu", size=0)


def test_evaluation_batches_on_a_cpu_depend_on_the_image_size_only() -> None:
    assert [evaluation_batch_size(nn.Identity(), (3, side, side), "cpu") for side in (8, 16, 32, 1024)] == [1024, 256, 64, 1]


def test_evaluation_batches_on_a_gpu_fit_a_quarter_of_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "activation_bytes", lambda *_: 1000)
    for free, size in ((4_000_000, 512), (4 * 1024 * 1000, 1024), (10**12, 4096), (100, 1)):
        monkeypatch.setattr(batching, "_free_memory", lambda device, free=free: free)
        assert evaluation_batch_size(nn.Identity(), (3, 32, 32), "cuda") == size


def test_activations_are_counted_once_per_layer_and_the_network_is_left_as_it_was() -> None:
    class ToFloat(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.float()

    network = nn.Sequential(ToFloat(), nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(32, 10)).train()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    # 16 + 32 + 32 + 32 + 10 floats for a 4x4 image.
    assert activation_bytes(network, (1, 4, 4), "cpu") == 122 * 4

    assert network.training
    assert network[2].training
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())
