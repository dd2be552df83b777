"""GroupNorm in place of BatchNorm, in every shipped model."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from gatecrash import ContractError, Network, Norm, Portable
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from support.shipped_models import CASES, CLASSES


@pytest.fixture(params=[case for case in CASES if case not in {"small-cnn-8", "small-cnn-oblong", "small-cnn"}])
def case(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def images(case: str) -> Tensor:
    return torch.randint(0, 256, (4, *CASES[case][1]), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def fresh(case: str, norm: Norm = "batch") -> Network:
    model, shape = CASES[case]
    torch.manual_seed(0)
    return Network(model.build(CLASSES, shape), [0.5] * shape[0], [0.25] * shape[0], norm)


@torch.no_grad()
def test_in_training_no_image_depends_on_its_batch(case: str, images: Tensor) -> None:
    network = fresh(case, "group").double().train()  # groups of two values on a single pixel blow up float32's errors
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    assert network.norms == {}
    together, alone = network(images), torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-6 * float(alone.abs().max()))


@torch.no_grad()
def test_it_is_stored_and_rebuilt_with_its_norms(case: str, images: Tensor) -> None:
    network = fresh(case, "group").eval()
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    rebuilt = rebuild(json.loads(json.dumps(spec_of(network))), state_of(network))
    assert torch.equal(rebuilt(images), network(images))
    assert {"norm": "group"}.items() <= spec_of(network)["config"].items()


def test_convolutions_start_as_with_batch_norm(case: str) -> None:
    one, other = fresh(case), fresh(case, "group")
    assert one.convolutions.keys() == other.convolutions.keys()
    assert all(torch.equal(layer.weight, other.convolutions[name].weight) for name, layer in one.convolutions.items())


def test_groups_divide_the_channels_and_a_fixed_scale_stays_fixed() -> None:
    network = fresh("airbench-narrow-gray", "group")  # channels 4, 9 and 16
    norms = [module for module in network.modules() if isinstance(module, nn.GroupNorm)]
    assert [(norm.num_channels, norm.num_groups) for norm in norms[::2]] == [(4, 4), (9, 9), (16, 16)]
    assert not any(norm.weight.requires_grad for norm in norms)
    wide = [module for module in fresh("resnet18", "group").modules() if isinstance(module, nn.GroupNorm)]
    assert {norm.num_groups for norm in wide} == {32}


def test_norms_are_exchanged_before_modules_are_inserted() -> None:
    class Same(Portable):
        def forward(self, activation: Tensor) -> Tensor:
            return activation

    network = fresh("small-cnn-gray-16")
    network.insert("block1.point", Same())
    with pytest.raises(ContractError, match="exchange a network's norms before modules are inserted into it"):
        Network(network.backbone, [0.5], [0.25], norm="group")
