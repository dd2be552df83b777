"""Fresh networks of a grid's model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gatecrash import Backbone, ContractError, Model
from gatecrash.engine.networks import network_factory
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
