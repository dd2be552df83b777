"""Beatrix: a trigger changes how channels go together, which Gram matrices of high order show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from gatecrash import Classifier, Defense, Evidence, Give, Need, NotApplicable, Options, Outcome, Reference, hookimpl
from gatecrash_plugins.defenses._exclusion import without
from gatecrash_plugins.defenses._indices import anomaly_indices

_TINY = 1e-6
"""Added to a bound before a deviation is divided by it, as in the authors' code."""
_CHANCE = 1.0
"""The least median absolute deviation over classes."""
_PUBLISHED_SPREAD = 1e-6
"""The same in the authors' code, which adds it."""
_KERNEL_ROWS = 1000
"""The class test compares all pairs: a larger group is represented by so many random rows."""


class Beatrix(Defense):
    """Removes rows whose Gram matrices leave the bounds of their class's clean rows, in classes where these rows are a group of their own.

    The activation F [C, H x W] of an inner layer gives, for each order p, the upper triangle of G_p = (F^p F^pT)^(1/p) (powers and
    roots by element, a negative sum keeps its sign). The clean rows of a class bound every entry by median +- `width` MAD; what is
    outside, as a share of the bound and averaged over entries and orders, is a row's deviation. A class's threshold is the `quantile` of
    the deviations of its clean rows, each fifth of them against the bounds of the others. In every class, rows above and below the
    threshold are compared by the kernel maximum mean discrepancy of their channels' means; a class whose discrepancy has an anomaly index
    (by the median absolute deviation over classes) above `threshold` is infected, and loses its rows above the threshold.

    From the authors' code: orders 1 to 8, 30 clean rows a class, medians (the lower of two middle values), the two kernel widths (half the
    median square distance, and all of it), the layer (what goes into the last stage). Differences: deviations are means over the
    C (C + 1) / 2 entries, where the authors divide by C^2 / 2, and thresholds with them; of a group, at most 1,000 rows are compared; a
    class with fewer than five clean rows has no threshold and is left alone.

    Two repairs, which `variant: published` undoes. Where most classes have no row above their threshold, their discrepancies are 0, and so
    is the MAD: the authors add 1e-6 to it, so that one outlier accuses any other class. Here the MAD is at least 1, since two groups of one
    distribution have a discrepancy between 0 and 2 by chance (the kernels' sum at no distance). And an index counts above the median only,
    where the authors take its absolute value. A public benchmark, beside, leaves out the power of F, which makes all orders one matrix.
    The bound on the MAD costs sensitivity to groups of a few rows, whose discrepancy is small however far they lie. Validated against the
    authors' code on equal activations (docs/measured/beatrix.md).
    """

    name = "beatrix"
    summary = "rows whose Gram matrices leave the bounds of clean rows are removed from classes where they form a group; retraining"
    reference = Reference(
        "Ma et al., The Beatrix Resurrections: Robust Backdoor Detection via Gram Matrices", 2023, "https://arxiv.org/abs/2209.11715"
    )
    needs = frozenset({Need.MODEL, Need.CLEAN_DATA, Need.TRAINING_DATA, Need.RETRAIN})
    gives = frozenset({Give.SUSPECTS, Give.CLASSIFIER})
    deviations = {"reads-what-it-needs": "it trains anew only where it suspects rows"}

    class Config(Options):
        """Defaults: the paper's, and where it is silent the authors' code."""

        orders: int = Field(8, ge=1, le=32, description="Gram matrices of orders 1 to this")
        per_class: int = Field(30, ge=5, le=100_000, description="clean rows of a class that bound its entries, at most")
        width: float = Field(10.0, gt=0, le=1000, description="bounds: the median plus and minus so many median absolute deviations")
        quantile: float = Field(0.95, gt=0, lt=1, description="share of a class's clean rows with a deviation up to the threshold")
        threshold: float = Field(7.389, ge=0, le=1000, description="a class with an anomaly index above this is infected (e^2)")
        variant: Literal["corrected", "published"] = Field(
            "corrected", description="published: the MAD over classes has no bound, and indices are two-sided, as in the authors' code"
        )
        point: str | None = Field(
            None, min_length=1, max_length=200, description="the network's point whose maps are taken; null: the last stage but one"
        )
        retrain: bool = Field(True, description="train a model without the suspects; else the victim is returned as it is")

    config: Config

    def defend(self, evidence: Evidence) -> Outcome:
        data = evidence.training_data
        inspected = [found for label in range(evidence.num_classes) if (found := self.inspect(label, evidence)) is not None]
        suspects, suspicion = torch.zeros(len(data), dtype=torch.bool), torch.zeros(len(data), dtype=torch.float64)
        discrepancies = torch.tensor([one.discrepancy for one in inspected]).double()
        published = self.config.variant == "published"
        least = _PUBLISHED_SPREAD if published else _CHANCE
        indices = anomaly_indices(discrepancies, two_sided=published, least=least).tolist() if inspected else []
        classes: list[dict[str, Any]] = []
        for one, index in zip(inspected, indices, strict=True):
            infected = index > self.config.threshold
            suspects[one.rows] = one.outside & infected
            # In [0, 1) for other rows, and 1 more for suspects: by the class's index, and by the row's deviation.
            weight = max(0.0, index) / (max(0.0, index) + max(self.config.threshold, 1e-9))
            ranks = one.deviations / (one.deviations + max(one.threshold, 1e-9))
            suspicion[one.rows] = suspects[one.rows].double() + weight * ranks
            share = {"class": evidence.classes[one.label], "rows": len(one.rows), "group": float(one.outside.double().mean())}
            classes.append(share | {"threshold": one.threshold, "discrepancy": one.discrepancy, "index": index, "infected": infected})
        classifier: Classifier = evidence.classifier
        if self.config.retrain and bool(suspects.any()):
            classifier = evidence.train(without(data, suspects))
        return Outcome(classifier=classifier, suspects=suspects, suspicion=suspicion, tables={"classes": classes})

    def inspect(self, label: int, evidence: Evidence) -> Inspected | None:
        """One class, or None where it has fewer than five clean rows or no row to inspect."""
        clean, data = evidence.clean, evidence.training_data
        known, rows = (torch.nonzero(labels == label).flatten() for labels in (clean.labels, data.labels))
        if len(known) < 5 or not len(rows):
            return None
        bounding = torch.cat([self.grams(maps) for maps in self.maps(clean.images[known[: self.config.per_class]], evidence)])
        bounds = bound(bounding, self.config.width)
        threshold = cross_threshold(bounding, self.config.width, self.config.quantile)
        deviations, means = [], []
        for maps in self.maps(data.images[rows], evidence):
            deviations.append(deviation(self.grams(maps), bounds))
            means.append(maps.mean(2))
        found, flat = torch.cat(deviations).cpu(), torch.cat(means)
        outside = found > threshold
        groups = [some(flat[side.to(flat.device)], evidence.stream(f"rows-{label}")) for side in (~outside, outside)]
        return Inspected(label, rows.cpu(), found, outside, threshold, discrepancy(*groups))

    def maps(self, images: Tensor, evidence: Evidence) -> Iterator[Tensor]:
        """The activation of some images at the chosen point, float64 [n, C, H x W], in batches."""
        network = evidence.network
        stages = network.stages or tuple(network.points)[-1:]
        point = self.config.point or stages[-2 if len(stages) > 1 else -1]
        if point not in network.points:
            raise NotApplicable(f"the network has no point {point!r}; it has {', '.join(network.points)}")
        for batch in evidence.batches(images, size=64):
            with torch.no_grad():
                yield network.activations(batch, [point])[point].double().flatten(2)

    def grams(self, maps: Tensor) -> Tensor:
        return gram_features(maps, self.config.orders)


