"""Each check of a defense catches a defense that breaks its promise."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gatecrash import (
    Classifier,
    Defense,
    Evidence,
    Give,
    InputDetector,
    Need,
    Network,
    Outcome,
    Recipe,
)
from gatecrash.testing import CheckFailed
from support.sound_plugins import Tuning, run_check


class LooselyTyped(Tuning):
    needs = frozenset({"model"})  # type: ignore[arg-type]


class Peeking(Tuning):
    def defend(self, evidence: Evidence) -> Outcome:
        evidence.clean.fingerprint  # noqa: B018
        return super().defend(evidence)


class Starting(Tuning):
    needs = frozenset({Need.CLEAN_DATA})

    def defend(self, evidence: Evidence) -> Outcome:
        return Outcome(classifier=evidence.train(evidence.clean, recipe=Recipe(epochs=1)))


class Noisy(Tuning):
    def defend(self, evidence: Evidence) -> Outcome:
        network = evidence.network
        network.head.weight.data += 1e-3 * torch.randn_like(network.head.weight)
        return Outcome(classifier=network)


class Wiping(Tuning):
    needs = frozenset({Need.MODEL, Need.CLEAN_DATA})

    def defend(self, evidence: Evidence) -> Outcome:
        evidence.clean.images.zero_()
        return super().defend(evidence)


class EmptyHanded(Tuning):
    def defend(self, evidence: Evidence) -> Outcome:
        return Outcome()


class Wrapped(Classifier):
    """A classifier around the victim."""

    def __init__(self, inner: Classifier) -> None:
        super().__init__()
        self.inner, self.num_classes = inner, inner.num_classes

    def config(self) -> dict[str, Any]:
        return {"inner": self.inner}

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images)
        return logits


class Comparing(Wrapped):
    """Uses the batch."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits - logits.mean(0)


class Rejecting(Wrapped):
    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return torch.cat([logits, logits.amin(1, keepdim=True)], 1)


class Shifted(Wrapped):
    """Keeps a tensor where neither storage nor `.to(device)` finds it."""

    def __init__(self, inner: Classifier) -> None:
        super().__init__(inner)
        self.shift = torch.zeros(1)

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + self.shift


def wrapping(wrapper: type[Wrapped], shift: float = 0.0) -> Defense:
    class Wrapping(Tuning):
        def defend(self, evidence: Evidence) -> Outcome:
            made = wrapper(evidence.classifier).eval()
            if isinstance(made, Shifted):
                made.shift += shift
            return Outcome(classifier=made)

    return Wrapping()


class Bright(InputDetector):
    """The mean pixel plus `bias`; with `compare`, less that of the batch. `factor` is lost when it is stored."""

    threshold = 0.5

    def __init__(self, bias: float = 0.0, compare: bool = False) -> None:
        super().__init__()
        self.bias, self.compare, self.factor = bias, compare, 1.0

    def config(self) -> dict[str, Any]:
        return {"bias": self.bias, "compare": self.compare}

    def score(self, images: Tensor) -> Tensor:
        scores = self.factor * (images.flatten(1).float().mean(1) / 255 + self.bias)
        return scores - scores.mean() if self.compare else scores


def detecting(noise: float = 0.0, compare: bool = False, factor: float = 1.0) -> Defense:
    class Detecting(Tuning):
        gives = frozenset({Give.DETECTOR})

        def defend(self, evidence: Evidence) -> Outcome:
            detector = Bright(noise * float(torch.rand(())), compare)
            detector.factor = factor
            return Outcome(detector=detector)

    return Detecting()


class Tabulating(Tuning):
    def defend(self, evidence: Evidence) -> Outcome:
        return Outcome(classifier=evidence.classifier, tables={"t": [{"acc": torch.zeros(1)}]})


class Destroying(Tuning):
    def defend(self, evidence: Evidence) -> Outcome:
        network: Network = evidence.network
        network.head.weight.data.zero_()
        return Outcome(classifier=network)


class StoppingTheClock(Tuning):
    def defend(self, evidence: Evidence) -> Outcome:
        time.perf_counter = lambda: 0.0
        return super().defend(evidence)


BROKEN_DEFENSES: list[tuple[str, Callable[[], Defense], str]] = [
    ("can-be-registered", LooselyTyped, "needs to be a frozenset of gatecrash.Need"),
    ("uses-only-what-it-declares", Peeking, "got a look at evidence.clean. To mend it: add Need.CLEAN_DATA"),
    ("uses-only-what-it-declares", Starting, "got training from scratch. To mend it: add Need.RETRAIN"),
    ("is-deterministic", Noisy, "got another classifier. To mend it: draw only from evidence.stream"),
    ("leaves-its-inputs-alone", Wiping, "got another hold-out"),
    ("gives-a-valid-outcome", EmptyHanded, "declares a classifier but its outcome has none"),
    ("gives-a-valid-outcome", lambda: wrapping(Comparing), "uses the batch"),
    ("gives-a-valid-outcome", lambda: wrapping(Rejecting), "expected 10 logits, for gives has no REJECT; got 11"),
    ("gives-a-valid-outcome", Tabulating, "writing the table 't' as JSON"),
    ("outcome-can-be-stored", lambda: wrapping(Shifted, shift=1.0), "answer the same after it was stored"),
    ("detector-scores-each-image", lambda: detecting(compare=True), "the detector uses the batch"),
    ("detector-scores-each-image", lambda: detecting(factor=2.0), "the same scores after it was stored"),
    ("detector-scores-each-image", lambda: detecting(noise=1.0), "the same scores with the same seed"),
    ("benign-victim-survives", Destroying, r"at most 20% accuracy .* got ACC 0\.9\d+ before, 0\.\d+ after"),
    ("honours-the-device", lambda: wrapping(Shifted), "a tensor in a plain attribute, shift"),
    ("time-and-memory-are-reported", StoppingTheClock, "positive seconds"),
]


@pytest.mark.parametrize(("name", "make", "said"), BROKEN_DEFENSES)
def test_a_broken_defense_is_caught(name: str, make: Callable[[], Defense], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter", time.perf_counter)  # put back after the one that stops the clock
    with pytest.raises(CheckFailed, match=said):
        run_check(make(), name)
