"""The arithmetic of defenses' scores, by hand."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gatecrash.evaluation.metrics import der, landed, mitigation_score


def test_the_arithmetic_needs_no_torch():
    code = (
        "import sys, gatecrash.evaluation.metrics, gatecrash.evaluation.detection; "
        "sys.exit('torch' in sys.modules or 'sklearn' in sys.modules or 'scipy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("acc", "asr", "expected"),
    [
        ((0.90, 0.90), (1.0, 1.0), 0.5),  # nothing done
        ((0.90, 0.90), (1.0, 0.0), 1.0),  # the backdoor gone at no price
        ((0.90, 0.80), (1.0, 0.2), 0.85),
        ((0.90, 0.95), (0.6, 0.9), 0.5),  # gains of either kind count as no drop
        ((0.90, 0.00), (0.0, 0.0), 0.05),  # ruined for nothing
    ],
)
def test_der(acc, asr, expected):
    assert der(*acc, *asr) == pytest.approx(expected)


def test_rejecting_everything_has_a_der_above_one_half():
    """Hence it is never shown without RA and the clean reject rate."""
    assert der(0.92, 0.0, 1.0, 0.0) == pytest.approx(0.54)


def test_mitigation_score_is_asr_drop_per_acc_drop():
    assert mitigation_score(0.90, 0.88, 1.0, 0.2) == pytest.approx(40)
    assert mitigation_score(0.90, 0.80, 0.5, 0.6) == pytest.approx(-1)


@pytest.mark.parametrize("acc_after", [0.90, 0.91])
def test_mitigation_score_is_none_where_acc_did_not_drop(acc_after):
    assert mitigation_score(0.90, acc_after, 1.0, 0.0) is None


def test_without_a_backdoor_nothing_is_mitigated():
    assert der(0.9, 0.8, None, None) is None
    assert mitigation_score(0.9, 0.8, None, None) is None
    assert landed(None, None) is None


def test_an_attack_lands_by_what_it_gains_over_a_benign_model():
    assert landed(0.99, 0.02)
    assert not landed(0.99, 0.60)
    assert not landed(0.40, 0.0)
