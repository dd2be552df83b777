"""Exclusionary reclassification (Chen et al. 2018): what a model says of clusters that it was not trained on, and what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from gatecrash import Classifier, Evidence, ImageSet, Network
from gatecrash_plugins.defenses._clusters import Halves


@dataclass(frozen=True)
class Finding:
    """What a decision says of one class: which half is poison, if any, and how much speaks for it, in [0, 1]."""

    accused: Literal["smaller", "larger"] | None
    evidence: float
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Judge:
    """A model, and the rows that it was trained on as a mask, bool [N]."""

    network: Network
    rows: Tensor


@dataclass(frozen=True)
class Ruling:
    """One finding for each class that was split, and the models that were asked, in order."""

    findings: Sequence[Finding]
    judges: Sequence[Judge] = ()


@dataclass(frozen=True)
class Reclassified:
    """What a model says of a cluster that it was not trained on.

    `kept` (the paper's l) rows get their own label, `moved` (p) the other class that most rows go to; `foreign` in [0, 1] is the mean
    probability of the likeliest other class.
    """

    kept: int
    moved: int
    foreign: float

    def poisonous(self, threshold: float) -> bool:
        """l / p < threshold."""
        return self.kept < threshold * self.moved

    @property
    def evidence(self) -> float:
        return self.moved / max(1, self.kept + self.moved)

    def details(self, prefix: str) -> dict[str, Any]:
        """Columns of the table of classes."""
        return {f"{prefix}kept": self.kept, f"{prefix}moved": self.moved, f"{prefix}foreign": self.foreign}


def reclassify(halves: Sequence[Halves], clusters: Sequence[Tensor], evidence: Evidence) -> tuple[Judge, list[Reclassified]]:
    """Train without the given cluster of each class, by the victim's recipe; the model, and what it says of each cluster."""
    data = evidence.training_data
    excluded = [half.rows[cluster] for half, cluster in zip(halves, clusters, strict=True)]
    drop = torch.zeros(len(data), dtype=torch.bool)
    drop[torch.cat(excluded)] = True
    model = evidence.train(without(data, drop))
    found = []
    for half, rows in zip(halves, excluded, strict=True):
        with torch.inference_mode():
            images = data.images[rows.to(data.device)]
            logits = torch.cat([model(batch) for batch in evidence.batches(images)]).double()
        counts = torch.bincount(logits.argmax(1), minlength=evidence.num_classes)
        others = counts.index_fill(0, torch.tensor([half.label], device=counts.device), 0)
        probabilities = logits.softmax(1)
        probabilities[:, half.label] = 0
        found.append(Reclassified(int(counts[half.label]), int(others.max()), float(probabilities.amax(1).mean())))
    return Judge(model, ~drop), found


def trained_without(suspects: Tensor, judges: Sequence[Judge], share: float | None, evidence: Evidence) -> Classifier:
    """A model trained on all rows but the suspects, bool [N].

    The first judge that was trained on none of them goes on for this share of the recipe's epochs (at least one), with the schedule of
    learning rates fitted into these. Without such a judge or a share, a new model is trained by the whole recipe.
    """
    rest = without(evidence.training_data, suspects)
    judge = next((judge for judge in judges if not (judge.rows & suspects).any()), None)
    if judge is None or share is None:
        return evidence.train(rest)
    epochs = max(1, round(share * evidence.recipe.epochs))
    return evidence.train(rest, network=judge.network, recipe=evidence.recipe.model_copy(update={"epochs": epochs}))


def without(data: ImageSet, rows: Tensor) -> ImageSet:
    """`data` minus the rows of a boolean mask, order kept."""
    return data.subset(~rows.to(data.device))
