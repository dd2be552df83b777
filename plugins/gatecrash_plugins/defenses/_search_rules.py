"""How Neural Cleanse seeks triggers (Wang et al. 2019, section IV): options, how the cost adapts, when a class stops.

For every class the smallest mask and pattern are sought that send images of all other classes to it: `CE(target, f((1 - m) x + m p)) +
cost |m|_1` is minimised (equation 3) with a cost that adapts. Equation, tanh, Adam's momenta and the way in which the cost adapts are those
of the authors' published code (github.com/bolunwang/backdoor, visualizer.py).

Ours, in the default options: the rule that stops a class (`stop_rule`), several searches per class of which the smallest mask counts, and
the budget (`rounds`, `samples`, `trial`). `patience` and `stop_patience` are those of the authors' example for GTSRB, `cost_factor` and
`stop_ratio` the defaults of their visualizer.py, so that together they are no published set.

`preset: authors` has the stop rule and the constants of the example, the one complete set that they published: a class stops once its best
norm has not fallen from one round to the next for 25 rounds; at most 1000 rounds of 31 batches (of the whole hold-out if that is smaller),
a factor of 2, one search. (With the defaults of visualizer.py, which the example does not use: `patience` 10, `cost_factor` 1.5,
`stop_patience` 20, `stop_ratio` 0.99.)

`trial` is off by default, since it can change a verdict: it trusts that the search with a class's smallest mask after so many rounds
also ends with the smallest. Where that holds for every class, norms, indices and verdict are those of full searches; where it does not, a
class's norm is too large by as much as the leader stayed above the search that would have passed it. With a trial of 30 rounds two of
five benign victims on digits are accused, and none in full searches (docs/measured.md).

Ours under any preset: networks compute as in the run's trainings, in bfloat16 where machine and recipe choose it; images of the target
class itself take no part (they need no trigger, and would count as successes); all classes of one search start from one random mask and
pattern (so that norms differ by class and not by the random start); a mask is kept as it was measured, before the last step of its
round.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from gatecrash import Options

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "gatecrash": {},
    "authors": {
        "rounds": 1000,
        "samples": 992,  # 1000 // 32 batches
        "cost_factor": 2.0,
        "searches": 1,
        "stop_rule": "previous-round",
        "stop_patience": 25,
        "stop_ratio": 1.0,
    },
}
"""Options by preset, where they differ from the defaults."""


class SearchConfig(Options):
    """Options of the search for triggers."""

    preset: Literal["gatecrash", "authors"] = Field(
        "gatecrash",
        exclude=True,  # shorthand for other options, which are what is stored
        description="defaults of the other options: ours, or stop rule and constants of the authors' published example",
    )
    searches: int = Field(3, ge=1, le=100, description="searches per class from different starts; the smallest mask that works counts")
    trial: int | None = Field(
        None, ge=1, le=100_000, description="rounds after which only the leading search of each class goes on; null: all go on"
    )
    rounds: int = Field(100, ge=1, le=100_000, description="rounds of a search at most; the cost adapts once a round")
    samples: int = Field(128, ge=1, le=1_000_000, description="hold-out images per round (all of a smaller hold-out)")
    batch_size: int = Field(32, ge=1, le=65_536, description="images per Adam step, for each class")
    lr: float = Field(0.1, gt=0, le=10, description="Adam's learning rate for mask and pattern")
    cost: float = Field(1e-3, gt=0, le=1e3, description="weight of the mask's L1 norm once the search has first succeeded")
    cost_factor: float = Field(1.5, gt=1, le=10, description="factor by which the cost grows; it shrinks by its power 1.5")
    success: float = Field(0.99, gt=0, le=1, description="share of images that a trigger must send to its class")
    patience: int = Field(5, ge=1, le=10_000, description="rounds of success (failure) in a row that raise (lower) the cost")
    stop_rule: Literal["last-drop", "previous-round"] = Field(
        "last-drop",
        description="the best norm drops if it falls below stop_ratio of that at the last drop (ours) or of the round before (authors)",
    )
    stop_patience: int = Field(25, ge=1, le=10_000, description="rounds in a row without a drop after which a class is settled")
    stop_ratio: float = Field(0.99, gt=0, le=1, description="share of the earlier norm below which a drop begins")

    @model_validator(mode="before")
    @classmethod
    def _on_top_of_preset(cls, given: Any) -> Any:
        """Options that are given go before those of the preset. An unknown preset is left for the field to refuse."""
        return {**PRESETS.get(str(given.get("preset")), {}), **given} if isinstance(given, dict) else given


class CostSchedule:
    """The weight of the mask's norm, one for each of n masks, after the authors' code.

    It is 0 until a mask has succeeded in `patience` rounds in a row, then `cost`. From that round on (which counts) every `patience`
    successes in a row multiply it by `cost_factor`, as many failures divide it by `cost_factor ** 1.5`. `moved` tells the masks whose
    cost has been both raised and lowered: their search has bracketed the smallest one that works.
    """

    def __init__(self, config: SearchConfig, count: int) -> None:
        self._config = config
        self.cost = np.zeros(count)
        self._successes = np.zeros(count, dtype=int)
        self._failures = np.zeros(count, dtype=int)
        self._raised = np.zeros(count, dtype=bool)
        self._lowered = np.zeros(count, dtype=bool)

    @property
    def moved(self) -> BoolArray:
        return self._raised & self._lowered

    def update(self, succeeded: BoolArray) -> None:
        """Take note of a round: bool [n]."""
        config = self._config
        self._successes = np.where(succeeded, self._successes + 1, 0)
        self._failures = np.where(succeeded, 0, self._failures + 1)
        start = (self._successes >= config.patience) & (self.cost == 0)
        self.cost[start] = config.cost
        self._successes[start] = 1
        up = (self._successes >= config.patience) & (self.cost > 0)
        down = (self._failures >= config.patience) & (self.cost > 0)
        self.cost[up] *= config.cost_factor
        self.cost[down] /= config.cost_factor**1.5
        self._raised |= up
        self._lowered |= down
        self._successes[up] = 0
        self._failures[self._failures >= config.patience] = 0


class Standstill:
    """For each of n masks, how many rounds in a row the best norm has not dropped (see `stop_rule`)."""

    def __init__(self, config: SearchConfig, count: int) -> None:
        self._config = config
        self._before = np.full(count, np.inf)
        self._stalled = np.zeros(count, dtype=int)

    @property
    def settled(self) -> BoolArray:
        return self._stalled >= self._config.stop_patience

    def update(self, best: FloatArray) -> None:
        """Take note of a round: the best norms so far, float [n], infinite where no trigger has succeeded."""
        dropped = best < self._config.stop_ratio * self._before
        self._stalled = np.where(dropped | ~np.isfinite(best), 0, self._stalled + 1)
        self._before = np.where(dropped, best, self._before) if self._config.stop_rule == "last-drop" else best


def trailing(best: FloatArray) -> BoolArray:
    """The searches, bool [S, K], that some other search of their class leads, by their best norms so far, float [S, K]; of equals the first
    leads. Where no search has succeeded yet (all infinite), none trails."""
    leads = np.arange(len(best))[:, None] == best.argmin(0)
    trails: BoolArray = ~leads & np.isfinite(best).any(0)
    return trails
