"""The optimiser, the learning rate of every step, and the step itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gatecrash.contracts.recipe import Recipe
from gatecrash.engine.eager_optimizers import SGD, AdamW
from gatecrash.engine.lookahead import Lookahead
from gatecrash.errors import ContractError


def learning_rates(recipe: Recipe, steps: int) -> list[float]:
    """The learning rate of every step.

    cosine: `lr (1 + cos(pi t / steps)) / 2` at step t from 0 (Loshchilov and Hutter 2017, without restarts). one-cycle: a straight line up
    over the share `warmup` and another down to zero (the "slanted triangle" of Howard and Ruder 2018, section 3.2); no step has rate zero.
    """
    if recipe.schedule == "constant":
        return [recipe.lr] * steps
    if recipe.schedule == "cosine":
        return [recipe.lr * (1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]
    end = steps + 1
    corners = [0.0, recipe.warmup * end, end]
    return [float(rate) for rate in np.interp(np.arange(1, end), corners, [0.0, recipe.lr, 0.0])]


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over the trainable parameters, fused where torch has a fused kernel.

    Raises ContractError if nothing can be trained.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        # Biases and the scales and shifts of normalisation layers are the parameters with one dimension.
        decay = recipe.weight_decay if recipe.decay_norms or parameter.ndim > 1 else 0.0
        scale = recipe.bias_lr if name.rpartition(".")[2] == "bias" else 1.0
        groups.setdefault((scale, decay / scale), []).append(parameter)
    if not groups:
        raise ContractError("no parameter of the network requires a gradient: there is nothing to train")
    options = [
        {"params": parameters, "lr": recipe.lr * scale, "scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in groups.items()
    ]
    fused = next(network.parameters()).device.type in {"cpu", "cuda"}
    if recipe.optimizer == "adamw":
        return AdamW(options, lr=recipe.lr, betas=(recipe.momentum, 0.999), fused=fused)
    nesterov = recipe.nesterov and recipe.momentum > 0
    return SGD(options, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov, fused=fused)


TakeStep = Callable[[torch.optim.Optimizer, Callable[[], Tensor]], Tensor]
"""(optimizer, closure) -> loss: what one step does. `closure` sets the gradients of the loss and returns it."""


def descend(optimizer: torch.optim.Optimizer, closure: Callable[[], Tensor]) -> Tensor:
    """The step of gradient descent."""
    value = closure()
    optimizer.step()
    return value


class Updates:
    """The steps of one training run: gradients, the learning rate of the step, the recipe's optimiser, and Lookahead if it asks for it."""

    def __init__(self, network: nn.Module, recipe: Recipe, steps: int) -> None:
        """Raises ContractError if nothing can be trained."""
        self._optimizer = make_optimizer(network, recipe)
        self._rates = learning_rates(recipe, steps)
        self._step = 0
        self._lookahead = Lookahead(network, steps) if recipe.lookahead else None

    def step(self, loss: Callable[[], Tensor], take: TakeStep) -> Tensor:
        """One step as `take` carries it out, with the rate of this step; gives the loss that `take` reports."""
        rate = self._rates[self._step]
        self._step += 1
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["scale"]

        def closure() -> Tensor:
            value = loss()
            if not isinstance(value, Tensor) or value.ndim:
                raise ContractError(f"a loss must be a scalar tensor; got {_shown(value)}")
            self._optimizer.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            return value.detach()

        value = take(self._optimizer, closure)
        if not isinstance(value, Tensor) or value.ndim:
            raise ContractError(f"a step must return the loss to report, a scalar tensor; got {_shown(value)}")
        if self._lookahead is not None:
            self._lookahead.step()
        return value.detach()

    def move_to(self, step: int) -> None:
        """Go on from this step of the run."""
        self._step = step
        if self._lookahead is not None:
            self._lookahead.move_to(step)

    def state(self) -> dict[str, Any]:
        lookahead = self._lookahead.state() if self._lookahead is not None else {}
        return {"optimizer": self._optimizer.state_dict(), "lookahead": lookahead, "step": self._step}

    def restore(self, state: dict[str, Any]) -> None:
        self._optimizer.load_state_dict(state["optimizer"])
        self._step = int(state["step"])
        if self._lookahead is not None:
            self._lookahead.restore(state["lookahead"])

    def end(self) -> None:
        """To be called after the last step."""
        if self._lookahead is not None:
            self._lookahead.end()


def _shown(value: object) -> str:
    return f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
