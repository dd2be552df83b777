"""Spectral Signatures: poisoned rows stand out along the direction in which their class's features vary most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from gatecrash import Classifier, Defense, Evidence, Give, Need, Options, Outcome, Reference, hookimpl
from gatecrash_plugins.defenses._exclusion import without


class SpectralSignatures(Defense):
    """Removes from every class the rows with the highest outlier scores and retrains without them (Tran, Li and Madry 2018, algorithm 1).

    A row's score is ((R - mean) v)^2: its penultimate features, centred over its label's rows, along the top right singular vector v of
    these. From a class of n rows, the highest 1.5 eps n (rounded down) go. The paper's eps is a bound on the poisoned rows, which the
    defender must assume: here it is the largest share of a class that may be poison, and the default of 0.1 keeps the 85% of every class
    that the authors' code keeps. It looks at the target class alone, which a defender does not know.

    So the share of rows that is flagged is fixed beforehand: 15% of a clean training set are false alarms, and of an all-to-one attack on a
    tenth of ten classes, whose target class is half poison, most rows stay.

    `variant: published` scores features that were not centred, |R v|, as do the authors' code and BackdoorBench's: where the mean is large
    against the spread, this is the distance from zero and no outlier score. Scores of both variants agree with the authors' code to 1e-12
    on equal features (docs/measured/spectral-signatures.md). `suspicion` is the score, which is meant to be compared within a class.
    """

    name = "spectral-signatures"
    summary = "rows that stand out along their class's top singular vector are removed; retraining without them"
    reference = Reference("Tran, Li and Madry, Spectral Signatures in Backdoor Attacks", 2018, "https://arxiv.org/abs/1811.00636")
    needs = frozenset({Need.MODEL, Need.TRAINING_DATA, Need.FEATURES, Need.RETRAIN})
    gives = frozenset({Give.SUSPECTS, Give.CLASSIFIER})

    class Config(Options):
        """Defaults: the paper's, with the share of the authors' code."""

        eps: float = Field(
            0.1,
            gt=0,
            le=0.6,
            description="largest share of a class's rows that the defender takes for poison; 1.5 times as many are removed",
        )
        variant: Literal["corrected", "published"] = Field(
            "corrected", description="score of the centred features (the paper), or of features that were not centred (the public code)"
        )
        retrain: bool = Field(True, description="train a model without the suspects; else the victim is returned as it is")

    config: Config

    def defend(self, evidence: Evidence) -> Outcome:
        data, features, labels = evidence.training_data, evidence.features.cpu().double(), evidence.training_data.labels.cpu()
        suspects, suspicion = torch.zeros(len(data), dtype=torch.bool), torch.zeros(len(data), dtype=torch.float64)
        classes: list[dict[str, Any]] = []
        for label, name in enumerate(evidence.classes):
            rows = torch.nonzero(labels == label).flatten()
            if not len(rows):
                continue
            signature = sign(features[rows], centred=self.config.variant == "corrected")
            chosen = rows[highest(signature.scores, self.config.eps)]
            suspicion[rows] = signature.scores
            suspects[chosen] = True
            classes.append({"class": name, "rows": len(rows), "removed": len(chosen), "variance_along": signature.share})
        classifier: Classifier = evidence.classifier
        if self.config.retrain and bool(suspects.any()):
            classifier = evidence.train(without(data, suspects))
        return Outcome(classifier=classifier, suspects=suspects, suspicion=suspicion, tables={"classes": classes})


@dataclass(frozen=True)
class Signature:
    """A class's outlier scores, float64 [n], and the share of its variance that lies along the direction they are measured in."""

    scores: Tensor
    share: float


def sign(features: Tensor, *, centred: bool = True) -> Signature:
    """The squares of features float64 [n, F], centred or not, along the top right singular vector of the centred ones."""
    spread = features - features.mean(0)
    # The right singular vectors are the eigenvectors of M'M; where features outnumber rows, MM' is the smaller matrix and gives M v.
    wide = spread.shape[1] > spread.shape[0]
    values, vectors = torch.linalg.eigh(spread @ spread.T if wide else spread.T @ spread)
    top = torch.nn.functional.normalize(spread.T @ vectors[:, -1], dim=0) if wide else vectors[:, -1]
    return Signature(((spread if centred else features) @ top).square(), float(values[-1] / values.sum().clamp_min(1e-300)))


def highest(scores: Tensor, eps: float) -> Tensor:
    """int64: the positions of the highest 1.5 eps n of n scores, rounded down; of equal ones, those that come first."""
    # The tiny term undoes float error: 1.5 * 0.14 * 100 is 20.999999999999996 or so.
    return scores.argsort(descending=True, stable=True)[: int(1.5 * eps * len(scores) + 1e-9)]


@hookimpl
def register_defenses(register: Callable[[type[Defense]], None]) -> None:
    register(SpectralSignatures)
