"""FT-SAM: fine-tuning with the gradient at the worst weights nearby, where "near" is measured weight by weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gatecrash import Defense, Evidence, Give, Need, Network, Outcome, Recipe, Reference, StepFunction, accuracy, hookimpl
from gatecrash_plugins.defenses._fine_tuning import FineTuning

PUBLISHED_PERIOD = 100
"""Steps in which the published schedule falls from the peak to zero; it rises again in as many."""


class FTSAM(Defense):
    """Fine-tunes on the clean hold-out with adaptive sharpness-aware minimisation (Zhu et al. 2023, section 4).

    A step takes the gradient g of the batch's loss at the weights w, climbs to w + e with e = rho w^2 g / ||w g|| (all parameters as one
    vector, so that large weights move far), takes the gradient of the same batch there, and applies it to w. The first pass alone moves
    BatchNorm's running statistics. With e gone, w is exactly what it was; in the authors' code it is so up to rounding.

    Settings are those of the authors' code in BackdoorBench for CIFAR-10: rho 2, label smoothing 0.1 (spread over the K - 1 other classes),
    100 epochs of SGD at 0.01, batches of 256, weight decay 5e-4 (for GTSRB: rho 8, 50 epochs). Its cosine is made for 100 epochs but moves
    on at every batch, so that with ten batches per epoch the rate swings five times and ends at its peak. By default it falls once here,
    over all steps; `variant: published` is the schedule of that code.

    After one step, weights differ from those of the authors' optimiser by at most 3.6e-6 on equal weights and batches
    (docs/measured/ft-sam.md).
    """

    name = "ft-sam"
    summary = "fine-tuning with adaptive sharpness-aware minimisation"
    reference = Reference(
        "Zhu et al., Enhancing Fine-Tuning Based Backdoor Defense with Sharpness-Aware Minimization",
        2023,
        "https://arxiv.org/abs/2304.11823",
    )
    needs = frozenset({Need.MODEL, Need.CLEAN_DATA})
    gives = frozenset({Give.CLASSIFIER})

    class Config(FineTuning):
        """Defaults: BackdoorBench's, where the authors published their code."""

        rho: float = Field(2.0, ge=0, le=1000, description="radius of the climb; 0: fine-tuning with label smoothing")
        label_smoothing: float = Field(0.1, ge=0, le=0.4, description="share of the target that is spread evenly over all other classes")
        variant: Literal["corrected", "published"] = Field(
            "corrected", description="learning rate: falling once over all steps, or as published, falling and rising every 100 steps"
        )

    config: Config

    def defend(self, evidence: Evidence) -> Outcome:
        network, clean, config = evidence.network, evidence.clean, self.config
        before = accuracy(network, clean, evidence.batches)
        step = swinging(sharpness_aware(config.rho)) if config.variant == "published" else sharpness_aware(config.rho)
        # What this radius breaks is a result, as much as what it repairs.
        tuned = evidence.train(clean, network=network, recipe=self.recipe(evidence.num_classes), step=step, diverges=True)
        rows = [{"when": "before", "acc": before}, {"when": "after", "acc": accuracy(tuned, clean, evidence.batches)}]
        return Outcome(classifier=tuned, tables={"holdout": rows})

    def recipe(self, num_classes: int) -> Recipe:
        """How the victim is fine-tuned; `published` has the peak rate throughout, from which `swinging` makes that of the step."""
        # The engine's smoothing spreads over all classes, the labelled one included: this share of it leaves 1 - label_smoothing there.
        smoothing = self.config.label_smoothing * num_classes / max(1, num_classes - 1)
        return self.config.recipe(label_smoothing=smoothing, constant=self.config.variant == "published")


def sharpness_aware(rho: float) -> StepFunction:
    """A step with the gradient at w + e; reports the loss at w."""

    def step(
        network: Network, optimizer: torch.optim.Optimizer, closure: Callable[[], Tensor], _images: Tensor, _labels: Tensor, _rows: Tensor
    ) -> Tensor:
        value = closure()
        parameters = [parameter for parameter in network.parameters() if parameter.grad is not None]
        with torch.no_grad():
            before = [parameter.clone() for parameter in parameters]
            for parameter, climb in zip(parameters, climbs(parameters, rho), strict=True):
                parameter.add_(climb)
        with statistics_kept(network):
            closure()
        with torch.no_grad():
            for parameter, weights in zip(parameters, before, strict=True):
                parameter.copy_(weights)
        optimizer.step()
        return value

    return step


def climbs(parameters: list[nn.Parameter], rho: float) -> list[Tensor]:
    """rho w^2 g / ||w g|| for each parameter w with its gradient g; the norm is that of all parameters together."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    scaled = [parameter * gradient for parameter, gradient in zip(parameters, gradients, strict=True)]
    scale = rho / (torch.stack([part.norm() for part in scaled]).norm() + 1e-12)
    return [parameter * part * scale for parameter, part in zip(parameters, scaled, strict=True)]


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """BatchNorms in training mode normalise by the batch, as ever, but leave their running statistics alone."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.training and module.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def swinging(take: StepFunction) -> StepFunction:
    """`take` at the rate of the published schedule: that of the optimiser times (1 + cos(pi t / 100)) / 2 at step t from 0, without end."""
    taken = 0

    def step(
        network: Network, optimizer: torch.optim.Optimizer, closure: Callable[[], Tensor], images: Tensor, labels: Tensor, rows: Tensor
    ) -> Tensor:
        nonlocal taken
        for group in optimizer.param_groups:
            group["lr"] *= (1 + math.cos(math.pi * taken / PUBLISHED_PERIOD)) / 2
        taken += 1
        return take(network, optimizer, closure, images, labels, rows)

    return step


@hookimpl
def register_defenses(register: Callable[[type[Defense]], None]) -> None:
    register(FTSAM)
