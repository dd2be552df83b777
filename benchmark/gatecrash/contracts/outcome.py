"""What a defense hands back: a classifier, suspects, a verdict, a trajectory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from gatecrash.contracts.classifier import Classifier
from gatecrash.errors import ContractError

MAX_STEPS = 32
"""A trajectory holds at most this many steps."""


class Give(StrEnum):
    """What a defense hands back."""

    CLASSIFIER = "classifier"
    REJECT = "reject"
    """A classifier with a reject class."""
    SUSPECTS = "suspects"
    VERDICT = "verdict"


@dataclass(frozen=True)
class Verdict:
    """What a defense says of the model as a whole."""

    backdoored: bool
    probability: float | None = None
    targets: tuple[int, ...] = ()
    """Classes accused of being a backdoor's target."""
    anomaly: Mapping[int, float] = field(default_factory=dict)
    """Anomaly index per class."""


@dataclass(frozen=True)
class Step:
    """One place on a defense's way: its parameters, and the state-dict entries that differ from the classifier it was given.

    The evaluation scores each step; the defense cannot choose by it.
    """

    params: Mapping[str, float | int | str]
    changes: Mapping[str, Tensor]


@dataclass(frozen=True)
class Outcome:
    """What a defense found and made; every field is optional.

    `suspects` bool [N] and `suspicion` float [N] (higher = more suspect) refer to the rows of `evidence.training_data`. `figures` are
    uint8 images [1 or 3, H, W], kept as PNG files; `tables` are lists of flat records.
    """

    classifier: Classifier | None = None
    suspects: Tensor | None = None
    suspicion: Tensor | None = None
    verdict: Verdict | None = None
    trajectory: Sequence[Step] = ()
    figures: Mapping[str, Tensor] = field(default_factory=dict)
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)

    def check(self, gives: frozenset[Give], rows: int | None, num_classes: int) -> None:
        """Raise ContractError unless the outcome keeps what the defense declared."""
        if self.classifier is None and gives & {Give.CLASSIFIER, Give.REJECT}:
            raise ContractError("the defense declares a classifier but its outcome has none")
        if self.classifier is not None and not gives & {Give.CLASSIFIER, Give.REJECT}:
            raise ContractError("the outcome has a classifier but the defense does not declare CLASSIFIER or REJECT in gives")
        if self.suspects is None and Give.SUSPECTS in gives:
            raise ContractError("the defense declares SUSPECTS but its outcome has none")
        if self.verdict is None and Give.VERDICT in gives:
            raise ContractError("the defense declares VERDICT but its outcome has none")
        for what, value, dtypes in (
            ("suspects", self.suspects, (torch.bool,)),
            ("suspicion", self.suspicion, (torch.float32, torch.float64)),
        ):
            if value is None:
                continue
            if rows is None:
                raise ContractError(f"{what} refer to training rows, but the defense does not need TRAINING_DATA")
            if value.dtype not in dtypes or value.shape != (rows,):
                raise ContractError(f"{what} must be {dtypes[0]} [{rows}]; got {value.dtype} {list(value.shape)}")
        if self.suspicion is not None and not bool(torch.isfinite(self.suspicion).all()):
            raise ContractError("suspicion has NaN or infinite scores")
        if self.verdict is not None:
            named = set(self.verdict.targets) | set(self.verdict.anomaly)
            if any(not 0 <= label < num_classes for label in named):
                raise ContractError(f"the verdict names classes outside 0..{num_classes - 1}: {sorted(named)}")
            if self.verdict.probability is not None and not 0 <= self.verdict.probability <= 1:
                raise ContractError(f"verdict.probability must lie in [0, 1]; got {self.verdict.probability}")
        for name, image in self.figures.items():
            if not isinstance(name, str) or not name or not name.isprintable():
                raise ContractError(f"a figure's name must be text that can be printed; got {name!r}")
            if (
                not isinstance(image, Tensor)
                or image.dtype != torch.uint8
                or image.ndim != 3
                or len(image) not in (1, 3)
                or not image.numel()
            ):
                got = f"{image.dtype} {list(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
                raise ContractError(f"figure {name!r} must be a picture, uint8 [1 or 3, H, W]; got {got}")
        if len(self.trajectory) > MAX_STEPS:
            raise ContractError(f"a trajectory has at most {MAX_STEPS} steps; got {len(self.trajectory)}")
        if self.trajectory and self.classifier is None:
            raise ContractError("a trajectory needs a classifier in the outcome")
