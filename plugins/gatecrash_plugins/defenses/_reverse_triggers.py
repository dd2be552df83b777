"""Reversed triggers, and the classes that are outliers by their size (Wang et al. 2019, section IV): what Neural Cleanse's variants share.

`_trigger_search` seeks them; `_search_rules` says what of the search is the paper's, the authors' code's and ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from gatecrash import Classifier, Evidence, ImageSet, Stamp, Verdict
from gatecrash_plugins.defenses._search_rules import BoolArray, FloatArray, SearchConfig
from gatecrash_plugins.defenses._trigger_search import Found, TriggerSearch

NORMAL = 1.4826
"""Median absolute deviation -> standard deviation of a normal distribution."""
LEAST_SPREAD = 1e-3
"""Ours: norms that differ by less than this share of the median are equal, because the optimisation is no more exact."""


class ReverseConfig(SearchConfig):
    """Options of the search for triggers and of the accusation."""

    anomaly: float = Field(2.0, gt=0, le=100, description="anomaly index above which a class is accused")


@dataclass(frozen=True)
class Reversed:
    """Reversed triggers of K classes, on the CPU."""

    masks: Tensor
    """float [K, H, W] in [0, 1]."""
    patterns: Tensor
    """uint8 [K, C, H, W]."""
    rounds: tuple[int, ...]
    """Rounds that each class took, all its searches together."""
    success: tuple[float, ...]
    """Share of the hold-out's other images that the trigger, stamped in 8 bits, sends to each class."""
    accused: tuple[int, ...]
    """Classes whose mask is abnormally small, the smallest first."""

    @property
    def norms(self) -> list[float]:
        """L1 norm of each mask, in pixels."""
        return [float(norm) for norm in self.masks.double().sum((1, 2))]

    @property
    def indices(self) -> list[float]:
        """Anomaly index of each class."""
        return [float(index) for index in anomaly_indices(self.norms)]

    def trigger(self, label: int) -> Stamp:
        """The reversed trigger of a class, as an attacker would have stamped it."""
        channels, height, width = self.patterns.shape[1:]
        return Stamp((channels, height, width), 1.0, self.patterns[label], self.masks[label])

    def verdict(self) -> Verdict:
        """No probability: the index is a distance, and the paper gives no model for it."""
        return Verdict(bool(self.accused), None, self.accused, dict(enumerate(self.indices)))

    def figures(self) -> dict[str, Tensor]:
        """`mask-<class>` uint8 [1, H, W] and `pattern-<class>` uint8 [C, H, W]."""
        masks = (self.masks * 255).round().to(torch.uint8)
        return {f"mask-{label}": mask[None] for label, mask in enumerate(masks)} | {
            f"pattern-{label}": pattern for label, pattern in enumerate(self.patterns)
        }

    def table(self, classes: Sequence[str]) -> list[dict[str, object]]:
        """One record per class."""
        columns = zip(classes, self.norms, self.success, self.indices, self.rounds, strict=True)
        return [
            {
                "class": label,
                "name": name,
                "norm": norm,
                "success_rate": success,
                "anomaly_index": index,
                "rounds": rounds,
                "accused": label in self.accused,
            }
            for label, (name, norm, success, index, rounds) in enumerate(columns)
        ]


def anomaly_indices(norms: Sequence[float]) -> FloatArray:
    """`(median - norm) / (1.4826 MAD)` for each norm, float64 [K]: positive where a mask is smaller than usual (section IV-B).

    The paper's index is the absolute value; only small masks can be accused, so the sign is kept. The MAD is taken as no less than a
    thousandth of the median, which keeps the index finite where more than half of the norms are equal.
    """
    values = np.asarray(norms, dtype=np.float64)
    median = np.median(values)
    spread = max(NORMAL * float(np.median(np.abs(values - median))), LEAST_SPREAD * float(median))
    return (median - values) / spread if spread > 0 else np.zeros_like(values)


def reverse_triggers(classifier: Classifier, evidence: Evidence, config: ReverseConfig) -> Reversed:
    """Search a trigger for every class on the clean hold-out; of each class's searches the smallest mask that works counts.

    `classifier` is used in eval mode and must be differentiable by its input; its parameters should not require gradients. A class is
    accused if its index exceeds `config.anomaly` and its trigger reached `config.success` in some round.
    """
    found = TriggerSearch(classifier, evidence, config).run()
    best = smallest(found)
    each = torch.arange(evidence.num_classes)
    masks, patterns = found.masks[best, each], found.patterns[best, each]
    success = trigger_success(classifier, evidence, masks, patterns)
    indices = anomaly_indices([float(norm) for norm in masks.double().sum((1, 2))])
    worked: BoolArray = np.logical_or.reduce(found.reached)
    accused = [label for label in np.argsort(-indices, kind="stable").tolist() if indices[label] > config.anomaly and worked[label]]
    return Reversed(masks, patterns, tuple(found.rounds.sum(0).tolist()), tuple(success), tuple(accused))


def smallest(found: Found) -> Tensor:
    """For each class the search, int64 [K], that ended with the smallest mask; of those that worked, if any did."""
    norms = found.masks.double().sum((2, 3)).numpy()
    counts = found.reached | ~found.reached.any(0)
    return torch.from_numpy(np.where(counts, norms, np.inf).argmin(0))


def trigger_success(classifier: Classifier, evidence: Evidence, masks: Tensor, patterns: Tensor) -> list[float]:
    """Share of the hold-out's images of other classes that each class's trigger sends there.

    `masks` float [K, H, W] in [0, 1], `patterns` uint8 [K, C, H, W].
    """
    channels, height, width = evidence.shape
    shares = []
    for label, (mask, pattern) in enumerate(zip(masks, patterns, strict=True)):
        stamp = Stamp((channels, height, width), 1.0, pattern, mask)
        shares.append(attack_success(classifier, evidence, stamp, label))
    return shares


def others(clean: ImageSet, label: int) -> Tensor:
    """uint8 [n, C, H, W]: images of all classes but one."""
    return clean.images[clean.labels != label]


def attack_success(classifier: Classifier, evidence: Evidence, stamp: Stamp, label: int) -> float:
    """Share of the hold-out's images of other classes that `classifier` takes for `label` under `stamp`; 0 if there are none."""
    images = others(evidence.clean, label)
    stamp = stamp.to(evidence.device)
    with torch.no_grad():
        hits = [classifier(stamp(batch)).argmax(1) == label for batch in evidence.batches(images)]
    return float(torch.cat(hits).double().mean()) if hits else 0.0
