"""The Defense contract: what a defender may see (Evidence) and what it hands back (Outcome).

The evidence holds exactly what the defense declares in `needs`, and never the test set, the trigger, the goal or the attack's name:
there is nothing in it to tune on that a real defender would not have.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Literal, NoReturn

import torch
from torch import Tensor

from gatecrash.attack import Train
from gatecrash.classifier import Classifier, Network
from gatecrash.config import Config as Options
from gatecrash.data import ImageSet
from gatecrash.errors import ContractError, NotApplicable
from gatecrash.randomness import Streams
from gatecrash.recipe import Recipe
from gatecrash.reference import Reference

MAX_STEPS = 32
"""A trajectory holds at most this many steps."""


class Need(StrEnum):
    """What a defense must be given."""

    MODEL = "model"
    CLEAN_DATA = "clean-data"
    TRAINING_DATA = "training-data"
    RETRAIN = "retrain"
    """May train a model from scratch: `recipe` and `new_model`."""
    FEATURES = "features"
    """The victim's penultimate activations on the training data, computed once for all defenses of a grid that declare it."""


class Give(StrEnum):
    """What a defense hands back."""

    CLASSIFIER = "classifier"
    REJECT = "reject"
    """A classifier with a reject class."""
    SUSPECTS = "suspects"
    VERDICT = "verdict"


Access = Literal["model + clean data", "training data", "training-time", "input-time"]
"""Classes of defenses that may be compared with each other."""


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


@dataclass(frozen=True)
class Evidence:
    """What the defender has. Reading a field that `needs` does not declare raises ContractError."""

    needs: frozenset[Need]
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    device: torch.device
    stream: Streams
    """Random streams of this defense and seed."""
    train: Train
    """The training engine: fine-tunes a given network; from scratch (with RETRAIN) when none is given."""
    batches: Callable[..., Iterator[Any]]
    """`batches(tensor, ..., size=None)`: the tensors in consecutive, memory-sized batches on `device`."""
    flip: bool
    """Whether mirroring an image keeps its class."""
    prior: Outcome | None = None
    """The outcome of the stage before, in a chain; `suspects` there refer to that stage's rows."""
    _classifier: Classifier | None = None
    _clean: ImageSet | None = None
    _training_data: ImageSet | None = None
    _recipe: Recipe | None = None
    _new_model: Callable[[], Network] | None = None
    _features: Tensor | None = None

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def classifier(self) -> Classifier:
        """The victim, or the last stage's classifier; yours to change: it is a copy."""
        return self._classifier if self._classifier is not None else _undeclared("classifier", Need.MODEL)

    @property
    def network(self) -> Network:
        """The classifier as a Network, for defenses that reach inside; NotApplicable for any other classifier."""
        if not isinstance(self.classifier, Network):
            raise NotApplicable(f"the classifier is a {type(self.classifier).__name__}, whose inside (points, norms) cannot be reached")
        return self.classifier

    @property
    def clean(self) -> ImageSet:
        """The clean hold-out: never part of the victim's training data, and not the test set."""
        return self._clean if self._clean is not None else _undeclared("clean", Need.CLEAN_DATA)

    @property
    def training_data(self) -> ImageSet:
        """The suspicious training set, in training order, minus the suspects of earlier stages; no roles."""
        return self._training_data if self._training_data is not None else _undeclared("training_data", Need.TRAINING_DATA)

    @property
    def features(self) -> Tensor:
        """The head's input for each row of the training data, float32 [N, F]: `network.features` of the classifier as it was given."""
        return self._features if self._features is not None else _undeclared("features", Need.FEATURES)

    @property
    def recipe(self) -> Recipe:
        """The recipe that the victim was trained with."""
        return self._recipe if self._recipe is not None else _undeclared("recipe", Need.RETRAIN)

    @property
    def new_model(self) -> Callable[[], Network]:
        """A factory of freshly initialised networks of the grid's model."""
        return self._new_model if self._new_model is not None else _undeclared("new_model", Need.RETRAIN)


def no_retraining() -> Network:
    """What `train` calls for a network where the defense did not declare RETRAIN."""
    raise ContractError("evidence.train was called without `network=`, but Need.RETRAIN is not in the defense's `needs`")


def _undeclared(what: str, need: Need) -> NoReturn:
    raise ContractError(f"evidence.{what} was read, but Need.{need.name} is not in the defense's `needs`")


class Defense(ABC):
    """One defense = one subclass in one file."""

    name: ClassVar[str]
    summary: ClassVar[str]
    reference: ClassVar[Reference | None] = None
    version: ClassVar[int] = 1
    """Raise it whenever the numbers may change: it is part of every key."""
    needs: ClassVar[frozenset[Need]]
    gives: ClassVar[frozenset[Give]]

    class Config(Options):
        """No options."""

    def __init__(self, config: Config | None = None) -> None:
        self.config: Any = config if config is not None else self.Config()

    @abstractmethod
    def defend(self, evidence: Evidence) -> Outcome:
        """Use the evidence; never assume more than `needs` declares."""


def access_class(needs: frozenset[Need], gives: frozenset[Give]) -> Access:
    """Defenses are ranked within one of these: more access is an easier game."""
    if Give.REJECT in gives:
        return "input-time"
    if Need.TRAINING_DATA in needs and not needs & {Need.MODEL, Need.FEATURES}:
        return "training-time"
    return "training data" if needs & {Need.TRAINING_DATA, Need.FEATURES} else "model + clean data"
