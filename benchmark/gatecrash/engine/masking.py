"""A network under masks at its last point, without passing the images through it again.

As `Backbone` requires, a channel of the last point is a block of the head's input. Where a mask there scales the block and does nothing
else, the head's input is computed once and serves every mask. Whether it does is tested on a few images, not assumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gatecrash.contracts.classifier import Network

LARGEST = 2**30
"""Bytes of head inputs to keep; beyond that (a wide map, flattened) every mask costs a pass through the network."""

TRIED = 64
"""Images on which to test what a mask does."""


def scales_blocks(network: Network, images: Tensor, features: Tensor) -> bool:
    """Whether non-negative masks at the last point scale each channel's block of the head's input, and change nothing else of it.

    That is so where the head reads the point's output flattened or pooled, by mean or maximum, and scaled or not. It is tested on the
    first of images uint8 [N, C, H, W], of which `features` [N, F] are the head's inputs under the present mask. The network is left as
    it is.
    """
    point = list(network.points.values())[-1]
    if features.shape[1] != network.head.in_features or features.shape[1] % point.channels:
        return False
    images, features = images[:TRIED], features[:TRIED]
    start = point.mask.detach().clone()
    graded = torch.arange(point.channels, device=start.device) % 3 / 2
    try:
        point.set_mask(start * graded)
        with evaluating(network):
            masked = network.features(images).to(features)
    finally:
        point.set_mask(start)
    expected = features * _per_feature(graded, features)
    return torch.allclose(masked, expected, rtol=1e-4, atol=1e-5 * float(features.abs().max()))


@dataclass(frozen=True)
class MaskedHead:
    """The head of a network and its inputs float32 [N, F], on the CPU, while no channel of the last point is masked."""

    head: nn.Linear
    inputs: Tensor
    batch_size: int

    def logits(self, mask: Tensor) -> Tensor:
        """float32 [N, K] on the CPU: what the network answers under the mask, float [channels] and not negative."""
        device = self.head.weight.device
        scale = _per_feature(mask, self.inputs).to(device)
        with evaluating(self.head):
            return torch.cat([self.head(rows.to(device) * scale).float().cpu() for rows in torch.split(self.inputs, self.batch_size)])


def masked_head(network: Network, images: Tensor, batches: Sequence[Tensor]) -> MaskedHead | None:
    """One pass of images uint8 [N, C, H, W] through the network, on the network's device, in these batches of rows (int64).

    None where masks at its last point do not scale blocks of the head's input, or where the inputs would take more than `LARGEST`.
    """
    if not network.points or not len(images):
        return None
    device = network.head.weight.device
    point = list(network.points.values())[-1]
    start = point.mask.detach().clone()
    inputs = torch.empty(len(images), network.head.in_features)
    if inputs.nbytes > LARGEST:
        return None
    try:
        point.set_mask(torch.ones_like(start))
        with evaluating(network):
            for number, rows in enumerate(batches):
                batch = images[rows.to(images.device)].to(device)
                features = network.features(batch).float().cpu()
                if number == 0 and not scales_blocks(network, batch, features):
                    return None
                inputs[rows] = features
    finally:
        point.set_mask(start)
    return MaskedHead(network.head, inputs, max(map(len, batches)))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; the modes as before afterwards."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def _per_feature(mask: Tensor, features: Tensor) -> Tensor:
    """The mask [channels] repeated for each channel's block: [F], like `features`."""
    return mask.to(features).repeat_interleave(features.shape[1] // len(mask))
