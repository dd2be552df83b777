"""The hand-built network of five channels as a model that is not yet trained."""

from __future__ import annotations

from typing import Any

import torch

from gatecrash import Model
from support.planted_networks import one_channel_per_class

COUNTS = (4, 4, 4, 4, 4)


class Tiny(Model):
    """The hand-built network as a model, with nothing learnt yet."""

    name = "tiny"
    summary = "five channels"

    def build(self, num_classes: int, shape: tuple[int, int, int]) -> Any:
        backbone = one_channel_per_class().backbone
        torch.nn.init.normal_(backbone.head.weight)
        return backbone
