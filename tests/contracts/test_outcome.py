"""An outcome that does not keep what the defense declares is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gatecrash import (
    ContractError,
    Give,
    Outcome,
    Step,
    Verdict,
)
from support.planted_networks import one_channel_per_class
from support.written_scores import Brightness

CLASSIFIER = frozenset({Give.CLASSIFIER})
SUSPECTS = frozenset({Give.SUSPECTS})


def picture(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.uint8)


class TestOutcome:
    @pytest.mark.parametrize(
        ("gives", "outcome", "message"),
        [
            (CLASSIFIER, lambda: Outcome(), "declares a classifier but its outcome has none"),
            (frozenset({Give.REJECT}), lambda: Outcome(), "declares a classifier but its outcome has none"),
            (frozenset(), lambda: Outcome(classifier=one_channel_per_class()), "does not declare CLASSIFIER or REJECT"),
            (SUSPECTS, lambda: Outcome(), "declares SUSPECTS"),
            (frozenset({Give.VERDICT}), lambda: Outcome(), "declares VERDICT"),
            (SUSPECTS, lambda: Outcome(suspects=torch.zeros(3, dtype=torch.bool)), r"bool \[20\]; got torch.bool \[3\]"),
            (SUSPECTS, lambda: Outcome(suspects=torch.zeros(20)), r"bool \[20\]; got torch.float32"),
            (frozenset(), lambda: Outcome(suspicion=torch.full((20,), torch.nan)), "NaN"),
            (frozenset(), lambda: Outcome(verdict=Verdict(True, targets=(6,))), "classes outside 0..5"),
            (frozenset(), lambda: Outcome(verdict=Verdict(True, anomaly={-1: 3.0})), "classes outside 0..5"),
            (frozenset(), lambda: Outcome(verdict=Verdict(True, probability=1.1)), "probability"),
            (CLASSIFIER, lambda: Outcome(classifier=one_channel_per_class(), trajectory=[Step({}, {})] * 33), "at most 32"),
            (frozenset(), lambda: Outcome(trajectory=[Step({}, {})]), "trajectory needs a classifier"),
            (frozenset(), lambda: Outcome(figures={"mask": torch.zeros(1, 2, 2)}), r"'mask' must be a picture.* torch.float32 \[1, 2, 2\]"),
            (frozenset(), lambda: Outcome(figures={"mask": picture(2, 2)}), r"uint8 \[1 or 3, H, W\]; got torch.uint8 \[2, 2\]"),
            (frozenset(), lambda: Outcome(figures={"mask": picture(2, 4, 4)}), r"got torch.uint8 \[2, 4, 4\]"),
            (frozenset(), lambda: Outcome(figures={"mask": picture(3, 0, 4)}), r"got torch.uint8 \[3, 0, 4\]"),
            (frozenset(), lambda: Outcome(figures={"mask": [[0]]}), "got list"),  # type: ignore[dict-item]
            (frozenset(), lambda: Outcome(figures={"": picture(1, 2, 2)}), "a figure's name must be text"),
            (
                frozenset(),
                lambda: Outcome(figures={"a\nb": picture(1, 2, 2)}),
                r"a figure's name must be text that can be printed; got 'a\\nb'",
            ),
            (frozenset(), lambda: Outcome(figures={0: picture(1, 2, 2)}), "a figure's name must be text"),  # type: ignore[dict-item]
        ],
    )
    def test_what_breaks_the_promise_is_named(self, gives: frozenset[Give], outcome: Callable[[], Outcome], message: str) -> None:
        with pytest.raises(ContractError, match=message):
            outcome().check(gives, 20, 6)

    def test_suspects_need_the_training_data(self) -> None:
        with pytest.raises(ContractError, match="does not need TRAINING_DATA"):
            Outcome(suspects=torch.zeros(20, dtype=torch.bool)).check(SUSPECTS, None, 6)

    def test_everything_at_once_is_allowed(self) -> None:
        Outcome(
            classifier=one_channel_per_class(),
            suspects=torch.zeros(20, dtype=torch.bool),
            suspicion=torch.zeros(20),
            verdict=Verdict(True, 1.0, (5,), {0: 0.0}),
            trajectory=[Step({}, {})] * 32,
            figures={"mask": picture(1, 1, 1), "pattern of ../é": picture(3, 2, 5)},
            detector=Brightness(),
        ).check(frozenset(Give), 20, 6)
