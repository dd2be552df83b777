"""Confidence intervals: Wilson over test images, t over seeds, normal and Newcombe's over models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist, fmean, stdev
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Interval(NamedTuple):
    """A value with the limits of its confidence interval; None where there are too few data for it."""

    value: float | None
    low: float | None
    high: float | None


def wilson(successes: int, total: int, confidence: float = 0.95) -> tuple[float, float] | None:
    """Score interval of a proportion, in [0, 1] (Wilson 1927; method 3 of Newcombe 1998); None if `total` is 0."""
    if not 0 <= successes <= total:
        raise ValueError(f"{successes} successes out of {total}")
    if total == 0:
        return None
    z = _quantile(confidence)
    rate, denominator = successes / total, 1 + z * z / total
    centre = (rate + z * z / (2 * total)) / denominator
    half = z * math.sqrt(rate * (1 - rate) / total + z * z / (4 * total * total)) / denominator
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == total else min(1.0, centre + half)
    return low, high


def paired_interval(only_first: int, only_second: int, total: int, confidence: float = 0.95) -> tuple[float, float] | None:
    """Interval of the difference of two proportions of the same `total` items, in [-1, 1]; None if `total` is 0.

    `only_first` and `only_second` are the items that one of the two has alone. Wald's interval after half an item is added to each of the
    four cells of the table (Agresti and Min 2005, Statistics in Medicine 24, 729-740): it keeps a width where no item differs.
    """
    if min(only_first, only_second) < 0 or only_first + only_second > total:
        raise ValueError(f"{only_first} and {only_second} out of {total}")
    if total == 0:
        return None
    difference, items = only_first - only_second, total + 2
    half = _quantile(confidence) * math.sqrt(only_first + only_second + 1 - difference * difference / items)
    return max(-1.0, (difference - half) / items), min(1.0, (difference + half) / items)


def t_interval(values: Sequence[float], confidence: float = 0.95, least: float = 0.0) -> Interval:
    """Mean of rates over seeds and its t interval, clipped to [0, 1]; no limits for fewer than two values.

    `least` is the smallest value that there can be: -1 for differences of rates.
    """
    if not values:
        return Interval(None, None, None)
    mean = fmean(values)
    if len(values) < 2:
        return Interval(mean, None, None)
    half = _t_spread(values, confidence) / math.sqrt(len(values))
    return Interval(mean, max(least, mean - half), min(1.0, mean + half))


def prediction_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Where one more training's rate is to be expected: mean -+ t s sqrt(1 + 1/n) over n seeds, clipped to [0, 1].

    Wider than `t_interval`, which says where the mean lies. No limits for fewer than two values.
    """
    if len(values) < 2:
        return Interval(values[0] if values else None, None, None)
    mean, half = fmean(values), _t_spread(values, confidence) * math.sqrt(1 + 1 / len(values))
    return Interval(mean, max(0.0, mean - half), min(1.0, mean + half))


def normal_interval(values: NDArray[np.float64], most: float, confidence: float = 0.95) -> Interval:
    """Mean of at least two values (float64 [N]) and its normal interval, clipped to [0, `most`]."""
    mean = float(values.mean())
    half = _quantile(confidence) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Interval(mean, max(0.0, mean - half), min(most, mean + half))


def auc_interval(area: float, positives: int, negatives: int, confidence: float = 0.95) -> Interval:
    """Newcombe's score-type interval of an area under the ROC curve (2006, Statistics in Medicine 25, method 5).

    It keeps a width where a handful of models is separated perfectly.
    """
    z = _quantile(confidence)
    return Interval(area, _auc_low(area, positives, negatives, z), 1 - _auc_low(1 - area, positives, negatives, z))


def _auc_low(area: float, positives: int, negatives: int, z: float) -> float:
    """Lower limit: the smallest area whose own Hanley-McNeil variance makes `area` plausible."""
    if area <= 0:
        return 0.0
    from scipy.optimize import brentq

    spare = (positives + negatives) / 2 - 1

    def implausibility(theta: float) -> float:
        variance = theta * (1 - theta) * (1 + spare * (1 - theta) / (2 - theta) + spare * theta / (1 + theta)) / (positives * negatives)
        return (area - theta) ** 2 - z * z * variance

    root: Callable[..., float] = brentq
    # Just below `area` the variance wins unless it is 0 there (area 1): hence not at `area` itself.
    return float(root(implausibility, 0.0, area * (1 - 1e-9)))


def _quantile(confidence: float) -> float:
    """The normal distribution's quantile for a two-sided interval."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _t_spread(values: Sequence[float], confidence: float) -> float:
    """t quantile times standard deviation."""
    from scipy.special import stdtrit

    return float(stdtrit(len(values) - 1, (1 + confidence) / 2)) * stdev(values)
