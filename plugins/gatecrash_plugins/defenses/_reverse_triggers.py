"""Reverse engineering of triggers, and the classes that are outliers by their size (Wang et al. 2019, section IV): what Neural Cleanse's
variants share.

For every class the smallest mask and pattern are sought that send images of all other classes to it. All classes are optimised side by
side: an Adam step passes classes x images through the classifier together, and classes that have settled drop out.

The paper (equation 3) minimises `CE(target, f((1 - m) x + m p)) + cost |m|_1` with a cost that adapts; how it adapts, when a class stops
and the constants are those of the authors' published code. Two things are ours: images of the target class itself take no part (they need
no trigger, and would count as successes), and all classes start from one random mask and pattern (so that norms differ by class and not by
the random start).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from gatecrash import Classifier, Evidence, ImageSet, Options, Stamp, Verdict

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

BETAS = (0.5, 0.9)
"""Adam's momenta in the authors' code."""
NORMAL = 1.4826
"""Median absolute deviation -> standard deviation of a normal distribution."""
LEAST_SPREAD = 1e-3
"""Norms that differ by less than this share of the median are equal: the optimisation is no more exact."""


class ReverseConfig(Options):
    """Options of the search for triggers and of the accusation."""

    rounds: int = Field(100, ge=1, le=100_000, description="rounds of the search at most; the cost adapts once a round")
    samples: int = Field(128, ge=1, le=1_000_000, description="hold-out images per round (all of a smaller hold-out)")
    batch_size: int = Field(32, ge=1, le=65_536, description="images per Adam step, for each class")
    lr: float = Field(0.1, gt=0, le=10, description="Adam's learning rate for mask and pattern")
    cost: float = Field(1e-3, gt=0, le=1e3, description="weight of the mask's L1 norm once the search has first succeeded")
    cost_factor: float = Field(1.5, gt=1, le=10, description="factor by which the cost grows; it shrinks by its power 1.5")
    success: float = Field(0.99, gt=0, le=1, description="share of images that a trigger must send to its class")
    patience: int = Field(5, ge=1, le=10_000, description="rounds of success (failure) in a row that raise (lower) the cost")
    stop_patience: int = Field(25, ge=1, le=10_000, description="rounds without a smaller mask after which a class is settled")
    stop_ratio: float = Field(0.99, gt=0, le=1, description="a mask is smaller if its norm is below this share of the best so far")
    anomaly: float = Field(2.0, gt=0, le=100, description="anomaly index above which a class is accused")


@dataclass(frozen=True)
class Reversed:
    """Reversed triggers of K classes, on the CPU."""

    masks: Tensor
    """float [K, H, W] in [0, 1]."""
    patterns: Tensor
    """uint8 [K, C, H, W]."""
    rounds: tuple[int, ...]
    """Rounds of search that each class took."""
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


class CostSchedule:
    """The weight of the mask's norm, one per class, after the authors' code.

    It is 0 until a class has succeeded in `patience` rounds in a row, then `cost`; every further `patience` successes multiply it by
    `cost_factor`, as many failures in a row divide it by `cost_factor ** 1.5`. `moved` tells the classes whose cost has been both
    raised and lowered: their search has bracketed the smallest mask that works.
    """

    def __init__(self, config: ReverseConfig, classes: int) -> None:
        self._config = config
        self.cost = np.zeros(classes)
        self._successes = np.zeros(classes, dtype=int)
        self._failures = np.zeros(classes, dtype=int)
        self._raised = np.zeros(classes, dtype=bool)
        self._lowered = np.zeros(classes, dtype=bool)

    @property
    def moved(self) -> BoolArray:
        return self._raised & self._lowered

    def update(self, succeeded: BoolArray) -> None:
        """Take note of a round: bool [K]."""
        config = self._config
        self._successes = np.where(succeeded, self._successes + 1, 0)
        self._failures = np.where(succeeded, 0, self._failures + 1)
        start = (self._successes >= config.patience) & (self.cost == 0)
        up = (self._successes >= config.patience) & (self.cost > 0)
        down = (self._failures >= config.patience) & (self.cost > 0)
        self.cost[start] = config.cost
        self.cost[up] *= config.cost_factor
        self.cost[down] /= config.cost_factor**1.5
        self._raised |= up
        self._lowered |= down
        self._successes[start | up] = 0
        self._failures[self._failures >= config.patience] = 0


def reverse_triggers(classifier: Classifier, evidence: Evidence, config: ReverseConfig) -> Reversed:
    """Search a trigger for every class on the clean hold-out.

    `classifier` is used in eval mode and must be differentiable by its input; its parameters should not require gradients. A class is
    accused if its index exceeds `config.anomaly` and its trigger reached `config.success` in some round.
    """
    search = _Search(classifier, evidence, config)
    masks, patterns, rounds, reached = search.run()
    success = trigger_success(classifier, evidence, masks, patterns)
    indices = anomaly_indices([float(norm) for norm in masks.double().sum((1, 2))])
    accused = [label for label in np.argsort(-indices, kind="stable").tolist() if indices[label] > config.anomaly and reached[label]]
    return Reversed(masks, patterns, tuple(rounds.tolist()), tuple(success), tuple(accused))


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


class _Search:
    """The optimisation of all classes."""

    def __init__(self, classifier: Classifier, evidence: Evidence, config: ReverseConfig) -> None:
        self._classifier, self._evidence, self._config = classifier, evidence, config
        self._clean = evidence.clean
        self._draws = evidence.stream("samples")
        channels, height, width = evidence.shape
        count = evidence.num_classes
        start = evidence.stream("start")
        # Kept off the ends, where the inverse of tanh is infinite.
        mask = torch.empty(height, width).uniform_(0.01, 0.99, generator=start)
        pattern = torch.empty(channels, height, width).uniform_(0.01, 0.99, generator=start)
        # One leaf per class: Adam passes over those without a gradient, so that a settled class keeps still at no cost.
        self._masks = [_unsquash(mask).to(evidence.device).requires_grad_() for _ in range(count)]
        self._patterns = [_unsquash(pattern).to(evidence.device).requires_grad_() for _ in range(count)]
        self._optimizer = torch.optim.Adam([*self._masks, *self._patterns], lr=config.lr, betas=BETAS)

    def run(self) -> tuple[Tensor, Tensor, IntArray, BoolArray]:
        """Best masks float [K, H, W] and patterns uint8 [K, C, H, W]; rounds taken int [K]; whether it ever succeeded bool [K]."""
        config, count = self._config, len(self._masks)
        schedule = CostSchedule(config, count)
        best_norm = np.full(count, np.inf)
        stall_norm = np.full(count, np.inf)
        stalled = np.zeros(count, dtype=int)
        rounds = np.zeros(count, dtype=int)
        best_masks, best_patterns = self._current()
        active = np.arange(count)
        while len(active) and rounds.max() < config.rounds:
            success, norm, masks, patterns = self._round(active, schedule.cost)
            rounds[active] += 1
            succeeded = np.zeros(count, dtype=bool)
            succeeded[active] = success >= config.success
            smaller = np.zeros(count, dtype=bool)
            smaller[active] = succeeded[active] & (norm < best_norm[active])
            never = ~np.isfinite(best_norm) & ~succeeded
            # A class that never succeeded shows its latest attempt, as in the authors' code.
            take = torch.from_numpy(smaller | never).to(masks.device)
            best_masks = torch.where(take[:, None, None], masks, best_masks)
            best_patterns = torch.where(take[:, None, None, None], patterns, best_patterns)
            best_norm[active] = np.where(smaller[active], norm, best_norm[active])
            found = np.isfinite(best_norm)
            improved = best_norm < config.stop_ratio * stall_norm
            stalled = np.where(improved | ~found, 0, stalled + 1)
            stall_norm = np.where(improved, best_norm, stall_norm)
            schedule.update(succeeded)
            active = active[~((stalled >= config.stop_patience) & schedule.moved)[active]]
        patterns = (best_patterns * 255).round().to(torch.uint8)
        return best_masks.cpu(), patterns.cpu(), rounds, np.isfinite(best_norm)

    def _current(self) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return _squash(torch.stack(self._masks)), _squash(torch.stack(self._patterns))

    def _round(self, active: IntArray, cost: FloatArray) -> tuple[FloatArray, FloatArray, Tensor, Tensor]:
        """One pass over `samples` images: mean success of the active classes and mean norm of their masks, float64 [active] both; and all
        masks and patterns as they were at the last batch (after its step they are unmeasured)."""
        device = self._evidence.device
        images, labels = self._clean.images, self._clean.labels
        rows = torch.randperm(len(images), generator=self._draws)[: self._config.samples].to(device)
        targets = active.tolist()
        costs = torch.from_numpy(cost[active]).float().to(device)
        hits, counted, norms = (torch.zeros(len(active), device=device) for _ in range(3))
        batches = torch.split(rows, self._config.batch_size)
        for batch in batches:
            masks, patterns = self._current()
            step_hits, step_counted, step_norms = self._step(images[batch], labels[batch], targets, costs)
            hits += step_hits
            counted += step_counted
            norms += step_norms
        success, norm = torch.stack([hits / counted.clamp_min(1), norms / len(batches)]).double().cpu().numpy()
        return success, norm, masks, patterns

    def _step(self, images: Tensor, labels: Tensor, targets: list[int], costs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One Adam step of the target classes on one batch: hits, images that count, mask norms before it; float [targets]."""
        pixels = images.float() / 255
        # The losses of two classes have no variable in common, so each part's gradient can be taken on its own.
        at_once = max(1, self._images_at_once(len(targets) * len(images)) // len(images))
        hits, counted, norms = [], [], []
        self._optimizer.zero_grad(set_to_none=True)
        for start in range(0, len(targets), at_once):
            part = targets[start : start + at_once]
            mask = _squash(torch.stack([self._masks[label] for label in part]))
            pattern = _squash(torch.stack([self._patterns[label] for label in part]))
            stamped = torch.lerp(pixels, pattern[:, None], mask[:, None, None])
            goal = torch.tensor(part, device=labels.device)[:, None].expand(-1, len(images))
            logits = self._classifier(stamped.flatten(0, 1)).float()
            counts = (labels != goal).float()
            share = counts.sum(1).clamp_min(1)
            misses = F.cross_entropy(logits, goal.flatten(), reduction="none").view_as(counts)
            norm = mask.sum((1, 2))
            loss = (misses * counts).sum(1) / share + costs[start : start + at_once] * norm
            loss.sum().backward()  # type: ignore[no-untyped-call]
            hits.append(((logits.argmax(1).view_as(counts) == goal) * counts).sum(1))
            counted.append(counts.sum(1))
            norms.append(norm.detach())
        self._optimizer.step()
        return torch.cat(hits), torch.cat(counted), torch.cat(norms)

    def _images_at_once(self, wanted: int) -> int:
        """How many of `wanted` images the harness would pass through a network together on this device."""
        return len(next(self._evidence.batches(self._clean.images[:1].expand(wanted, -1, -1, -1))))


def _squash(free: Tensor) -> Tensor:
    """All reals -> (0, 1), by tanh."""
    return (free.tanh() + 1) / 2


def _unsquash(value: Tensor) -> Tensor:
    return (value * 2 - 1).atanh()
