"""Any classification model of torchvision, by name."""

from __future__ import annotations

import pytest
import torch

from gatecrash import Network, UserError
from support.shipped_models import CLASSES, built_network, torchvision


def test_torchvision_parameters_keep_torchvisions_names() -> None:
    from torchvision.models import resnet18

    ours = set(built_network("torchvision-resnet18").backbone.net.state_dict())  # type: ignore[union-attr]
    assert ours == {name for name in resnet18().state_dict() if not name.startswith("fc.")}


def test_an_unknown_net_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match=r"no classification model 'resnet19'; did you mean .*'resnet18'"):
        torchvision("resnet19").check((3, 32, 32))
    with pytest.raises(UserError, match="no classification model 'fasterrcnn_resnet50_fpn'"):
        torchvision("fasterrcnn_resnet50_fpn").build(10, (3, 32, 32))


def test_a_net_without_a_linear_head_is_a_user_error() -> None:
    with pytest.raises(UserError, match="squeezenet1_0 does not end in a linear layer"):
        torchvision("squeezenet1_0").check((3, 64, 64))


FAMILIES = [
    ("alexnet", 64, 4),
    ("vgg11_bn", 32, 6),
    ("regnet_y_400mf", 32, 5),
    ("vit_b_16", 32, 0),
    *(
        pytest.param(*family, marks=pytest.mark.slow)
        for family in (
            ("convnext_tiny", 32, 4),
            ("densenet121", 32, 4),
            ("efficientnet_b0", 32, 5),
            ("googlenet", 32, 5),
            ("inception_v3", 96, 7),
            ("maxvit_t", 224, 5),
            ("mnasnet0_5", 32, 4),
            ("swin_t", 32, 0),
        )
    ),
]


@pytest.mark.parametrize(("arch", "side", "stages"), FAMILIES)
def test_every_family_of_torchvision_has_its_points(arch: str, side: int, stages: int) -> None:
    model = torchvision(arch)
    model.check((1, side, side))
    with torch.device("cpu" if arch == "regnet_y_400mf" else "meta"):
        network = Network(model.build(CLASSES, (1, side, side)), [0.5], [0.25]).eval()
        logits = network(torch.zeros(2, 1, side, side))
    assert logits.shape == (2, CLASSES)
    assert len(network.stages) == stages
    assert list(network.points)[-1] == "last"
    assert network.points["last"].channels == network.head.in_features
