"""Words for figures, by the bounds in a course's notes: a help for readers, nothing is judged by them."""

from __future__ import annotations

PSNR_GOOD = 30.0
"""dB: a trigger with more is hard to see."""
ASR_HIGH, ASR_MODERATE = 0.9, 0.7


def psnr_band(psnr: float | None) -> str:
    """`good` above 30 dB; empty where the notes have no word for it, and for None."""
    return "good" if psnr is not None and psnr > PSNR_GOOD else ""


def asr_band(asr: float | None) -> str:
    """`high` above 90%, `moderate` from 70%, `low` below; empty for None."""
    if asr is None:
        return ""
    return "high" if asr > ASR_HIGH else "moderate" if asr >= ASR_MODERATE else "low"
