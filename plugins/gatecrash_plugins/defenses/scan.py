"""SCAn: the features of a poisoned class are a mixture of two groups, which those of a clean class are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from gatecrash import Classifier, Defense, Evidence, Give, Need, Options, Outcome, Reference, hookimpl
from gatecrash_plugins.defenses._exclusion import without
from gatecrash_plugins.defenses._indices import anomaly_indices


class Scan(Defense):
    """Splits every class in two, tests whether two groups describe it better than one, and removes one group of the classes that stand out.

    Features are r = mu + e: a class's mean mu ~ N(0, S_mu), and e ~ N(0, S_e), the same for all classes. Both covariances are fitted to
    the clean hold-out by expectation and maximisation; the rows of each class are split by a linear discriminant with S_e; J is the log
    likelihood ratio of two groups against one, a row. A class is infected whose J lies more than `threshold` standard deviations above the
    median of all classes, by the median absolute deviation (section 5).

    From the authors' code: the start (a random half), the ends (`tolerance`, `iterations`), and J divided by the rows of its class, so that
    a large class does not stand out by its size. What it leaves open: which group is poison. Here it is the one whose mean is farther from
    the clean rows' mean of its class, in the metric of S_e; the smaller group (`group: smaller`) is wrong where poison is the majority.

    Two repairs, which `variant: published` undoes. The mean of one group is S_mu (n S_mu + S_e)^-1 times the sum of its n rows, as in the
    fit; the authors' code writes S_e for S_mu there, which draws it towards 0, so that J grows with a class's distance from the others. And
    an index counts only above the median, where the authors' code takes its absolute value: a class that splits unusually badly is not
    infected. The start is seeded.

    The hold-out must be large: directions in which it does not vary are left out of the metric, and those in which it varies little weigh
    much. Validated against the authors' code on equal features (docs/measured/scan.md).
    """

    name = "scan"
    summary = "splits each class in two by features; classes that two groups describe far better than one lose a group; retraining"
    reference = Reference(
        "Tang, Wang, Tang and Zhang, Demon in the Variant: Statistical Analysis of DNNs for Robust Backdoor Contamination Detection",
        2021,
        "https://arxiv.org/abs/1908.00686",
    )
    needs = frozenset({Need.MODEL, Need.CLEAN_DATA, Need.TRAINING_DATA, Need.FEATURES, Need.RETRAIN})
    gives = frozenset({Give.SUSPECTS, Give.CLASSIFIER})

    class Config(Options):
        """Defaults: the paper's threshold; the ends of the two iterations as in the authors' code."""

        threshold: float = Field(
            7.389,
            ge=0,
            le=1000,
            description="a class with an anomaly index above this is infected; e^2 in the paper, e in some public code",
        )
        group: Literal["far", "smaller"] = Field(
            "far", description="which group of an infected class is poison: the one farther from the class's clean rows, or the smaller one"
        )
        variant: Literal["corrected", "published"] = Field(
            "corrected", description="published: the mean of one group lacks a factor and indices are two-sided, as in the authors' code"
        )
        tolerance: float = Field(0.01, ge=0, le=1000, description="the fit ends when both covariances together change by less (Frobenius)")
        iterations: int = Field(100, ge=1, le=10_000, description="most iterations of the fit, and of each split")
        retrain: bool = Field(True, description="train a model without the suspects; else the victim is returned as it is")

    config: Config

    def defend(self, evidence: Evidence) -> Outcome:
        data, labels, published = evidence.training_data, evidence.training_data.labels.cpu(), self.config.variant == "published"
        with torch.inference_mode():
            clean = torch.cat([evidence.network.features(batch).float().cpu() for batch in evidence.batches(evidence.clean.images)])
        population = fit(clean.double(), evidence.clean.labels.cpu(), self.config.tolerance, self.config.iterations)
        features = population.project(evidence.features.cpu().double())
        centre = features.mean(0)
        splits = []
        for label in range(evidence.num_classes):
            rows = torch.nonzero(labels == label).flatten()
            if len(rows) > 1:
                start = torch.rand(len(rows), generator=evidence.stream(f"split-{label}")) >= 0.5
                splits.append(population.split(label, rows, features[rows], centre, start, self.config.iterations, published=published))
        suspects, suspicion = torch.zeros(len(data), dtype=torch.bool), torch.zeros(len(data), dtype=torch.float64)
        indices = anomaly_indices(torch.tensor([split.ratio for split in splits]).double(), two_sided=published).tolist()
        classes: list[dict[str, Any]] = []
        for split, index in zip(splits, indices, strict=True):
            swap = split.first_is_poison if self.config.group == "far" and split.first_is_poison is not None else split.first_is_smaller
            poison, side = (split.first, split.side) if swap else (~split.first, -split.side)
            infected = index > self.config.threshold
            suspects[split.rows] = poison & infected
            # In [0, 1) for other rows, and 1 more for suspects: by the class's index, and by where a row lies between the groups.
            weight = max(0.0, index) / (max(0.0, index) + max(self.config.threshold, 1e-9))
            suspicion[split.rows] = suspects[split.rows].double() + weight * (1 + side) / 2
            shares = {"class": evidence.classes[split.label], "rows": len(split.rows), "group": float(poison.double().mean())}
            classes.append(shares | {"ratio": split.ratio, "index": index, "infected": infected})
        classifier: Classifier = evidence.classifier
        if self.config.retrain and bool(suspects.any()):
            classifier = evidence.train(without(data, suspects))
        return Outcome(classifier=classifier, suspects=suspects, suspicion=suspicion, tables={"classes": classes})


@dataclass(frozen=True)
class Split:
    """One class: `rows` int64 [n] of the training set, those of the first of two groups, bool [n], and J divided by n.

    `side` float64 [n] in [-1, 1] is positive where a row is nearer to the first group's mean. `first_is_poison` is None where there are no
    clean rows of the class to tell.
    """

    label: int
    rows: Tensor
    first: Tensor
    ratio: float
    side: Tensor
    first_is_poison: bool | None

    @property
    def first_is_smaller(self) -> bool:
        return 2 * int(self.first.sum()) <= len(self.first)


@dataclass(frozen=True)
class Population:
    """What clean features are like: S_mu (`between`) and S_e (`within`), float64 [R, R], on the `basis` [F, R] of what varies at all.

    Outside it both covariances are zero, and so are their pseudo-inverses: nothing is lost but computation. `means` are those of the clean
    rows by class, on the basis and not centred.
    """

    basis: Tensor
    between: Tensor
    within: Tensor
    means: dict[int, Tensor]

    def project(self, features: Tensor) -> Tensor:
        return features @ self.basis

    def one_mean(self, rows: Tensor, *, published: bool = False) -> Tensor:
        """The mean [R] of a class of centred rows [n, R] that is one group: the likeliest one under N(0, S_mu) and N(mu, S_e)."""
        left = self.within if published else self.between
        mean: Tensor = left @ torch.linalg.pinv(len(rows) * self.between + self.within, hermitian=True) @ rows.sum(0)
        return mean

    def split(self, label: int, rows: Tensor, features: Tensor, centre: Tensor, start: Tensor, steps: int, *, published: bool) -> Split:
        """Split a class's features [n, R], from the groups of `start`, bool [n]; `centre` [R] is the mean of all rows of all classes."""
        half = square_root(torch.linalg.pinv(self.within, hermitian=True))
        white = (features - centre) @ half
        first, means = two_groups(white, start, steps)
        one = self.one_mean(features - centre, published=published) @ half
        distances = torch.stack([(white - mean).square().sum(1) for mean in means])
        own = torch.where(first, distances[0], distances[1])
        ratio = float(((white - one).square().sum(1) - own).mean())
        clean = self.means.get(label)
        far = None if clean is None else [float((mean - (clean - centre) @ half).square().sum()) for mean in means]
        side = (distances[1] - distances[0]) / distances.sum(0).clamp_min(1e-300)
        return Split(label, rows, first, ratio, side, None if far is None else far[0] > far[1])


