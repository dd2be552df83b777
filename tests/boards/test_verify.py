"""Two measurements of one cell: equal on one machine, within the interval on another."""

from __future__ import annotations

from typing import Any

import pytest

from gatecrash.boards.verify import compare
from gatecrash.records.result import Result
from support.boards import a_result


def measured(stored: Result, **changes: Any) -> Result:
    weights = changes.pop("weights", stored.weights)
    return stored.model_copy(update={"measures": stored.measures.model_copy(update=changes), "weights": weights})


def test_the_same_machine_must_give_every_digit() -> None:
    stored = a_result()
    assert compare(stored, measured(stored, seconds_victim=99.0)).outcome == "equal"
    found = compare(stored, measured(stored, acc=0.9 + 1e-12))
    assert (found.outcome, found.good) == ("differs", False)
    assert "on the same kind of machine: acc 0.9000 -> 0.9000" in found.detail


@pytest.mark.parametrize(
    "elsewhere", [{"device": "NVIDIA H200"}, {"cpu": "b"}, {"cpu_kind": "AVX2"}, {"packages": {"torch": "3"}}, {"threads": 2}]
)
def test_another_machine_must_stay_within_the_interval(elsewhere: dict[str, Any]) -> None:
    stored = a_result()
    fresh = stored.model_copy(update={"provenance": stored.provenance.model_copy(update=elsewhere)})
    assert compare(stored, measured(fresh, acc=0.86)).outcome == "within"
    assert compare(stored, measured(fresh, acc=0.84)).outcome == "differs"
    assert compare(stored, measured(fresh, asr=None)).outcome == "differs"
    # over seeds the ASR was 0.5, 0.9, 0.1: 0.75 is nothing unusual
    siblings = [a_result(seed=seed, measures={"asr": asr}) for seed, asr in enumerate((0.5, 0.9, 0.1))]
    assert compare(stored, measured(fresh, asr=0.75)).outcome == "differs"
    assert compare(stored, measured(fresh, asr=0.75), siblings).outcome == "within"
