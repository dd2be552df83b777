"""Scores of detectors: of poisoned training rows, of one model, of a population of models."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gatecrash.evaluation.intervals import Interval, auc_interval, normal_interval
from gatecrash.evaluation.metrics import share

CLEAN, POISON, COVER = 0, 1, 2
"""The values of `gatecrash.Role`, which cannot be imported here without torch."""


@dataclass(frozen=True)
class DetectionScores:
    """How well a defense told poisoned training rows from clean ones; COVER rows are counted apart, as neither.

    The counts are None where the defense named no suspects, `auroc` where it gave no suspicion or the rows are all of one kind.
    """

    clean: int
    poison: int
    cover: int
    flagged_clean: int | None = None
    flagged_poison: int | None = None
    flagged_cover: int | None = None
    auroc: float | None = None

    @property
    def tpr(self) -> float | None:
        """Share of POISON rows flagged."""
        return None if self.flagged_poison is None else share(self.flagged_poison, self.poison)

    @property
    def fpr(self) -> float | None:
        """Share of CLEAN rows flagged."""
        return None if self.flagged_clean is None else share(self.flagged_clean, self.clean)

    @property
    def precision(self) -> float | None:
        """Share of POISON among the flagged CLEAN and POISON rows."""
        if self.flagged_poison is None or self.flagged_clean is None or not self.poison:
            return None
        return share(self.flagged_poison, self.flagged_poison + self.flagged_clean)

    @property
    def tpr_minus_fpr(self) -> float | None:
        return None if self.tpr is None or self.fpr is None else self.tpr - self.fpr

    @property
    def accuracy(self) -> float | None:
        """Share of CLEAN and POISON rows that are called what they are."""
        if self.flagged_poison is None or self.flagged_clean is None:
            return None
        return share(self.flagged_poison + self.clean - self.flagged_clean, self.poison + self.clean)

    @property
    def cover_flagged(self) -> float | None:
        """Share of COVER rows flagged."""
        return None if self.flagged_cover is None else share(self.flagged_cover, self.cover)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        return cls(**fields)


def detection(suspects: Any, suspicion: Any, roles: Any) -> DetectionScores:
    """Score a detector of training samples.

    `suspects` bool [N] or None, `suspicion` float [N] (higher = more suspect) or None, `roles` [N] of `Role`: arrays, or tensors on any
    device.
    """
    role = _array(roles)
    kinds = {kind: role == kind for kind in (CLEAN, POISON, COVER)}
    counts = {kind: int(mask.sum()) for kind, mask in kinds.items()}
    flagged: dict[int, int | None] = dict.fromkeys(kinds)
    if suspects is not None:
        flag = _array(suspects).astype(bool)
        flagged = {kind: int((flag & mask).sum()) for kind, mask in kinds.items()}
    auroc = None
    if suspicion is not None and counts[CLEAN] and counts[POISON]:
        from sklearn.metrics import roc_auc_score

        counted = ~kinds[COVER]
        auroc = float(roc_auc_score(kinds[POISON][counted], _array(suspicion)[counted]))
    return DetectionScores(
        counts[CLEAN], counts[POISON], counts[COVER], flagged[CLEAN], flagged[POISON], flagged[COVER], auroc
    )  # fmt: skip


@dataclass(frozen=True)
class VerdictScores:
    """Whether a verdict on one model was right, and whether it named the target classes.

    `targets_equal` and `targets_recall` are None on a benign model, and where the method names no classes at all.
    """

    right: bool
    targets_equal: bool | None
    targets_recall: float | None


def verdict_scores(
    backdoored: bool,
    targets: Collection[int],
    true_targets: Collection[int],
    *,
    is_backdoored: bool,
    names_classes: bool = True,
) -> VerdictScores:
    """Score a verdict (`backdoored`, accused `targets`) against what is in the model.

    `names_classes` is False for a method that never names classes (it gives neither targets nor anomaly indices): its scores of targets are
    None. A method that can name classes and named none has found none of them: its recall is 0.
    """
    right = backdoored == is_backdoored
    truth, named = set(true_targets), set(targets)
    if not is_backdoored or not truth or not names_classes:
        return VerdictScores(right, None, None)
    return VerdictScores(right, named == truth, len(named & truth) / len(truth))


@dataclass(frozen=True)
class PopulationScores:
    """How well probabilities separate backdoored from benign models, each with its 95% interval."""

    backdoored: int
    benign: int
    roc_auc: Interval
    cross_entropy: Interval
    brier: Interval


def population_scores(probabilities: Sequence[float], truths: Sequence[bool], confidence: float = 0.95) -> PopulationScores:
    """Score a detector of models over many victims, as NIST's TrojAI rounds do: ROC-AUC, mean cross-entropy (nats), Brier score.

    `probabilities` [M] that each model is backdoored; `truths` [M] whether it is. Everything is None unless both kinds are there.
    Intervals: `auc_interval` of ROC-AUC, `normal_interval` of the two means.
    """
    probability, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(truths, dtype=bool)
    backdoored, benign = int(truth.sum()), int((~truth).sum())
    if not backdoored or not benign:
        nothing = Interval(None, None, None)
        return PopulationScores(backdoored, benign, nothing, nothing, nothing)
    from sklearn.metrics import roc_auc_score

    area = float(roc_auc_score(truth, probability))
    # Without the clip a detector that is certain and wrong would score infinity.
    given_to_truth = np.clip(np.where(truth, probability, 1 - probability), 1e-12, 1.0)
    return PopulationScores(
        backdoored,
        benign,
        auc_interval(area, backdoored, benign, confidence),
        normal_interval(-np.log(given_to_truth), math.inf, confidence),
        normal_interval((probability - truth) ** 2, 1.0, confidence),
    )


def _array(values: Any) -> NDArray[Any]:
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
