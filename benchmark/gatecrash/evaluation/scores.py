"""What one classifier does to the test set: counts, and the rates that follow from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any, Self, TypeVar

from gatecrash.evaluation.intervals import wilson
from gatecrash.evaluation.metrics import share

C = TypeVar("C")
Counts = tuple[int, ...]
"""A count for each true class, in the order of the classes."""


@dataclass(frozen=True)
class ClassCounts:
    """Clean test images of each class."""

    total: Counts
    correct: Counts
    rejected: Counts | None
    """None for a classifier without a reject class."""


@dataclass(frozen=True)
class BackdoorClassCounts:
    """Eligible test images of each true class, triggered."""

    eligible: Counts
    hits: Counts
    recovered: Counts
    rejected: Counts | None


@dataclass(frozen=True)
class BackdoorScores:
    """Counts over the eligible test images of one backdoor, triggered."""

    name: str
    kind: str
    """The kind of its goal."""
    targets: tuple[int, ...]
    eligible: int
    hits: int
    """Classified as the goal says."""
    recovered: int | None
    """Classified as their true label; None where the images are the attack's own, whose true labels nobody knows."""
    rejected: int | None
    """None for a classifier without a reject class."""
    loss: float | None
    """Mean cross-entropy against the goal's labels, in nats."""
    classes: BackdoorClassCounts | None = None
    """By true class; None in results of evaluation version 1, in the steps of a trajectory, and for images of the attack's own."""
    kept: int | None = None
    """Triggered images of classes that must keep their label; None where no class must."""
    leaked: int | None = None
    """Of these, classified as one of the goal's targets."""
    covered: int | None = None
    """Images under the cover trigger; None where there is none."""
    cover_correct: int | None = None
    """Of these, classified as their true label."""

    @property
    def asr(self) -> float | None:
        return share(self.hits, self.eligible)

    @property
    def ra(self) -> float | None:
        return None if self.recovered is None else share(self.recovered, self.eligible)

    @property
    def leak(self) -> float | None:
        return None if self.leaked is None or self.kept is None else share(self.leaked, self.kept)

    @property
    def cover_acc(self) -> float | None:
        return None if self.cover_correct is None or self.covered is None else share(self.cover_correct, self.covered)

    @property
    def trigger_reject_rate(self) -> float | None:
        return None if self.rejected is None else share(self.rejected, self.eligible)

    @property
    def asr_interval(self) -> tuple[float, float] | None:
        return wilson(self.hits, self.eligible)

    @property
    def ra_interval(self) -> tuple[float, float] | None:
        return None if self.recovered is None else wilson(self.recovered, self.eligible)

    @property
    def leak_interval(self) -> tuple[float, float] | None:
        return None if self.leaked is None or self.kept is None else wilson(self.leaked, self.kept)

    @property
    def cover_acc_interval(self) -> tuple[float, float] | None:
        return None if self.cover_correct is None or self.covered is None else wilson(self.cover_correct, self.covered)

    def to_json(self) -> dict[str, Any]:
        """JSON values without the counts that are not there, as in older files."""
        newer = ("classes", "kept", "leaked", "covered", "cover_correct")
        return {name: value for name, value in asdict(self).items() if name not in newer or value is not None}


