"""The arithmetic of scores: pure functions on counts and arrays, usable without torch.

A measure that does not apply is None, never 0 and never NaN: averages over a table leave out the cells in which there was nothing to
measure.
"""

from __future__ import annotations

LANDED = 0.5
"""An attack has landed where it gains at least this much ASR over a benign model; rankings leave out the others."""

HARMED = 0.1
"""An attack without a trigger has landed where it harms at least this share of untouched images more than a benign model does."""


ROBUST = 0.8
"""An attack that keeps more ASR than this under a transformation of the image is robust to it (the bar of a course on data poisoning)."""


def share(part: int, whole: int) -> float | None:
    """`part / whole`; None if `whole` is 0."""
    return part / whole if whole else None


def der(acc_before: float | None, acc_after: float | None, asr_before: float | None, asr_after: float | None) -> float | None:
    """Defense effectiveness rating, (max(0, ASR drop) - max(0, ACC drop) + 1) / 2, in [0, 1] (Zhu et al. 2023, arXiv 2304.11823).

    A defense that does nothing has 0.5, and one that rejects everything has more: never show it without RA and the clean reject rate.
    """
    if acc_before is None or acc_after is None or asr_before is None or asr_after is None:
        return None
    return (max(0.0, asr_before - asr_after) - max(0.0, acc_before - acc_after) + 1) / 2


def mitigation_score(acc_before: float | None, acc_after: float | None, asr_before: float | None, asr_after: float | None) -> float | None:
    """ASR drop per ACC drop; None where ACC did not drop. Unbounded, so never a rank."""
    if acc_before is None or acc_after is None or asr_before is None or asr_after is None:
        return None
    drop = acc_before - acc_after
    return (asr_before - asr_after) / drop if drop > 0 else None


def landed(asr: float | None, asr_floor: float | None) -> bool | None:
    """Whether ASR exceeds that of a benign model by at least `LANDED`; a trigger that fools a benign model as well is not a backdoor."""
    return None if asr is None or asr_floor is None else asr - asr_floor >= LANDED


def harmed(rate: float | None, interval: tuple[float, float] | None) -> bool | None:
    """Whether the harm to untouched images (see `HarmCounts`) is at least `HARMED`, and its interval above 0."""
    return None if rate is None or interval is None else rate >= HARMED and interval[0] > 0
