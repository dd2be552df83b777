"""A result: its options as a person reads them, and that it cannot be changed."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from gatecrash.errors import UserError
from gatecrash.records.result import SCHEMA, Result
from gatecrash.records.sealed import sealed
from gatecrash.records.stage import Stage
from support.cells import cell

ONE = Stage(name="one", config={"x": 1})
TWO = Stage(name="two", config={"y": 2})


@pytest.mark.parametrize(
    ("stages", "name", "config"),
    [
        ([ONE], "one", {"x": 1}),
        ([ONE, TWO], "one + two", {"0:one": {"x": 1}, "1:two": {"y": 2}}),
        ([ONE, Stage(name="two", when="accused")], "one + two", {"0:one": {"x": 1}, "1:two": {"when": "accused"}}),
    ],
)
def test_the_options_of_a_defense_and_of_a_chain(stages: list[Stage], name: str, config: dict[str, Any]) -> None:
    result = cell("badnets", "d", 0, defense=stages)
    assert (result.defense_name, result.defense_config) == (name, config)
    flat = result.flat()
    assert (flat["defense"], flat["defense_config"]) == (name, config)


def test_a_result_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        cell("badnets", "d", 0).seed = 1


def test_a_result_of_a_newer_schema_is_no_damage() -> None:
    newer = sealed(cell("badnets", "d", 0).model_dump(mode="json") | {"schema_version": SCHEMA + 1})
    with pytest.raises(UserError, match="was written by a newer Gatecrash; upgrade it"):
        Result.from_text(newer)


def test_schema_1_is_what_published_results_have() -> None:
    assert SCHEMA == 1
