"""Numbers of results as people read them."""

from __future__ import annotations

from gatecrash.evaluation.intervals import Interval


def percent(interval: Interval) -> str:
    """`mean ± half-width` in percent; the mean alone without limits; nothing without a mean."""
    if interval.value is None:
        return ""
    if interval.low is None or interval.high is None:
        return f"{100 * interval.value:.1f}"
    return f"{100 * interval.value:.1f} ± {100 * max(interval.value - interval.low, interval.high - interval.value):.1f}"