def fit(features: Tensor, labels: Tensor, tolerance: float, iterations: int) -> Population:
    """S_mu and S_e of clean features float64 [N, F] with labels [N]."""
    spread = features - features.mean(0)
    _, lengths, directions = torch.linalg.svd(spread, full_matrices=False)
    basis = directions[lengths > lengths.max() * max(spread.shape) * torch.finfo(lengths.dtype).eps].T
    centred, sizes = spread @ basis, torch.bincount(labels)
    present = torch.nonzero(sizes).flatten()
    places, counts = torch.searchsorted(present, labels), sizes[present]
    sums = torch.zeros(len(present), basis.shape[1], dtype=features.dtype).index_add_(0, places, centred)
    means = sums / counts[:, None]
    between, within = covariance(means[places]), covariance(centred - means[places])
    for _ in range(iterations):
        before = between, within
        for count in set(counts.tolist()):  # classes of one size share an inverse
            inverse = torch.linalg.pinv(count * between + within, hermitian=True)
            means[counts == count] = sums[counts == count] @ inverse @ between
        between, within = covariance(means[places]), covariance(centred - means[places])
        if float((between - before[0]).norm() + (within - before[1]).norm()) <= tolerance:
            break
    plain = features @ basis
    return Population(basis, between, within, {int(label): plain[labels == label].mean(0) for label in present})


def two_groups(rows: Tensor, start: Tensor, steps: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The first of two groups as a mask, and both means: each row goes to the nearer mean until none moves."""
    first = start.clone()
    if bool(first.all()) or not bool(first.any()):
        first[0] = ~first[0]
    means = rows[first].mean(0), rows[~first].mean(0)
    for _ in range(steps):
        nearer = (rows - means[0]).square().sum(1) < (rows - means[1]).square().sum(1)
        if bool(nearer.all()) or not bool(nearer.any()) or bool((nearer == first).all()):
            break
        first, means = nearer, (rows[nearer].mean(0), rows[~nearer].mean(0))
    return first, means


def covariance(rows: Tensor) -> Tensor:
    """Of [N, R], around the rows' mean, divided by N - 1."""
    return rows.T.cov().reshape(rows.shape[1], rows.shape[1])


def square_root(matrix: Tensor) -> Tensor:
    """The symmetric root of a symmetric matrix without negative eigenvalues (those of rounding are taken for zero)."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = vectors * values.clamp_min(0).sqrt() @ vectors.T
    return root


@hookimpl
def register_defenses(register: Callable[[type[Defense]], None]) -> None:
    register(Scan)
