"""Fresh networks of a grid's model, normalised and prepared by the data they will be trained on."""

from __future__ import annotations

import math
from functools import cache, partial
from typing import Protocol

import torch
from torch import Tensor

from gatecrash.contracts.classifier import Network
from gatecrash.contracts.data import ImageSet
from gatecrash.contracts.model import Model
from gatecrash.contracts.normalisation import Norm
from gatecrash.errors import ContractError
from gatecrash.process.mapped import in_parts, slices

PREPARED = 256
"""Most images that a fresh network is prepared with: patches enough for their covariance."""


class NetworkFactory(Protocol):
    """Makes fresh networks of one model."""

    def __call__(self, seed: int, *, norm: Norm = "batch") -> Network:
        """The network of this seed; `norm` "group": with GroupNorm in place of BatchNorm. Its convolutions start the same."""


def network_factory(model: Model, data: ImageSet, device: torch.device) -> NetworkFactory:
    """A factory of networks of `model`, normalised by the statistics of `data` and prepared with images spread over it."""
    statistics = cache(partial(channel_statistics, data.images))  # takes a pass over the data: not for defenses that train nothing

    def make(seed: int, *, norm: Norm = "batch") -> Network:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            backbone = model.build(data.num_classes, data.shape)
        if hasattr(backbone, "prepare"):
            raise ContractError(f"{type(backbone).__name__}.prepare is never called: its name is start_from now; rename it")
        network = Network(backbone, *statistics(), norm=norm)
        spread = torch.arange(0, len(data.images), math.ceil(len(data.images) / PREPARED) or 1, device=data.device)
        backbone.start_from(network.normalise(torch.cat(list(in_parts(data.images, spread))).cpu()))
        return network.to(device)

    return make


def channel_statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Mean and deviation per channel of uint8 [N, C, H, W], in [0, 1] units, from exact integer counts; rounded to 6 digits."""
    means, deviations = [], []
    values = torch.arange(256, dtype=torch.float64) / 255
    for channel in range(images.shape[1]):
        found = torch.zeros(256, dtype=torch.int64, device=images.device)
        for rows in slices(images):
            found += torch.bincount(images[rows, channel].flatten(), minlength=256)
        counts = found.cpu().double()
        mean = (counts * values).sum() / counts.sum()
        spread = ((counts * (values - mean) ** 2).sum() / counts.sum()).sqrt()
        means.append(round(float(mean), 6))
        deviations.append(round(max(float(spread), 1e-3), 6))
    return means, deviations