@dataclass(frozen=True)
class Inspected:
    """One class: `rows` int64 [n] of the training set, their deviations float64 [n], and which are above the threshold, bool [n]."""

    label: int
    rows: Tensor
    deviations: Tensor
    outside: Tensor
    threshold: float
    discrepancy: float


def gram_features(maps: Tensor, orders: int) -> Tensor:
    """The upper triangle of (F^p F^pT)^(1/p) for p = 1 to `orders`, of maps F [N, C, D]: [N, orders, C (C + 1) / 2]."""
    rows, columns = torch.triu_indices(maps.shape[1], maps.shape[1], device=maps.device)
    features = []
    for order in range(1, orders + 1):
        powers = maps**order
        products = (powers @ powers.mT)[:, rows, columns]
        features.append(products.sign() * products.abs() ** (1 / order))
    return torch.stack(features, 1)


def bound(grams: Tensor, width: float) -> tuple[Tensor, Tensor]:
    """The lower and the upper bound of each entry: its median over the rows, minus and plus `width` median absolute deviations."""
    median = grams.median(0).values
    spread = width * (grams - median).abs().median(0).values
    return median - spread, median + spread


def deviation(grams: Tensor, bounds: tuple[Tensor, Tensor]) -> Tensor:
    """How far rows [N, P, E] lie outside the bounds [P, E], relative to these; mean over orders and entries, [N]."""
    low, high = bounds
    below, above = (low - grams).clamp_min(0) / (low.abs() + _TINY), (grams - high).clamp_min(0) / (high.abs() + _TINY)
    return (below + above).mean((1, 2))


def cross_threshold(grams: Tensor, width: float, quantile: float) -> float:
    """The quantile of clean rows' deviations, each fifth of the rows (rounded down) against the bounds of all others."""
    size, found = len(grams) // 5, []
    for fold in range(5):
        tested = torch.zeros(len(grams), dtype=torch.bool, device=grams.device)
        tested[fold * size : (fold + 1) * size] = True
        found.append(deviation(grams[tested], bound(grams[~tested], width)))
    ordered = torch.cat(found).sort().values
    return float(ordered[int(len(ordered) * quantile)])


def discrepancy(first: Tensor, second: Tensor) -> float:
    """Kernel maximum mean discrepancy of rows [n, C] and [m, C], times n m / (n + m); 0 where a group is empty.

    Two Gaussian kernels exp(-square distance / width) are added, of half the median of all square distances and of the whole.
    """
    n, m = len(first), len(second)
    if not n or not m:
        return 0.0
    both = torch.cat([first, second])
    squares = torch.cdist(both, both, compute_mode="donot_use_mm_for_euclid_dist").square()
    width = squares.median().clamp_min(1e-300)
    kernel = (-2 * squares / width).exp() + (-squares / width).exp()
    return float((kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()) * n * m / (n + m))


def some(rows: Tensor, generator: torch.Generator) -> Tensor:
    """The rows, or so many random ones as the class test compares."""
    if len(rows) <= _KERNEL_ROWS:
        return rows
    return rows[torch.randperm(len(rows), generator=generator)[:_KERNEL_ROWS].to(rows.device)]


@hookimpl
def register_defenses(register: Callable[[type[Defense]], None]) -> None:
    register(Beatrix)
