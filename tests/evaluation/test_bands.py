"""Words for figures, at their bounds."""

from __future__ import annotations

import pytest

from gatecrash.evaluation.bands import asr_band, psnr_band


@pytest.mark.parametrize(("psnr", "word"), [(None, ""), (12.0, ""), (30.0, ""), (30.1, "good")])
def test_more_than_30_db_is_good(psnr: float | None, word: str) -> None:
    assert psnr_band(psnr) == word


@pytest.mark.parametrize(
    ("asr", "word"), [(None, ""), (0.0, "low"), (0.69, "low"), (0.7, "moderate"), (0.9, "moderate"), (0.91, "high"), (1.0, "high")]
)
def test_more_than_90_is_high_and_70_moderate(asr: float | None, word: str) -> None:
    assert asr_band(asr) == word
