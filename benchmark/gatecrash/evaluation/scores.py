"""What one classifier does to the test set: counts, and the rates that follow from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Self

from gatecrash.evaluation.intervals import wilson
from gatecrash.evaluation.metrics import share


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
    recovered: int
    """Classified as their true label."""
    rejected: int | None
    """None for a classifier without a reject class."""
    loss: float | None
    """Mean cross-entropy against the goal's labels, in nats."""

    @property
    def asr(self) -> float | None:
        return share(self.hits, self.eligible)

    @property
    def ra(self) -> float | None:
        return share(self.recovered, self.eligible)

    @property
    def trigger_reject_rate(self) -> float | None:
        return None if self.rejected is None else share(self.rejected, self.eligible)

    @property
    def asr_interval(self) -> tuple[float, float] | None:
        return wilson(self.hits, self.eligible)

    @property
    def ra_interval(self) -> tuple[float, float] | None:
        return wilson(self.recovered, self.eligible)


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

    @property
    def acc(self) -> float | None:
        """Clean accuracy; a rejected image counts as wrong."""
        return share(self.correct, self.n_test)

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
    def trigger_reject_rate(self) -> float | None:
        return _mean(backdoor.trigger_reject_rate for backdoor in self.backdoors)

    @property
    def loss_poison(self) -> float | None:
        """Mean over backdoors of the cross-entropy against the goal's labels."""
        return _mean(backdoor.loss for backdoor in self.backdoors)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        backdoors = tuple(BackdoorScores(**{**each, "targets": tuple(each["targets"])}) for each in fields["backdoors"])
        return cls(**{**fields, "backdoors": backdoors})


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


def _mean(values: Iterator[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _mean_limits(limits: Iterator[tuple[float, float] | None]) -> tuple[float, float] | None:
    known = [each for each in limits if each is not None]
    return (fmean(low for low, _ in known), fmean(high for _, high in known)) if known else None
