"""The shipped models at several sizes, with norms as after training."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from gatecrash import Model, Network
from gatecrash_plugins.models.airbench import Airbench
from gatecrash_plugins.models.lean import Lean
from gatecrash_plugins.models.preact_resnet18 import PreActResNet18
from gatecrash_plugins.models.resnet18 import ResNet18
from gatecrash_plugins.models.resnet20 import ResNet20
from gatecrash_plugins.models.small_cnn import SmallCnn
from gatecrash_plugins.models.torchvision import Torchvision
from gatecrash_plugins.models.vgg11_bn import Vgg11

CLASSES = 7


def torchvision(arch: str) -> Model:
    return Torchvision(Torchvision.Config(arch=arch))


CASES: dict[str, tuple[Model, tuple[int, int, int]]] = {
    "small-cnn-gray-16": (SmallCnn(), (1, 16, 16)),
    "small-cnn-8": (SmallCnn(), (3, 8, 8)),
    "small-cnn-oblong": (SmallCnn(), (3, 20, 32)),
    "small-cnn": (SmallCnn(), (3, 32, 32)),
    "lean": (Lean(), (3, 32, 32)),
    "lean-narrow-gray": (Lean(Lean.Config(width=0.25)), (1, 32, 32)),
    "airbench": (Airbench(), (3, 32, 32)),
    "airbench-narrow-gray": (Airbench(Airbench.Config(widths=(4, 9, 16))), (1, 28, 20)),
    "resnet18": (ResNet18(), (3, 32, 32)),
    "resnet18-gray-16": (ResNet18(), (1, 16, 16)),
    "resnet20": (ResNet20(), (3, 32, 32)),
    "preact-resnet18": (PreActResNet18(), (3, 32, 32)),
    "preact-resnet18-gray-16": (PreActResNet18(), (1, 16, 16)),
    "vgg11-bn": (Vgg11(), (3, 32, 32)),
    "vgg11-bn-gray": (Vgg11(), (1, 32, 32)),
    "torchvision-resnet18": (torchvision("resnet18"), (3, 32, 32)),
    "torchvision-mobilenet_v3_small-gray": (torchvision("mobilenet_v3_small"), (1, 32, 32)),
    "torchvision-shufflenet_v2_x0_5": (torchvision("shufflenet_v2_x0_5"), (3, 32, 32)),
}


@cache
def built_network(case: str) -> Network:
    """The model with norms as after training: their statistics fit the images, their weights and biases are anything."""
    model, shape = CASES[case]
    torch.manual_seed(0)
    network = Network(model.build(CLASSES, shape), [0.5] * shape[0], [0.25] * shape[0])
    for norm in network.norms.values():
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.randint(0, 256, (8, *shape), dtype=torch.uint8))
    return network.eval()
