"""Which class stands out of the others: anomaly indices by the median absolute deviation."""

from __future__ import annotations

from torch import Tensor

NORMAL = 1.4826
"""The median absolute deviation times this estimates the standard deviation of a normal distribution."""


def anomaly_indices(values: Tensor, *, two_sided: bool = False, least: float = 0.0) -> Tensor:
    """`(value - median) / (1.4826 MAD)` for each of float64 [K]; its absolute value where `two_sided`.

    The median of an even number of values is the mean of the middle two. Values that are all alike have the index 0.
    A deviation below `least` is taken for it: what chance alone would give.
    """
    centred = values - values.quantile(0.5)
    if two_sided:
        centred = centred.abs()
    spread = centred.abs().quantile(0.5) * NORMAL
    return centred / spread.clamp_min(max(least * NORMAL, 1e-9 * max(1.0, float(values.abs().max()))))