@dataclass(frozen=True)
class Scores:
    """What one classifier does to the test set; rates are fractions in [0, 1], None where there is nothing to count."""

    n_test: int
    correct: int
    rejected: int | None
    """Clean images that were rejected; None for a classifier without a reject class."""
    loss_clean: float | None
    """Mean cross-entropy on clean images, in nats."""
    backdoors: tuple[BackdoorScores, ...] = ()
    classes: ClassCounts | None = None
    """The counts of clean images by class; None in results of evaluation version 1, and in the steps of a trajectory."""

    @property
    def acc(self) -> float | None:
        """Clean accuracy; a rejected image counts as wrong."""
        return share(self.correct, self.n_test)

    @property
    def acc_macro(self) -> float | None:
        """Mean over the classes of their clean accuracy: each class counts alike, however many images it has."""
        return None if self.classes is None else _mean(_accuracies(self.classes, range(len(self.classes.total))))

    @property
    def acc_target(self) -> float | None:
        """Mean clean accuracy of the backdoors' target classes; None without a backdoor."""
        targets = sorted({target for backdoor in self.backdoors for target in backdoor.targets})
        return None if self.classes is None else _mean(_accuracies(self.classes, targets))

    @property
    def acc_interval(self) -> tuple[float, float] | None:
        return wilson(self.correct, self.n_test)

    @property
    def clean_reject_rate(self) -> float | None:
        return None if self.rejected is None else share(self.rejected, self.n_test)

    @property
    def asr(self) -> float | None:
        """Mean over backdoors; a rejected image counts as a failed attack."""
        return _mean(backdoor.asr for backdoor in self.backdoors)

    @property
    def asr_interval(self) -> tuple[float, float] | None:
        """Mean limits over backdoors: with several, at least as wide as 95% asks for, however their errors go together."""
        return _mean_limits(backdoor.asr_interval for backdoor in self.backdoors)

    @property
    def asr_worst(self) -> float | None:
        return max((backdoor.asr for backdoor in self.backdoors if backdoor.asr is not None), default=None)

    @property
    def asr_by_backdoor(self) -> dict[str, float | None]:
        return {backdoor.name: backdoor.asr for backdoor in self.backdoors}

    @property
    def ra(self) -> float | None:
        """Mean over backdoors of the triggered images' share that got their true label."""
        return _mean(backdoor.ra for backdoor in self.backdoors)

    @property
    def ra_interval(self) -> tuple[float, float] | None:
        return _mean_limits(backdoor.ra_interval for backdoor in self.backdoors)

    @property
    def leak(self) -> float | None:
        """Mean over backdoors of the triggered images that were sent to a target although they should have kept their label."""
        return _mean(backdoor.leak for backdoor in self.backdoors)

    @property
    def leak_interval(self) -> tuple[float, float] | None:
        return _mean_limits(backdoor.leak_interval for backdoor in self.backdoors)

    @property
    def cover_acc(self) -> float | None:
        """Mean over backdoors of the images under the cover trigger that got their true label."""
        return _mean(backdoor.cover_acc for backdoor in self.backdoors)

    @property
    def cover_acc_interval(self) -> tuple[float, float] | None:
        return _mean_limits(backdoor.cover_acc_interval for backdoor in self.backdoors)

    @property
    def trigger_reject_rate(self) -> float | None:
        return _mean(backdoor.trigger_reject_rate for backdoor in self.backdoors)

    @property
    def loss_poison(self) -> float | None:
        """Mean over backdoors of the cross-entropy against the goal's labels."""
        return _mean(backdoor.loss for backdoor in self.backdoors)

    def without_classes(self) -> Self:
        """The same without the counts by class."""
        return replace(self, classes=None, backdoors=tuple(replace(backdoor, classes=None) for backdoor in self.backdoors))

    def without_leak(self) -> Self:
        """The same without the counts of images that should keep their label."""
        return replace(self, backdoors=tuple(replace(backdoor, kept=None, leaked=None) for backdoor in self.backdoors))

    def to_json(self) -> dict[str, Any]:
        """JSON values; counts by class that are not there are left out, as in files of evaluation version 1."""
        fields = asdict(self) | {"backdoors": [backdoor.to_json() for backdoor in self.backdoors]}
        return fields if self.classes is not None else {name: value for name, value in fields.items() if name != "classes"}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        backdoors = tuple(
            BackdoorScores(**{**each, "targets": tuple(each["targets"]), "classes": _counts(BackdoorClassCounts, each.get("classes"))})
            for each in fields["backdoors"]
        )
        return cls(**{**fields, "backdoors": backdoors, "classes": _counts(ClassCounts, fields.get("classes"))})


@dataclass(frozen=True)
class StepScores:
    """The scores of one step of a defense's trajectory."""

    params: Mapping[str, float | int | str]
    scores: Scores

    def to_json(self) -> dict[str, Any]:
        return {"params": dict(self.params), "scores": self.scores.to_json()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        return cls(fields["params"], Scores.from_json(fields["scores"]))


def _accuracies(counts: ClassCounts, classes: Iterable[int]) -> Iterator[float | None]:
    return (share(counts.correct[label], counts.total[label]) for label in classes)


def _counts(kind: type[C], fields: Mapping[str, Sequence[int] | None] | None) -> C | None:
    return None if fields is None else kind(**{name: None if counts is None else tuple(counts) for name, counts in fields.items()})


def _mean(values: Iterator[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _mean_limits(limits: Iterator[tuple[float, float] | None]) -> tuple[float, float] | None:
    known = [each for each in limits if each is not None]
    return (fmean(low for low, _ in known), fmean(high for _, high in known)) if known else None


def retune_rates(scores: Sequence[Scores], control: Sequence[Scores]) -> dict[str, float | None]:
    """Of `retune`, means over the draws: ACC, ASR, and the excess of ASR over the benign victim's; None for what no draw has."""
    asr, plain = (_known_mean([draw.asr for draw in draws]) for draws in (scores, control))
    excess = None if asr is None or plain is None else asr - plain
    return {"retune_acc": _known_mean([draw.acc for draw in scores]), "retune_asr": asr, "retune_excess": excess}


def _known_mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
