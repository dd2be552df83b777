"""SPECTRE: poisoned rows stand out once a class's features are whitened by a covariance that they could not bend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from gatecrash import Classifier, Defense, Evidence, Give, Need, Options, Outcome, Reference, hookimpl
from gatecrash_plugins.defenses._exclusion import without
from gatecrash_plugins.defenses._robust_covariance import inverse_root, trusted


class Spectre(Defense):
    """Removes from one class the rows with the highest quantum entropy (QUE) scores of its robustly whitened features, and retrains.

    A class's features are projected on their first k principal components; their covariance is estimated from the rows that a filter for
    Gaussian rows trusts (at most 2 eps n are left out); features whitened by it have the covariance S, and a row x scores x' M x with
    M = exp(alpha (S - I) / (|S| - 1)): between its length (alpha 0) and its component along S's first vector. The highest 1.5 eps n (to
    the nearest number) are the class's candidates. Of ten values of k, squares from 1 to `dimensions`, and then of all classes, that one is
    taken whose candidates, left out, leave the largest tr(S M) / tr(M) of all `dimensions` components: the paper finds k and the target
    class so. Defaults: alpha, the failure probability of the filter and the constants are those of the authors' code.

    The authors' experiments are told how many rows of which class are poison; here the class is found and eps, its share, assumed: so one
    class always loses 1.5 eps n rows, and they are false alarms in a clean set. Public benchmarks remove as many from every class.
    Features are centred by the class's mean, as in the authors' code; the paper estimates the mean robustly, too. Components are at most a
    quarter of a class's rows: as many as rows whiten any row that was left out to a giant. S = I has no first vector, and M = I.
    Compared with a transcription of the authors' code, which is in another language (docs/measured/spectre.md).
    """

    name = "spectre"
    summary = "rows of one class that stand out once its features are robustly whitened are removed; retraining without them"
    reference = Reference(
        "Hayase, Kong, Somani and Oh, SPECTRE: Defending Against Backdoor Attacks Using Robust Statistics",
        2021,
        "https://arxiv.org/abs/2104.11315",
    )
    needs = frozenset({Need.MODEL, Need.TRAINING_DATA, Need.FEATURES, Need.RETRAIN})
    gives = frozenset({Give.SUSPECTS, Give.CLASSIFIER})

    class Config(Options):
        """Defaults: the authors' code; eps as in Spectral Signatures."""

        eps: float = Field(
            0.1, gt=0, le=0.4, description="share of the target class that the defender takes for poison; 1.5 times as much is removed"
        )
        dimensions: int = Field(100, ge=1, le=1000, description="principal components, at most; also at most a quarter of a class's rows")
        alpha: float = Field(4.0, ge=0, le=100, description="how much a row's score follows the first direction: 0 is its whitened length")
        failure: float = Field(0.1, gt=0, lt=1, description="probability that the filter may fail with, in its thresholds")
        retrain: bool = Field(True, description="train a model without the suspects; else the victim is returned as it is")

    config: Config

    def defend(self, evidence: Evidence) -> Outcome:
        data, features, labels = evidence.training_data, evidence.features.cpu().double(), evidence.training_data.labels.cpu()
        suspects, suspicion = torch.zeros(len(data), dtype=torch.bool), torch.zeros(len(data), dtype=torch.float64)
        found: dict[int, Candidates] = {}
        for label in range(evidence.num_classes):
            rows = torch.nonzero(labels == label).flatten()
            scores = components(features[rows], min(self.config.dimensions, len(rows) // 4))
            if scores is not None:
                found[label] = self.best(rows, scores)
        target = max(found, key=lambda label: found[label].entropy, default=None)
        classes: list[dict[str, Any]] = []
        for label, one in found.items():
            suspects[one.rows] = one.chosen & (label == target)
            # In [0, 1) for other rows, and 1 more for suspects: by the class's entropy, and by the row's place in its class.
            places = one.scores.argsort().argsort().double() / len(one.rows)
            suspicion[one.rows] = suspects[one.rows].double() + places * one.entropy / max(each.entropy for each in found.values())
            record = {"class": evidence.classes[label], "rows": len(one.rows), "components": one.components, "entropy": one.entropy}
            classes.append(record | {"removed": int(suspects[one.rows].sum())})
        classifier: Classifier = evidence.classifier
        if self.config.retrain and bool(suspects.any()):
            classifier = evidence.train(without(data, suspects))
        return Outcome(classifier=classifier, suspects=suspects, suspicion=suspicion, tables={"classes": classes})

    def best(self, rows: Tensor, scores: Tensor) -> Candidates:
        """The candidates of a class with principal components [n, D], for that number of components whose entropy is largest."""
        steps = torch.linspace(1, scores.shape[1] ** 0.5, 10, dtype=torch.float64).square().round().int().tolist()
        return max((self.candidates(rows, scores, k) for k in sorted(set(steps))), key=lambda one: one.entropy)

    def candidates(self, rows: Tensor, scores: Tensor, k: int) -> Candidates:
        planted, first = self.config.eps * len(scores), scores[:, :k]
        if k > 1:
            kept = trusted(first, self.config.eps, self.config.failure, round(2 * planted))
            first = first @ inverse_root(first[kept].T.cov(correction=0))
        que = quantum_scores(first, self.config.alpha)
        chosen = torch.zeros(len(rows), dtype=torch.bool)
        chosen[que.argsort(descending=True, stable=True)[: round(1.5 * planted)]] = True
        return Candidates(rows, que, chosen, k, entropy(scores, ~chosen, self.config.alpha))


@dataclass(frozen=True)
class Candidates:
    """One class, seen in so many `components`: `rows` int64 [n], their QUE scores float64 [n], and the highest of them, bool [n]."""

    rows: Tensor
    scores: Tensor
    chosen: Tensor
    components: int
    entropy: float


def components(features: Tensor, most: int) -> Tensor | None:
    """The first principal components of [n, F] that vary, at most so many; None if there is none."""
    if most < 1:
        return None
    left, sizes, _ = torch.linalg.svd(features - features.mean(0), full_matrices=False)
    real = sizes > sizes[0].clamp_min(1e-9 * float(features.abs().max())) * 1e-9
    return (left * sizes)[:, real][:, :most] if bool(real.any()) else None


def quantum_matrix(covariance: Tensor, alpha: float) -> Tensor:
    """exp(alpha (S - I) / (|S| - 1)) with the spectral norm, divided by its trace; the identity's, where S is the identity."""
    values, vectors = torch.linalg.eigh(covariance)
    excess = float(values[-1]) - 1
    exponents = alpha * (values - 1) / excess if abs(excess) > 1e-9 else torch.zeros_like(values)
    weights = (exponents - exponents.max()).exp()
    matrix: Tensor = vectors * (weights / weights.sum()) @ vectors.T
    return matrix


def quantum_scores(white: Tensor, alpha: float) -> Tensor:
    """x' M x for each row of [n, k], with M from the covariance of all rows."""
    return ((white @ quantum_matrix(covariance(white), alpha)) * white).sum(1)


def entropy(scores: Tensor, kept: Tensor, alpha: float) -> float:
    """tr(S M) of all rows [n, D], whitened by the covariance of those that are kept."""
    spread = covariance(scores @ inverse_root(covariance(scores[kept])))
    return float((spread * quantum_matrix(spread, alpha)).sum())


def covariance(rows: Tensor) -> Tensor:
    """Of [n, D], around the mean, divided by n - 1."""
    return rows.T.cov().reshape(rows.shape[1], rows.shape[1])


@hookimpl
def register_defenses(register: Callable[[type[Defense]], None]) -> None:
    register(Spectre)
