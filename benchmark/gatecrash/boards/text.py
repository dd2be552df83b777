"""Numbers of results as people read them."""

from __future__ import annotations

from gatecrash.evaluation.intervals import Interval


def percent(interval: Interval) -> str:
    """`mean [low, high]` in percent; the mean alone without limits; nothing without a mean.

    The limits are given as they are: an interval of a rate does not lie evenly around it, and one that is clipped least of all.
    """
    if interval.value is None:
        return ""
    if interval.low is None or interval.high is None:
        return f"{100 * interval.value:.1f}"
    return f"{100 * interval.value:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
