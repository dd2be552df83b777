"""GoodNet: the original and a pruned network vote; where they disagree, the input is rejected as poisoned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gatecrash import Classifier, Defense, Evidence, Give, Need, Outcome, Reference, hookimpl
from gatecrash_plugins.defenses.activation_pruning import ActivationPruning


class GoodNet(Classifier):
    """K + 1 logits: those of `original`, and one for rejection that is the largest exactly where the two networks differ.

    A class's lead in a network is its logit minus the best other one. A class is agreed on as far as its smaller lead in the two networks,
    and that is positive for at most one class: the one that both choose. The rejection's logit is the original's largest minus the best
    agreement, so it passes through the decision boundary without a jump.
    """

    def __init__(self, original: Classifier, pruned: Classifier) -> None:
        super().__init__()
        self.original, self.pruned = original, pruned
        self.num_classes = original.num_classes

    def config(self) -> dict[str, Any]:
        return {"original": self.original, "pruned": self.pruned}

    def forward(self, images: Tensor) -> Tensor:
        original, pruned = self.original(images), self.pruned(images)
        top = original.amax(1)
        reject = top - torch.minimum(_leads(original), _leads(pruned)).amax(1)
        # Rounding may swallow a small lead, and a tie has none: then the decisions themselves decide.
        differ = original.argmax(1) != pruned.argmax(1)
        edge = top.detach()  # not every torch release has a gradient for nextafter
        above, below = (torch.nextafter(edge, torch.full_like(edge, side)) for side in (torch.inf, -torch.inf))
        reject = torch.where(differ, torch.maximum(reject, above), torch.minimum(reject, below))
        return torch.cat([original, reject.unsqueeze(1)], dim=1)


def _leads(logits: Tensor) -> Tensor:
    """Each class's logit minus the largest of the others, [N, K]; at least zero for the decision alone (or in a tie)."""
    best, second = logits.topk(2, dim=1).values.unbind(1)
    others = best.unsqueeze(1).expand_as(logits).scatter(1, logits.argmax(1, keepdim=True), second.unsqueeze(1))
    return logits - others


class GoodNetDefense(Defense):
    """Rejects every input on which the victim and its pruned version (`activation-pruning`, same options) give different classes.

    Made for the last place in a chain: a classifier that rejects cannot be pruned or fine-tuned further. The pruning curve is
    `activation-pruning`'s trajectory.
    """

    name = "goodnet"
    summary = "reject inputs on which the victim and its activation-pruned version disagree"
    reference = Reference(
        "Liu et al., Fine-Pruning: defending against backdooring attacks on deep neural networks", 2018, "https://arxiv.org/abs/1805.12185"
    )
    needs = frozenset({Need.MODEL, Need.CLEAN_DATA})
    gives = frozenset({Give.CLASSIFIER, Give.REJECT})
    version = 2

    class Config(ActivationPruning.Config):
        """How the second network is pruned: the options of activation-pruning."""

    config: Config

    def defend(self, evidence: Evidence) -> Outcome:
        original = evidence.network.duplicate()
        outcome = ActivationPruning(self.config).defend(evidence)
        assert outcome.classifier is not None
        return replace(outcome, classifier=GoodNet(original, outcome.classifier).eval(), trajectory=())


@hookimpl
def register_defenses(register: Callable[[type[Defense]], None]) -> None:
    register(GoodNetDefense)
