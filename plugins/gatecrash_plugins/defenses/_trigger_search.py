"""The search for the triggers of all classes from several starts, side by side; `_search_rules` says what it follows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gatecrash import Classifier, Evidence, NotApplicable
from gatecrash_plugins.defenses._search_rules import BoolArray, CostSchedule, FloatArray, SearchConfig, Standstill

IntArray = NDArray[np.int64]

BETAS = (0.5, 0.9)
"""Adam's momenta in the authors' code."""


@dataclass(frozen=True)
class Found:
    """What a search ended with, for S starts and K classes, on the CPU."""

    masks: Tensor
    """float [S, K, H, W] in [0, 1]."""
    patterns: Tensor
    """uint8 [S, K, C, H, W]."""
    rounds: IntArray
    """Rounds taken, [S, K]."""
    reached: BoolArray
    """Whether the trigger ever succeeded, [S, K]. If not, mask and pattern are the latest attempt, as in the authors' code."""


class TriggerSearch:
    """The optimisation of all classes from all starts, side by side: row s * K + k is class k from start s.

    An Adam step passes rows x images through the classifier together, and rows that have settled drop out. All rows see the same images,
    and what a row finds does not depend on the others: more searches only add to fewer.
    """

    def __init__(self, classifier: Classifier, evidence: Evidence, config: SearchConfig) -> None:
        self._classifier, self._evidence, self._config = classifier, evidence, config
        self._clean = evidence.clean
        self._draws = evidence.stream("samples")
        self._classes = evidence.num_classes
        channels, height, width = evidence.shape
        start = evidence.stream("start")
        # One leaf per row: Adam passes over those without a gradient, so that a settled row keeps still at no cost.
        self._masks: list[Tensor] = []
        self._patterns: list[Tensor] = []
        for _ in range(config.searches):
            # Kept off the ends, where the inverse of tanh is infinite.
            mask = torch.empty(height, width).uniform_(0.01, 0.99, generator=start)
            pattern = torch.empty(channels, height, width).uniform_(0.01, 0.99, generator=start)
            self._masks += [_unsquash(mask).to(evidence.device).requires_grad_() for _ in range(self._classes)]
            self._patterns += [_unsquash(pattern).to(evidence.device).requires_grad_() for _ in range(self._classes)]
        self._optimizer = torch.optim.Adam([*self._masks, *self._patterns], lr=config.lr, betas=BETAS)

    def run(self) -> Found:
        """Raises NotApplicable if the classifier passes no gradient to its input."""
        config, count = self._config, len(self._masks)
        schedule, standstill = CostSchedule(config, count), Standstill(config, count)
        best = np.full(count, np.inf)
        rounds = np.zeros(count, dtype=int)
        best_masks, best_patterns = self._current()
        active = np.arange(count)
        while len(active) and rounds.max() < config.rounds:
            success, norm, masks, patterns = self._round(active, schedule.cost)
            rounds[active] += 1
            succeeded = np.zeros(count, dtype=bool)
            succeeded[active] = success >= config.success
            smaller = np.zeros(count, dtype=bool)
            smaller[active] = succeeded[active] & (norm < best[active])
            take = torch.from_numpy(smaller | (~np.isfinite(best) & ~succeeded)).to(masks.device)
            best_masks = torch.where(take[:, None, None], masks, best_masks)
            best_patterns = torch.where(take[:, None, None, None], patterns, best_patterns)
            best[active] = np.where(smaller[active], norm, best[active])
            standstill.update(best)
            done = standstill.settled & schedule.moved
            schedule.update(succeeded)
            active = active[~done[active]]
        patterns = (best_patterns * 255).round().to(torch.uint8)
        each = (config.searches, self._classes)
        return Found(
            best_masks.cpu().view(*each, *best_masks.shape[1:]),
            patterns.cpu().view(*each, *patterns.shape[1:]),
            rounds.reshape(each),
            np.isfinite(best).reshape(each),
        )

    def _current(self) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return _squash(torch.stack(self._masks)), _squash(torch.stack(self._patterns))

    def _round(self, active: IntArray, cost: FloatArray) -> tuple[FloatArray, FloatArray, Tensor, Tensor]:
        """One pass over `samples` images: mean success of the active rows and mean norm of their masks, float64 [active] both; and all
        masks and patterns as they were at the last batch (after its step they are unmeasured)."""
        device = self._evidence.device
        images, labels = self._clean.images, self._clean.labels
        order = torch.randperm(len(images), generator=self._draws)[: self._config.samples].to(device)
        costs = torch.from_numpy(cost[active]).float().to(device)
        hits, counted, norms = (torch.zeros(len(active), device=device) for _ in range(3))
        batches = torch.split(order, self._config.batch_size)
        for batch in batches:
            masks, patterns = self._current()
            step_hits, step_counted, step_norms = self._step(images[batch], labels[batch], active.tolist(), costs)
            hits += step_hits
            counted += step_counted
            norms += step_norms
        success, norm = torch.stack([hits / counted.clamp_min(1), norms / len(batches)]).double().cpu().numpy()
        return success, norm, masks, patterns

    def _step(self, images: Tensor, labels: Tensor, rows: list[int], costs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One Adam step of these rows on one batch: hits, images that count, mask norms before it; float [rows]."""
        pixels = images.float() / 255
        # The losses of two rows have no variable in common, so each part's gradient can be taken on its own.
        at_once = max(1, self._images_at_once(len(rows) * len(images)) // len(images))
        hits, counted, norms = [], [], []
        self._optimizer.zero_grad(set_to_none=True)
        for start in range(0, len(rows), at_once):
            part = rows[start : start + at_once]
            mask = _squash(torch.stack([self._masks[row] for row in part]))
            pattern = _squash(torch.stack([self._patterns[row] for row in part]))
            stamped = torch.lerp(pixels, pattern[:, None], mask[:, None, None])
            goal = torch.tensor([row % self._classes for row in part], device=labels.device)[:, None].expand(-1, len(images))
            logits = self._logits(stamped.flatten(0, 1))
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

    def _logits(self, images: Tensor) -> Tensor:
        logits: Tensor = self._classifier(images).float()
        if not logits.requires_grad:
            raise NotApplicable(
                f"the classifier, a {type(self._classifier).__name__}, passes no gradient to its input, by which a trigger could be sought"
            )
        return logits

    def _images_at_once(self, wanted: int) -> int:
        """How many of `wanted` images the harness would pass through a network together on this device."""
        return len(next(self._evidence.batches(self._clean.images[:1].expand(wanted, -1, -1, -1))))


def _squash(free: Tensor) -> Tensor:
    """All reals -> (0, 1), by tanh."""
    return (free.tanh() + 1) / 2


def _unsquash(value: Tensor) -> Tensor:
    return (value * 2 - 1).atanh()
