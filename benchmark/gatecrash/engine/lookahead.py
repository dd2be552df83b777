"""Lookahead: a slowly moving copy of the weights, to which they return (Zhang et al. 2019), as Jordan 2024 (section 3.4) schedules it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

EVERY = 5
"""Steps after which the weights return to the copy."""

MEMORY = 0.95
"""Share of the copy that a step keeps at the end of the run; at the share t of the run it is `MEMORY t^3`, per step."""


class Lookahead:
    """After every fifth step the copy moves towards the network's weights and running statistics, and the network takes its place."""

    def __init__(self, network: nn.Module, steps: int) -> None:
        frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
        tensors = network.state_dict()
        self._tensors = [tensor for name, tensor in tensors.items() if name not in frozen and tensor.is_floating_point()]
        self._slow = [tensor.clone() for tensor in self._tensors]
        self._steps, self._step = steps, 0

    def step(self) -> None:
        """To be called after every step of the optimiser."""
        self._step += 1
        if self._step % EVERY == 0:
            self._return()

    def move_to(self, step: int) -> None:
        """Go on from this step of the run."""
        self._step = step

    def end(self) -> None:
        """To be called after the last step: the network ends as the copy. A run of fewer than five steps has none and stays as it is."""
        if self._step > EVERY and self._step % EVERY:
            self._return()

    def state(self) -> dict[str, Any]:
        return {"slow": list(self._slow), "step": self._step}

    def restore(self, state: dict[str, Any]) -> None:
        for slow, stored in zip(self._slow, state["slow"], strict=True):
            slow.copy_(stored)
        self._step = int(state["step"])

    @torch.no_grad()
    def _return(self) -> None:
        kept = MEMORY**EVERY * (self._step / self._steps) ** 3
        for slow, tensor in zip(self._slow, self._tensors, strict=True):
            slow.lerp_(tensor, 1 - kept)
            tensor.copy_(slow)
