"""The search for the triggers of all classes from several starts, side by side; `_search_rules` says what it follows."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gatecrash import Classifier, Evidence, Network, NotApplicable
from gatecrash_plugins.defenses._search_rules import BoolArray, CostSchedule, FloatArray, SearchConfig, Standstill, trailing

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

    An Adam step passes rows x images through the classifier together. Rows that have settled drop out, and after `trial` rounds, if given,
    those that trail another search of their class. All rows see the same images, and what a row finds does not depend on the others.
    """

    def __init__(self, classifier: Classifier, evidence: Evidence, config: SearchConfig) -> None:
        self._classifier, self._evidence, self._config = classifier, evidence, config
        self._clean = evidence.clean
        self._draws = evidence.stream("samples")
        self._classes = evidence.num_classes
        channels, height, width = evidence.shape
        start = evidence.stream("start")
        starts = []
        for _ in range(config.searches):
            # Kept off the ends, where the inverse of tanh is infinite.
            mask = torch.empty(1, height, width).uniform_(0.01, 0.99, generator=start)
            pattern = torch.empty(channels, height, width).uniform_(0.01, 0.99, generator=start)
            starts.append(torch.cat([mask, pattern]).expand(self._classes, -1, -1, -1))
        self._free = _unsquash(torch.cat(starts)).to(evidence.device).requires_grad_()
        """float [rows, 1 + C, H, W]: mask and pattern of each row before tanh."""
        # One tensor for all: rows that have dropped out drift on with their momentum, and are not read any more.
        self._optimizer = torch.optim.Adam([self._free], lr=config.lr, betas=BETAS)

    def run(self) -> Found:
        """Raises NotApplicable if the classifier passes no gradient to its input."""
        config, count, each = self._config, len(self._free), (self._config.searches, self._classes)
        schedule, standstill = CostSchedule(config, count), Standstill(config, count)
        best = np.full(count, np.inf)
        rounds = np.zeros(count, dtype=int)
        kept = _squash(self._free.detach())
        active = np.arange(count)
        while len(active) and rounds.max() < config.rounds:
            success, norm, triggers = self._round(active, schedule.cost[active])
            rounds[active] += 1
            succeeded = np.zeros(count, dtype=bool)
            succeeded[active] = success >= config.success
            smaller = succeeded[active] & (norm < best[active])
            take = smaller | (~np.isfinite(best[active]) & ~succeeded[active])
            kept[torch.from_numpy(active[take]).to(kept.device)] = triggers[torch.from_numpy(take).to(kept.device)]
            best[active] = np.where(smaller, norm, best[active])
            standstill.update(best)
            done = standstill.settled & schedule.moved
            schedule.update(succeeded)
            if config.trial is not None and rounds.max() == config.trial:
                done |= trailing(best.reshape(each)).flatten()
            active = active[~done[active]]
        masks, patterns = kept[:, 0].cpu(), (kept[:, 1:] * 255).round().to(torch.uint8).cpu()
        return Found(
            masks.view(*each, *masks.shape[1:]),
            patterns.view(*each, *patterns.shape[1:]),
            rounds.reshape(each),
            np.isfinite(best).reshape(each),
        )

    def _round(self, active: IntArray, cost: FloatArray) -> tuple[FloatArray, FloatArray, Tensor]:
        """One pass over `samples` images: mean success of the active rows and mean norm of their masks, float64 [active] both; and their
        masks and patterns, float [active, 1 + C, H, W], as they were at the last batch (after its step they are unmeasured)."""
        device = self._evidence.device
        images, labels = self._clean.images, self._clean.labels
        order = torch.randperm(len(images), generator=self._draws)[: self._config.samples].to(device)
        rows, costs = torch.from_numpy(active).to(device), torch.from_numpy(cost).float().to(device)
        hits, counted, norms = (torch.zeros(len(active), device=device) for _ in range(3))
        batches = torch.split(order, self._config.batch_size)
        for batch in batches:
            triggers, step_hits, step_counted = self._step(images[batch], labels[batch], rows, costs)
            hits += step_hits
            counted += step_counted
            norms += triggers[:, 0].sum((1, 2))
        success, norm = torch.stack([hits / counted.clamp_min(1), norms / len(batches)]).double().cpu().numpy()
        return success, norm, triggers

    def _step(self, images: Tensor, labels: Tensor, rows: Tensor, costs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One Adam step of these rows on one batch: masks and patterns before it, float [rows, 1 + C, H, W]; hits and images that count,
        float [rows]."""
        pixels = images.float() / 255
        squashed = _squash(self._free[rows])
        triggers, gradients = squashed.detach(), torch.empty_like(squashed)
        goals = rows % self._classes
        counts = (labels != goals[:, None]).float()
        shares = counts / counts.sum(1, keepdim=True).clamp_min(1)
        hits = torch.zeros_like(costs)
        # The losses of two rows have no variable in common, so each part's gradient can be taken on its own.
        at_once = max(1, self._images_at_once(len(rows) * len(images)) // len(images))
        for start in range(0, len(rows), at_once):
            place = slice(start, start + at_once)
            trigger = triggers[place].requires_grad_()
            mask, pattern = trigger[:, :1], trigger[:, 1:]
            logits = self._logits(torch.lerp(pixels, pattern[:, None], mask[:, None]).flatten(0, 1))
            goal = goals[place, None].expand(-1, len(images))
            misses = F.cross_entropy(logits, goal.flatten(), reduction="none").view_as(goal)
            loss = (misses * shares[place]).sum() + costs[place] @ mask.sum((1, 2, 3))
            (gradients[place],) = torch.autograd.grad(loss, trigger)
            hits[place] = ((logits.detach().argmax(1).view_as(goal) == goal) * counts[place]).sum(1)
        self._optimizer.zero_grad()
        squashed.backward(gradients)  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return triggers, hits, counts.sum(1)

    def _logits(self, images: Tensor) -> Tensor:
        with self._evidence.autocast() if isinstance(self._classifier, Network) else nullcontext():
            logits: Tensor = self._classifier(images)
        if not logits.requires_grad:
            raise NotApplicable(
                f"the classifier, a {type(self._classifier).__name__}, passes no gradient to its input, by which a trigger could be sought"
            )
        return logits.float()

    def _images_at_once(self, wanted: int) -> int:
        """How many of `wanted` images the harness would pass through a network together on this device."""
        return len(next(self._evidence.batches(self._clean.images[:1].expand(wanted, -1, -1, -1))))


def _squash(free: Tensor) -> Tensor:
    """All reals -> (0, 1), by tanh."""
    return (free.tanh() + 1) / 2


def _unsquash(value: Tensor) -> Tensor:
    return (value * 2 - 1).atanh()
