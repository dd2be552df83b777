"""Fresh networks of a grid's model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gatecrash import Backbone, ContractError, ImageSet, Model
from gatecrash.engine.networks import network_factory
from gatecrash_plugins.models.small_cnn import SmallCnn
from support.planted_networks import OneToOne, one_pixel_per_class


def test_a_model_that_still_calls_its_start_prepare_is_told_the_new_name() -> None:
    class OldBackbone(OneToOne):
        def prepare(self, images: Tensor) -> None:
            raise AssertionError

    class Old(Model):
        name, summary = "old", "written before the method was renamed"

        def build(self, num_classes: int, shape: tuple[int, int, int]) -> Backbone:
            return OldBackbone([[1.0]] * num_classes, [0.0] * num_classes, [1.0])

    with pytest.raises(ContractError, match=r"OldBackbone.prepare is never called: its name is start_from now; rename it"):
        network_factory(Old(), one_pixel_per_class((2, 2)), torch.device("cpu"))(0)


def test_a_network_with_group_norms_starts_from_the_same_convolutions() -> None:
    images = torch.randint(0, 256, (4, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = ImageSet(images, torch.arange(4) % 2, ("a", "b"))
    factory = network_factory(SmallCnn(), data, torch.device("cpu"))
    one, other = factory(3), factory(3, norm="group")
    assert one.norms
    assert not other.norms
    assert all(torch.equal(layer.weight, other.convolutions[name].weight) for name, layer in one.convolutions.items())
    assert (one.mean, one.std) == (other.mean, other.std)
