"""Cost, stop, trial and presets of Neural Cleanse's search: by hand, and beside the authors' rules restated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError
from torch import Tensor

from gatecrash.contracts.config import key_fields
from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses._reverse_triggers import anomaly_indices, smallest
from gatecrash_plugins.defenses._search_rules import CostSchedule, FloatArray, SearchConfig, Standstill, trailing
from gatecrash_plugins.defenses._trigger_search import Found, IntArray, TriggerSearch
from gatecrash_plugins.defenses.neural_cleanse import NeuralCleanse
from support.planted_shortcut import SIDE, planted, stripes

INFINITE = float("inf")


def played_searches() -> st.SearchStrategy[FloatArray]:
    """Norms float [R, S, K] of R = 6 rounds, in 8ths of a pixel."""
    shapes = st.tuples(st.just(6), st.integers(1, 4), st.integers(3, 6))
    return arrays(np.float64, shapes, elements=st.integers(1, 400).map(lambda eighths: eighths / 8))


def play(norms: FloatArray, config: SearchConfig) -> Found:
    """A search in which every trigger works and its mask has the norm that is given for round, start and class, [R, S, K]."""
    rounds, searches, classes = norms.shape
    evidence = make_evidence(NeuralCleanse(), planted(), stripes(count=classes, classes=classes))
    search = TriggerSearch(evidence.network, evidence, config.model_copy(update={"searches": searches}))
    played = iter(norms.reshape(rounds, -1))

    def a_round(active: IntArray, _cost: FloatArray) -> tuple[FloatArray, FloatArray, Tensor]:
        found = next(played)[active]
        triggers = torch.zeros(len(active), 1 + 1, SIDE, SIDE)
        triggers[:, 0, 0, 0] = torch.from_numpy(found)
        return np.ones(len(active)), found, triggers

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_round", a_round)
        return search.run()


def sizes(found: Found) -> list[float]:
    """The norm of the mask that counts, by class."""
    best = smallest(found)
    return [float(mask.sum()) for mask in found.masks[best, torch.arange(len(best))]]


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


class TestTrial:
    def test_of_each_class_the_search_with_the_smallest_mask_leads(self) -> None:
        best = np.array([[5.0, 7.0, INFINITE], [4.0, 7.0, INFINITE], [INFINITE, 9.0, INFINITE]])
        assert trailing(best).tolist() == [[True, False, False], [False, True, False], [True, True, False]]

    @settings(max_examples=30)
    @given(played_searches(), st.integers(1, 5))
    def test_norms_and_verdict_are_those_of_full_searches_where_leaders_stay_ahead(self, norms: FloatArray, trial: int) -> None:
        """Norms [R, S, K] by round, of masks that all work. What lies above what the leader ends with is arbitrary."""
        least = np.minimum.accumulate(norms)
        leaders = least[trial - 1].argmin(0)
        ends = least[-1][leaders, np.arange(norms.shape[2])]
        others = np.arange(norms.shape[1])[:, None] != leaders
        norms = np.where(others, np.maximum(norms, ends), norms)

        short, full = (play(norms, SearchConfig(rounds=len(norms), trial=rounds)) for rounds in (trial, len(norms)))

        assert sizes(short) == sizes(full)
        assert np.array_equal(anomaly_indices(sizes(short)), anomaly_indices(sizes(full)))
        assert (short.rounds == np.where(others, trial, len(norms))).all()

    @settings(max_examples=30)
    @given(played_searches(), st.integers(1, 5))
    def test_a_norm_is_too_large_by_no_more_than_the_leader_stayed_above_the_others(self, norms: FloatArray, trial: int) -> None:
        least = np.minimum.accumulate(norms)
        short, full = (sizes(play(norms, SearchConfig(rounds=len(norms), trial=rounds))) for rounds in (trial, len(norms)))
        ends = least[-1][least[trial - 1].argmin(0), np.arange(norms.shape[2])]
        assert full == pytest.approx(least[-1].min(0))
        assert short == pytest.approx(ends)

    def test_a_trial_as_long_as_the_search_ends_none_early(self) -> None:
        norms = np.random.default_rng(0).uniform(1, 9, (4, 3, 2))
        assert (play(norms, SearchConfig(rounds=4)).rounds == 4).all()
        assert (play(norms, SearchConfig(rounds=4, trial=4)).rounds == 4).all()
        assert (play(norms, SearchConfig(rounds=4, trial=100)).rounds == 4).all()


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
