"""What a defense returns: a classifier, a detector of inputs, suspects, a verdict, a trajectory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from gatecrash.contracts.classifier import Classifier
from gatecrash.contracts.detector import InputDetector
from gatecrash.errors import ContractError

MAX_STEPS = 32
"""The most steps that a trajectory may have."""


class Give(StrEnum):
    """What a defense returns."""

    CLASSIFIER = "classifier"
    REJECT = "reject"
    """A classifier with a reject class."""
    DETECTOR = "detector"
    """A detector of poisoned inputs, from which the harness builds a classifier with a reject class."""
    SUSPECTS = "suspects"
    VERDICT = "verdict"


@dataclass(frozen=True)
class Verdict:
    """Whether a defense takes the model as a whole for backdoored."""

    backdoored: bool
    probability: float | None = None
    """That the model is backdoored, in [0, 1]."""
    targets: tuple[int, ...] = ()
    """Classes accused of being a backdoor's target."""
    anomaly: Mapping[int, float] = field(default_factory=dict)
    """Anomaly index per class; higher is more suspect."""


@dataclass(frozen=True)
class Step:
    """One setting that a defense tried (a pruning threshold, say): its parameters, and the state-dict entries that it changes.

    `changes` holds the entries of the returned classifier's state dict that differ at this step. The evaluation scores each step after
    the defense has ended, so the defense cannot choose by these scores.
    """

    params: Mapping[str, float | int | str]
    changes: Mapping[str, Tensor]


@dataclass(frozen=True)
class Outcome:
    """What a defense returns; every field is optional.

    `suspects` bool [N] and `suspicion` float [N] (higher = more suspect) refer to the rows of `evidence.training_data`. `figures` are
    uint8 images [1 or 3, H, W], kept as PNG files; `tables` are lists of flat records. `detector` scores inputs of the deployed
    classifier: of `classifier`, else of the one that the defense was given; in a chain of what the later stages make of it.
    """

    classifier: Classifier | None = None
    suspects: Tensor | None = None
    suspicion: Tensor | None = None
    verdict: Verdict | None = None
    trajectory: Sequence[Step] = ()
    figures: Mapping[str, Tensor] = field(default_factory=dict)
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    detector: InputDetector | None = None

    def check(self, gives: frozenset[Give], rows: int | None, num_classes: int) -> None:
        """Raise ContractError unless the outcome keeps what the defense declared.

        `rows` is the number of training rows that the defense saw, None where it does not need TRAINING_DATA.
        """
        self._check_declared(gives)
        self._check_rows(rows)
        if self.detector is not None:
            _check_detector(self.detector)
        if self.verdict is not None:
            _check_verdict(self.verdict, num_classes)
        for name, image in self.figures.items():
            _check_figure(name, image)
        if len(self.trajectory) > MAX_STEPS:
            raise ContractError(f"a trajectory has at most {MAX_STEPS} steps; got {len(self.trajectory)}")
        if self.trajectory and self.classifier is None:
            raise ContractError("a trajectory needs a classifier in the outcome")

    def _check_declared(self, gives: frozenset[Give]) -> None:
        gives_classifier = bool(gives & {Give.CLASSIFIER, Give.REJECT})
        if self.classifier is None and gives_classifier:
            raise ContractError("the defense declares a classifier but its outcome has none")
        if self.classifier is not None and not gives_classifier:
            raise ContractError("the outcome has a classifier but the defense does not declare CLASSIFIER or REJECT in gives")
        if self.detector is None and Give.DETECTOR in gives:
            raise ContractError("the defense declares DETECTOR but its outcome has none")
        if self.detector is not None and Give.DETECTOR not in gives:
            raise ContractError("the outcome has a detector but the defense does not declare DETECTOR in gives")
        if self.suspects is None and Give.SUSPECTS in gives:
            raise ContractError("the defense declares SUSPECTS but its outcome has none")
        if self.verdict is None and Give.VERDICT in gives:
            raise ContractError("the defense declares VERDICT but its outcome has none")

    def _check_rows(self, rows: int | None) -> None:
        _check_per_row("suspects", self.suspects, rows, (torch.bool,))
        _check_per_row("suspicion", self.suspicion, rows, (torch.float32, torch.float64))
        if self.suspicion is not None and not bool(torch.isfinite(self.suspicion).all()):
            raise ContractError("suspicion has NaN or infinite scores")


def _check_per_row(what: str, values: Tensor | None, rows: int | None, dtypes: tuple[torch.dtype, ...]) -> None:
    if values is None:
        return
    if rows is None:
        raise ContractError(f"{what} refer to training rows, but the defense does not need TRAINING_DATA")
    if values.dtype not in dtypes or values.shape != (rows,):
        raise ContractError(f"{what} must be {dtypes[0]} [{rows}]; got {values.dtype} {list(values.shape)}")


def _check_detector(detector: object) -> None:
    if not isinstance(detector, InputDetector):
        raise ContractError(f"the outcome's detector is a {type(detector).__name__}, not a gatecrash.InputDetector")
    try:
        threshold = float(detector.threshold)
    except (AttributeError, TypeError, ValueError, RuntimeError):
        threshold = math.nan
    if not math.isfinite(threshold):
        raise ContractError("a detector needs a finite threshold: one number of its config(), or a buffer of one element")
    if detector.max_images is not None and detector.max_images < 2:
        raise ContractError(f"a detector's max_images is None or at least 2; got {detector.max_images}")


def _check_verdict(verdict: Verdict, num_classes: int) -> None:
    named = set(verdict.targets) | set(verdict.anomaly)
    if any(not 0 <= label < num_classes for label in named):
        raise ContractError(f"the verdict names classes outside 0..{num_classes - 1}: {sorted(named)}")
    if verdict.probability is not None and not 0 <= verdict.probability <= 1:
        raise ContractError(f"verdict.probability must lie in [0, 1]; got {verdict.probability}")


def _check_figure(name: object, image: object) -> None:
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ContractError(f"a figure's name must be text that can be printed; got {name!r}")
    if not isinstance(image, Tensor):
        raise ContractError(f"figure {name!r} must be a picture, uint8 [1 or 3, H, W]; got {type(image).__name__}")
    if image.dtype != torch.uint8 or image.ndim != 3 or len(image) not in (1, 3) or not image.numel():
        raise ContractError(f"figure {name!r} must be a picture, uint8 [1 or 3, H, W]; got {image.dtype} {list(image.shape)}")
