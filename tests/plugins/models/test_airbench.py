"""Airbench's starts: a whitening first layer, and convolutions near the identity."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from gatecrash import ImageSet
from gatecrash.contracts.randomness import Streams
from gatecrash.contracts.recipe import PRESETS
from gatecrash.engine.training import train
from gatecrash.testing import model_factory
from gatecrash_plugins.models.airbench import Airbench
from support.shipped_models import built_network


def test_airbenchs_first_layer_whitens_patches_of_the_training_images_and_stays() -> None:
    """Jordan 2024, section 3.2: over the patches the filters' answers have variance 1 and no covariance."""
    data = natural_images()
    network = model_factory(Airbench(Airbench.Config(widths=(4, 4, 4))), data)()
    stem = network.backbone.stem
    assert isinstance(stem, nn.Conv2d)
    answers = F.conv2d(network.normalise(data.images), stem.weight).movedim(1, 3).flatten(0, 2).double()
    half = answers.shape[1] // 2
    assert torch.equal(answers[:, half:], -answers[:, :half])
    covariance = answers[:, :half].T @ answers[:, :half] / len(answers)
    torch.testing.assert_close(covariance, torch.eye(half).double(), rtol=0, atol=0.05)

    before = stem.weight.clone()
    recipe = PRESETS["airbench"].model_copy(update={"epochs": 1, "batch_size": 50, "lr": 0.01})
    train(network, data.images, data.labels, recipe, streams=Streams("test"), flip=True, device="cpu")
    assert torch.equal(stem.weight, before)


@torch.no_grad()
def test_airbenchs_convolutions_start_as_the_identity() -> None:
    network = built_network("airbench")
    for name, convolution in network.convolutions.items():
        if name != "stem":
            x = torch.rand(1, convolution.in_channels, 5, 5)
            assert torch.equal(convolution(x)[:, : convolution.in_channels], x)


def natural_images() -> ImageSet:
    """200 RGB images whose neighbouring pixels resemble each other: blurred noise, darker in class "a"."""
    generator = torch.Generator().manual_seed(0)
    noise = F.avg_pool2d(torch.rand(200, 3, 18, 18, generator=generator), 3, 1)
    images = ((noise + 0.05 * torch.rand(noise.shape, generator=generator)) * 255 / 1.05).to(torch.uint8)
    images[::2] //= 2
    return ImageSet(images, torch.arange(200) % 2, ("a", "b"))
