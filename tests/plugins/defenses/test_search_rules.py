"""Cost, stop and presets of Neural Cleanse's search: by hand, and beside the authors' rules restated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gatecrash.contracts.config import key_fields
from gatecrash_plugins.defenses._search_rules import CostSchedule, SearchConfig, Standstill


class TestCost:
    def rounds(self, outcomes: str, **options: Any) -> CostSchedule:
        schedule = CostSchedule(SearchConfig(patience=2, cost=1e-3, cost_factor=4, **options), 1)
        for outcome in outcomes:
            schedule.update(np.array([outcome == "+"]))
        return schedule

    @pytest.mark.parametrize(
        ("outcomes", "cost"),
        [
            ("+", 0.0),
            ("++", 1e-3),  # starts, and counts as the first success towards a raise
            ("+++", 4e-3),  # up by 4
            ("++++", 4e-3),
            ("+++++", 16e-3),
            ("++-+-+-+", 1e-3),  # no two in a row
            ("++--", 1e-3 / 8),  # down by 4 ** 1.5
            ("++----", 1e-3 / 64),
            ("----", 0.0),  # never succeeded: the norm stays out of the loss
        ],
    )
    def test_follows_runs_of_success_and_failure(self, outcomes: str, cost: float) -> None:
        assert self.rounds(outcomes).cost[0] == pytest.approx(cost)

    def test_has_bracketed_the_answer_once_it_went_both_ways(self) -> None:
        assert not self.rounds("++++").moved[0]
        assert not self.rounds("--++++").moved[0]  # failures before the start are no lowering
        assert self.rounds("++++--").moved[0]

    def test_is_kept_apart_for_each_class(self) -> None:
        schedule = CostSchedule(SearchConfig(patience=1, cost=1.0, cost_factor=4), 3)
        schedule.update(np.array([True, True, False]))  # with a patience of 1 the start is a raise, too
        schedule.update(np.array([True, False, False]))
        assert schedule.cost.tolist() == [16.0, 1 / 2, 0.0]

    @given(st.lists(st.booleans(), max_size=60), st.integers(1, 4))
    def test_moves_as_the_authors_code_does(self, outcomes: list[bool], patience: int) -> None:
        schedule = CostSchedule(SearchConfig(patience=patience), 1)
        theirs = AuthorsCost(1e-3, 1.5, patience)
        for outcome in outcomes:
            schedule.update(np.array([outcome]))
            theirs.update(outcome)
            assert schedule.cost[0] == pytest.approx(theirs.cost)
            if theirs.cost:  # before the start nothing can be settled
                assert bool(schedule.moved[0]) == (theirs.went_up and theirs.went_down)


class AuthorsCost:
    """The rule of the published code, restated: three counters, of which the one for the start is looked at first."""

    def __init__(self, first: float, factor: float, patience: int) -> None:
        self.first, self.factor, self.patience = first, factor, patience
        self.cost, self.to_start, self.to_up, self.to_down = 0.0, 0, 0, 0
        self.went_up = self.went_down = False

    def update(self, success: bool) -> None:
        self.to_start = self.to_start + 1 if success and self.cost == 0 else 0
        if self.to_start >= self.patience:
            self.cost, self.to_up, self.to_down = self.first, 0, 0
            self.went_up = self.went_down = False
        self.to_up, self.to_down = (self.to_up + 1, 0) if success else (0, self.to_down + 1)
        if self.to_up >= self.patience:
            self.cost, self.to_up, self.went_up = self.cost * self.factor, 0, True
        elif self.to_down >= self.patience:
            self.cost, self.to_down, self.went_down = self.cost / self.factor**1.5, 0, True


def settled_after(norms: list[float], **options: Any) -> int | None:
    """The round after which a class with these best norms has settled."""
    standstill = Standstill(SearchConfig(**options), 1)
    for number, norm in enumerate(norms, 1):
        standstill.update(np.array([norm]))
        if standstill.settled[0]:
            return number
    return None


class TestStop:
    def test_a_slow_fall_settles_a_class_by_the_authors_rule_and_never_by_ours(self) -> None:
        """A tenth of a percent each round: less than 1% of the round before, but 1% of the last drop every eleven rounds."""
        falling = [100 * 0.999**step for step in range(300)]
        assert settled_after(falling, stop_rule="previous-round") == 26
        assert settled_after(falling, stop_rule="last-drop") is None

    @pytest.mark.parametrize("rule", ["last-drop", "previous-round"])
    def test_a_norm_that_stays_settles_a_class_after_the_patience(self, rule: str) -> None:
        assert settled_after([50.0] * 40, stop_rule=rule) == 26  # the first is a drop from nothing
        assert settled_after([50.0] * 20 + [40.0] * 40, stop_rule=rule) == 46

    @pytest.mark.parametrize("rule", ["last-drop", "previous-round"])
    def test_a_class_without_success_is_never_settled(self, rule: str) -> None:
        assert settled_after([float("inf")] * 300, stop_rule=rule) is None

    @given(st.lists(st.floats(0, 2), min_size=1, max_size=80), st.floats(0.5, 1))
    def test_the_authors_rule_restated(self, drops: list[float], ratio: float) -> None:
        best = np.minimum.accumulate(np.array(drops))
        standstill = Standstill(SearchConfig(stop_rule="previous-round", stop_ratio=ratio, stop_patience=3), 1)
        counter, before = 0, float("inf")
        for norm in best:
            standstill.update(np.array([norm]))
            counter = counter + 1 if norm >= ratio * before else 0
            before = min(norm, before)
            assert bool(standstill.settled[0]) == (counter >= 3)


class TestPresets:
    def test_the_authors_constants_are_those_of_their_example(self) -> None:
        theirs = SearchConfig.model_validate({"preset": "authors"})
        assert (theirs.rounds, theirs.samples, theirs.batch_size, theirs.lr) == (1000, 31 * 32, 32, 0.1)
        assert (theirs.cost, theirs.cost_factor, theirs.success, theirs.patience) == (1e-3, 2, 0.99, 5)
        assert (theirs.stop_rule, theirs.stop_patience, theirs.stop_ratio, theirs.searches) == ("previous-round", 25, 1.0, 1)

    def test_options_that_are_given_go_before_the_preset(self) -> None:
        config = SearchConfig.model_validate({"searches": 5, "preset": "authors", "stop_ratio": 0.99})
        assert (config.searches, config.stop_ratio, config.rounds) == (5, 0.99, 1000)

    def test_a_preset_is_shorthand_and_gives_the_same_key_as_its_options(self) -> None:
        short = SearchConfig.model_validate({"preset": "authors"})
        assert "preset" not in key_fields(short)
        assert key_fields(short) == key_fields(SearchConfig.model_validate(short.model_dump(mode="json")))

    @pytest.mark.parametrize("preset", ["author", None, ["authors"]])
    def test_an_unknown_preset_is_refused(self, preset: Any) -> None:
        with pytest.raises(ValidationError, match="'gatecrash' or 'authors'"):
            SearchConfig.model_validate({"preset": preset})
