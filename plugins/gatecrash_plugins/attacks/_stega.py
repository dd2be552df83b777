"""The nets of steganography: one writes a bit string into an image, the other reads it (after StegaStamp, Tancik et al. 2020)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gatecrash import Portable


class Encoder(Portable):
    """What to add to images float [N, C, H, W] in [0, 1] for strings float [N, bits] of 0 and 1: float in [-1, 1], in units of the bound.

    A U-shaped net with shortcuts over three halvings, rounded up: any size does. The string enters as an image of half the size, made
    by a linear layer without StegaStamp's ReLU: with it 300 steps taught nothing.
    """

    def __init__(self, shape: tuple[int, int, int], bits: int, width: int) -> None:
        super().__init__()
        channels, height, width_ = shape
        self.shape, self.bits, self.width = (channels, height, width_), bits, width
        self.grid = (channels, (height + 1) // 2, (width_ + 1) // 2)
        a, b, c, seen = width, 2 * width, 4 * width, 2 * channels
        self.string = nn.Linear(bits, channels * self.grid[1] * self.grid[2])
        self.down = nn.ModuleList([_conv(seen, a), _conv(a, a, 2), _conv(a, b, 2), _conv(b, c, 2)])
        self.up = nn.ModuleList([_conv(c, b), _conv(b, a), _conv(a, a)])
        self.merge = nn.ModuleList([_conv(2 * b, b), _conv(2 * a, a), _conv(2 * a + seen, a)])
        self.residual = nn.Conv2d(a, channels, 1)

    def config(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "bits": self.bits, "width": self.width}

    def forward(self, images: Tensor, bits: Tensor) -> Tensor:
        written = 2 * self.string(2 * bits - 1)
        seen = torch.cat([F.interpolate(written.view(-1, *self.grid), images.shape[2:]), images - 0.5], 1)
        maps = [seen]
        for layer in self.down:
            maps.append(layer(maps[-1]))
        made = maps[-1]
        for up, merge, beside in zip(self.up, self.merge, (maps[3:4], maps[2:3], [maps[1], seen]), strict=True):
            made = merge(torch.cat([*beside, up(F.interpolate(made, beside[0].shape[2:]))], 1))
        return torch.tanh(self.residual(made))


class Decoder(nn.Module):
    """Logits [N, bits] of the string in images float [N, C, H, W] in [0, 1]. It only serves to train the encoder, and to judge it."""

    def __init__(self, shape: tuple[int, int, int], bits: int, width: int) -> None:
        super().__init__()
        channels, height, width_ = shape
        a, b = 2 * width, 4 * width
        layers: list[nn.Module] = []
        for before, after, stride in ((channels, a, 1), (a, a, 2), (a, a, 1), (a, b, 2), (b, b, 1), (b, b, 2)):
            layers += [nn.Conv2d(before, after, 3, stride, 1), nn.BatchNorm2d(after), nn.ReLU()]
        cells = -(-height // 8) * -(-width_ // 8)
        self.net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(b * cells, 128), nn.ReLU(), nn.Linear(128, bits))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images - 0.5)
        return logits


def _conv(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1), nn.ReLU())
