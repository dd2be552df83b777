"""A board refuses results that cannot stand in one table."""

from __future__ import annotations

from typing import Any

import pytest

from gatecrash.boards.published.comparable import refuse_dirty, refuse_mixtures
from gatecrash.errors import UserError
from gatecrash.records.stage import Stage
from support.boards import a_result


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"recipe": {"epochs": 2}}, "mix recipes"),
        ({"dataset_fingerprint": "e" * 64}, "mix dataset fingerprints"),
        ({"model": Stage(name="lean")}, "mix models"),
        ({"holdout": {"fraction": 0.1}}, "mix hold-outs"),
        ({"attack": Stage(name="badnets", version=2)}, "mix versions 1 and 2 of the attack badnets"),
        ({"defense": [Stage(name="none", version=2)]}, "mix versions 1 and 2 of the defense none"),
        ({"provenance": {"engine_version": 2}}, "mix versions 1 and 2 of the engine"),
        ({"weights": "other"}, "2 different trainings of the victim badnets"),
    ],
)
def test_what_cannot_be_compared_is_refused(fields: dict[str, Any], said: str) -> None:
    first = a_result(provenance={"engine_version": 1})
    refuse_mixtures([first, a_result(seed=1, provenance={"engine_version": 1}, victim_key="ef" * 20, weights="w1")])
    with pytest.raises(UserError, match=said):
        refuse_mixtures([first, a_result(**fields)])


def test_results_of_uncommitted_code_are_refused() -> None:
    refuse_dirty([a_result()])
    with pytest.raises(UserError, match=r"1 of 2 cells .* uncommitted changes"):
        refuse_dirty([a_result(), a_result(provenance={"dirty": True})])
