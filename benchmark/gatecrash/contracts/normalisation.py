"""GroupNorm in place of BatchNorm, for training in which no image may depend on the others of its batch."""

from __future__ import annotations

from typing import Literal

from torch import nn

Norm = Literal["batch", "group"]
"""What a network normalises by: "batch", its model's own norms, or "group", GroupNorm in place of each BatchNorm, so that no image depends
on the others of its batch. Each GroupNorm has as many groups as divide its channels evenly, at most 32 (Wu and He 2018)."""

MOST_GROUPS = 32


def use_group_norm(module: nn.Module) -> None:
    """Exchange each BatchNorm inside the module, in place, for a GroupNorm with the same scale and shift. Other norms stay."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(parent, name, _group_norm(child))


def _group_norm(batch: nn.modules.batchnorm._BatchNorm) -> nn.GroupNorm:
    channels = batch.num_features
    groups = max(count for count in range(1, MOST_GROUPS + 1) if channels % count == 0)
    group = nn.GroupNorm(groups, channels, eps=batch.eps, affine=batch.affine)
    if batch.affine:  # a model may have set them, and fixed some
        group.weight, group.bias = batch.weight, batch.bias
    return group.train(batch.training)
