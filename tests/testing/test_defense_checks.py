"""Each check of a defense catches a defense that breaks its promise."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import Field
from torch import Tensor

from gatecrash import (
    Classifier,
    Defense,
    Evidence,
    Give,
    InputDetector,
    Need,
    Network,
    Options,
    Outcome,
    Recipe,
)
from gatecrash.testing import CheckFailed, checks_for
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


class Overasking(Tuning):
    """Is compared with defenses that retrain, and does not."""

    needs = frozenset({Need.MODEL, Need.CLEAN_DATA, Need.RETRAIN})

    def defend(self, evidence: Evidence) -> Outcome:
        evidence.clean  # noqa: B018
        return super().defend(evidence)


FIXED = 7


class OneSeed(Tuning):
    def defend(self, evidence: Evidence) -> Outcome:
        torch.manual_seed(FIXED)
        network = evidence.network
        network.head.weight.data += 1e-3 * torch.randn_like(network.head.weight)
        return Outcome(classifier=network)


class Filter(Defense):
    """Suspects a tenth of the rows; the subclasses find another suspicion."""

    name = "filter"
    summary = "suspects some rows"
    reference = Tuning.reference
    needs = frozenset({Need.TRAINING_DATA})
    gives = frozenset({Give.SUSPECTS})

    def suspicion(self, rows: int) -> Tensor:
        return torch.linspace(0, 1, rows)

    def defend(self, evidence: Evidence) -> Outcome:
        suspicion = self.suspicion(len(evidence.training_data))
        return Outcome(suspects=suspicion > 0.9, suspicion=suspicion)


class Paranoid(Filter):
    def suspicion(self, rows: int) -> Tensor:
        return torch.ones(rows)


class Undefined(Filter):
    def suspicion(self, rows: int) -> Tensor:
        return torch.full((rows,), float("nan"))


class Brightness(InputDetector):
    """Scores the mean pixel; the subclasses do something wrong."""

    def __init__(self, threshold: float = 200.0) -> None:
        super().__init__()
        self.threshold = threshold

    def config(self) -> dict[str, Any]:
        return {"threshold": self.threshold}

    def score(self, images: Tensor) -> Tensor:
        return images.float().mean((1, 2, 3))


class Comparative(Brightness):
    """Scores relative to the batch."""

    def score(self, images: Tensor) -> Tensor:
        scores = super().score(images)
        return scores - scores.mean()


class Amnesic(Brightness):
    """Forgets a tensor."""

    def __init__(self, threshold: float = 200.0) -> None:
        super().__init__(threshold)
        self.offset = torch.zeros(1)

    def score(self, images: Tensor) -> Tensor:
        return super().score(images) + self.offset


def detecting(detector: type[Brightness], threshold: float = 200.0, offset: float = 0.0, noise: float = 0.0) -> Defense:
    class Detecting(Defense):
        """Watches inputs."""

        name, summary, reference = "detecting", "watches inputs", Tuning.reference
        needs, gives = frozenset[Need](), frozenset({Give.DETECTOR})

        def defend(self, evidence: Evidence) -> Outcome:
            made = detector(threshold + noise * float(torch.rand(())))
            if isinstance(made, Amnesic):
                made.offset += offset
            return Outcome(detector=made)

    return Detecting()


class DigitsOnly(Tuning):
    needs = frozenset({Need.MODEL, Need.CLEAN_DATA})

    def defend(self, evidence: Evidence) -> Outcome:
        evidence.classifier(evidence.clean.images * torch.ones(16, 16, dtype=torch.uint8))
        return super().defend(evidence)


class SmallCnnOnly(Tuning):
    def defend(self, evidence: Evidence) -> Outcome:
        evidence.network.backbone.block1  # noqa: B018
        return super().defend(evidence)


class Choosy(Tuning):
    class Config(Options):
        """A switch that breaks it."""

        hard: bool = Field(False, description="whether to fail")

    config: Config

    def defend(self, evidence: Evidence) -> Outcome:
        return Outcome() if self.config.hard else super().defend(evidence)


class Hoarding(Tuning):
    """Keeps 0.6 GB in the class, as a cache would."""

    kept: list[Tensor] = []

    def defend(self, evidence: Evidence) -> Outcome:
        self.kept.append(torch.ones(600 << 20, dtype=torch.uint8))
        return super().defend(evidence)


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
    ("reads-what-it-needs", Overasking, "got no use of retrain. To mend it: take Need.RETRAIN out of needs"),
    ("uses-its-seed", OneSeed, r"always starts the same \(line \d+: torch.manual_seed\(FIXED\)\)"),
    ("suspects-some-rows-only", Paranoid, "got every row suspect"),
    ("is-deterministic", lambda: detecting(Brightness, noise=1.0), "got another detector. To mend it: draw only from evidence.stream"),
    ("rejects-some-images-only", lambda: detecting(Brightness, -1.0), "got 100%. To mend it: check the sign of the score"),
    ("gives-a-valid-outcome", lambda: detecting(Comparative), "expected the detector to pass the evaluation on 1x16x16 images"),
    ("outcome-can-be-stored", lambda: detecting(Amnesic, offset=1.0), "expected the detector to answer the same after it was stored"),
    ("honours-the-device", lambda: detecting(Amnesic), "a tensor in a plain attribute, offset"),
    ("works-on-other-images", DigitsOnly, r"defend\(\) on the digits \(3x20x24\) to finish"),
    ("works-on-other-images", SmallCnnOnly, "has no attribute 'block1'"),
    ("every-choice-works", Choosy, "expected hard=True to work: a valid outcome .*declares a classifier but its outcome has none"),
    ("keeps-little-memory", Hoarding, r"at most 512 MiB of memory; got [56]\d\d MiB more"),
    ("gives-a-valid-outcome", Undefined, "suspicion has NaN"),
    ("is-deterministic", Noisy, "got another classifier. To mend it: draw only from evidence.stream"),
    ("leaves-its-inputs-alone", Wiping, "got another hold-out"),
    ("gives-a-valid-outcome", EmptyHanded, "declares a classifier but its outcome has none"),
    ("gives-a-valid-outcome", lambda: wrapping(Comparing), "uses the batch"),
    ("gives-a-valid-outcome", lambda: wrapping(Rejecting), "expected 10 logits, for gives has no REJECT; got 11"),
    ("gives-a-valid-outcome", Tabulating, "writing the table 't' as JSON"),
    ("outcome-can-be-stored", lambda: wrapping(Shifted, shift=1.0), "answer the same after it was stored"),
    ("benign-victim-survives", Destroying, r"at most 20% accuracy .* got ACC 0\.9\d+ before, 0\.\d+ after"),
    ("honours-the-device", lambda: wrapping(Shifted), "a tensor in a plain attribute, shift"),
    ("time-and-memory-are-reported", StoppingTheClock, "positive seconds"),
]


@pytest.mark.parametrize(("name", "make", "said"), BROKEN_DEFENSES)
def test_a_broken_defense_is_caught(name: str, make: Callable[[], Defense], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hoarding, "kept", [])
    monkeypatch.setattr(time, "perf_counter", time.perf_counter)  # put back after the one that stops the clock
    with pytest.raises(CheckFailed, match=said):
        run_check(make(), name)


def test_scores_that_are_not_numbers_are_not_called_random() -> None:
    run_check(Undefined(), "is-deterministic")


def test_a_filter_that_suspects_some_rows_passes() -> None:
    for check in checks_for(Filter(), quick=True):
        check(Filter())


def test_a_sound_detector_passes() -> None:
    for check in checks_for(detecting(Brightness), quick=True):
        if check.name != "can-be-pickled":  # it is made in a function
            check(detecting(Brightness))
