"""Each measure is declared once; what is stored comes back as it was written."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gatecrash.records.measures import COLUMNS, MEASURES, NUMBERS, Measures
from gatecrash.records.result import Result
from support.paths import ROOT

PUBLISHED = sorted((ROOT / "leaderboards" / "results").rglob("*.json"))


def test_every_measure_has_a_label_and_a_title() -> None:
    assert list(MEASURES) == list(Measures.model_fields)
    assert all(measure.label and measure.title for measure in MEASURES.values())


def test_measures_that_are_asked_for_by_name_are_numbers_with_a_declaration() -> None:
    assert set(NUMBERS) <= MEASURES.keys()
    made = Measures.model_validate(dict.fromkeys(NUMBERS, 0.25))
    assert [made.value(name) for name in NUMBERS] == [0.25] * len(NUMBERS)


def test_a_flat_record_has_the_columns_that_scripts_rely_on() -> None:
    assert COLUMNS[:4] == ("acc", "asr", "asr_worst", "asr_floor")
    assert COLUMNS[-3:] == ("seconds_victim", "seconds_defense", "peak_memory_mb")


def test_a_measure_says_its_unit_and_what_is_good() -> None:
    assert (MEASURES["acc"].unit, MEASURES["seconds_defense"].unit) == ("rate", "seconds")
    assert MEASURES["acc"].direction == "high is good"
    assert MEASURES["poison_share"].direction == ""


@given(st.dictionaries(st.sampled_from(NUMBERS), st.none() | st.floats(0, 1)))
def test_what_was_not_measured_is_not_written(values: dict[str, float | None]) -> None:
    written = Measures.model_validate(values).model_dump(mode="json")
    assert written == values
    assert Measures.model_validate(json.loads(json.dumps(written))).model_dump(mode="json") == values


def test_a_measure_of_a_newer_version_is_kept() -> None:
    assert Measures.model_validate({"acc": 0.5, "surprise": 1}).model_dump(mode="json") == {"acc": 0.5, "surprise": 1}


@pytest.mark.parametrize("value", ["0.5x", [0.5], float("nan"), {}])
def test_a_measure_of_another_type_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        Measures.model_validate({"acc": value})


def test_published_results_are_written_as_they_were_read() -> None:
    assert len(PUBLISHED) >= 344
    for file in PUBLISHED:
        text = file.read_text(encoding="utf-8")
        assert Result.from_text(text).to_text() + "\n" == text, file
