"""Seeds are the unit: cells are averaged within a seed, intervals are t intervals over seeds.

Two defenses that met the same victims are compared by the differences on those victims. This finds smaller differences than a look at
whether their intervals overlap: most of the spread over seeds comes from the victims, which both share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import fmean

from gatecrash.evaluation.intervals import Interval, t_interval
from gatecrash.records.measures import MeasureName
from gatecrash.records.result import Result

NO_DIFFERENCE = 1e-9
"""Rates are ratios of counts: a smaller difference is rounding."""


def over_seeds(cells: Iterable[Result], value: MeasureName | Callable[[Result], float | None], least: float = 0.0) -> Interval:
    """Mean over seeds of the mean within each seed, with the t interval over seeds; cells without the measure do not count."""
    by_seed: dict[int, list[float]] = {}
    for cell in cells:
        number = cell.measures.value(value) if isinstance(value, str) else value(cell)
        if number is not None:
            by_seed.setdefault(cell.seed, []).append(float(number))
    return t_interval([fmean(values) for _, values in sorted(by_seed.items())], least=least)


@dataclass(frozen=True)
class Difference:
    """First minus second, over the victims that both met. `mean` has no limits for fewer than two seeds, and no value without victims."""

    mean: Interval
    victims: int
    seeds: int

    @property
    def sign(self) -> int:
        """1 or -1 where the 95% interval of the difference leaves out zero, else 0."""
        value, low, high = self.mean
        if value is None or low is None or high is None or abs(value) < NO_DIFFERENCE:
            return 0
        return 1 if low > 0 else -1 if high < 0 else 0


def paired(first: Iterable[Result], second: Iterable[Result], measure: MeasureName) -> Difference:
    """Compare two defenses on the victims (same key, same weights) for which both have the measure."""
    others = {(cell.victim_key, cell.weights): cell.measures.value(measure) for cell in second if cell.status == "ok"}
    by_seed: dict[int, list[float]] = {}
    for cell in first:
        mine, other = cell.measures.value(measure), others.get((cell.victim_key, cell.weights))
        if cell.status == "ok" and mine is not None and other is not None:
            by_seed.setdefault(cell.seed, []).append(mine - other)
    means = [fmean(values) for _, values in sorted(by_seed.items())]
    return Difference(t_interval(means, least=-1.0), sum(map(len, by_seed.values())), len(means))
