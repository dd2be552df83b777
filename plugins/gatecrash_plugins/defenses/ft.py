"""Fine-tuning on the clean hold-out: the control that every purifier is read against, and Feature Shift Tuning."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from gatecrash import Defense, Evidence, Give, Loss, Need, Network, Outcome, Reference, accuracy, hookimpl
from gatecrash_plugins.defenses._fine_tuning import FineTuning

DEFAULTS: dict[str, dict[str, float]] = {"fst": {"epochs": 10, "batch_size": 128, "weight_decay": 0.0}}
"""Options that differ from the defaults of the fields, by variant."""


class FT(Defense):
    """Trains the whole victim on the clean hold-out and changes nothing else.

    - `plain`: BackdoorBench's settings: 100 epochs of SGD at 0.01, batches of 256, weight decay 5e-4, images changed at random as the
      victim's were. The rate falls at every step, there at every epoch.
    - `fst`, Feature Shift Tuning (Min et al. 2023, section 4; arXiv:2310.01875): the head is initialised anew, weights and bias uniform in
      +-1 / sqrt(inputs); the loss is cross-entropy plus alpha <w, w_victim>; after every step the head's weights get their old norm back.
      All layers are trained. Ten epochs and alpha 0.1 are the paper's; batches of 128 and no weight decay are those of the authors' code,
      whose default alpha is 0.2. The paper takes less than 0.1 for many classes.
    - `published`: `plain`, with the head brought back to its norm after every step. So does the plain fine-tuning in the code of Feature
      Shift Tuning, with which its paper's method is compared; here for measuring what that changes.

    After one step of `fst` or `published`, weights differ from those of the authors' code by at most 5.4e-5 on equal weights and batches
    (docs/measured/ft.md).
    """

    name = "ft"
    summary = "fine-tuning on the clean hold-out, the control; or Feature Shift Tuning"
    reference = Reference(
        "Wu et al., BackdoorBench: A Comprehensive Benchmark of Backdoor Learning", 2022, "https://arxiv.org/abs/2206.12654"
    )
    needs = frozenset({Need.MODEL, Need.CLEAN_DATA})
    gives = frozenset({Give.CLASSIFIER})

    class Config(FineTuning):
        """Defaults of `plain`; `fst` takes 10 epochs, batches of 128 and no weight decay where these are not given."""

        variant: Literal["plain", "fst", "published"] = Field(
            "plain", description="plain fine-tuning, Feature Shift Tuning, or plain with the head's norm kept (a published defect)"
        )
        alpha: float = Field(0.1, ge=0, le=100, description="fst: weight of the inner product of the head's weights with the victim's")

        @model_validator(mode="before")
        @classmethod
        def _defaults_of_the_variant(cls, data: Any) -> Any:
            return {**DEFAULTS.get(str(data.get("variant")), {}), **data} if isinstance(data, dict) else data

        @model_validator(mode="after")
        def _every_option_counts(self) -> Self:
            if self.variant != "fst" and self.alpha != type(self).model_fields["alpha"].default:
                raise ValueError(f"alpha has no effect with variant: {self.variant}; give variant: fst")
            return self

    config: Config

    def defend(self, evidence: Evidence) -> Outcome:
        network, clean, config = evidence.network, evidence.clean, self.config
        before = accuracy(network, clean, evidence.batches)
        victim = network.head.weight.detach().clone()
        if config.variant == "fst":
            initialise(network.head, evidence.stream("head"))
        # What fine-tuning breaks is a result, as much as what it repairs.
        tuned = evidence.train(
            clean,
            network=network,
            recipe=config.recipe(),
            loss=shifting(victim, config.alpha) if config.variant == "fst" else None,
            step=None if config.variant == "plain" else keeping(victim.norm()),
            diverges=True,
        )
        rows = [{"when": "before", "acc": before}, {"when": "after", "acc": accuracy(tuned, clean, evidence.batches)}]
        return Outcome(classifier=tuned, tables={"holdout": rows})


def initialise(head: nn.Linear, draws: torch.Generator) -> None:
    """Weights and bias anew, uniform in +-1 / sqrt(inputs)."""
    bound = 1 / math.sqrt(head.in_features)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=draws))


def shifting(victim: Tensor, alpha: float) -> Loss:
    """Cross-entropy plus `alpha` times the inner product of the head's weights with the victim's, [K, F] (equation 2)."""

    def loss(network: Network, images: Tensor, labels: Tensor, _rows: Tensor) -> Tensor:
        return F.cross_entropy(network(images).float(), labels) + alpha * (network.head.weight * victim).sum()

    return loss


def keeping(norm: Tensor) -> Callable[..., Tensor]:
    """A step of the optimiser, after which the head's weights are scaled to this Frobenius norm."""

    def step(network: Network, optimizer: torch.optim.Optimizer, closure: Callable[[], Tensor], *_batch: Tensor) -> Tensor:
        value = closure()
        optimizer.step()
        with torch.no_grad():
            network.head.weight.mul_(norm / network.head.weight.norm())
        return value

    return step


@hookimpl
def register_defenses(register: Callable[[type[Defense]], None]) -> None:
    register(FT)
