"""What a defend task is given, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from gatecrash.contracts.classifier import Classifier
from gatecrash.contracts.data import ImageSet, own_copy
from gatecrash.contracts.portable import rebuild
from gatecrash.datasets.clean_data import CleanData
from gatecrash.engine.precision import Precision
from gatecrash.errors import ContractError
from gatecrash.process.mapped import copied
from gatecrash.records.victim import StoredVictim
from gatecrash.running.tasks.ground import Ground, TrainPart
from gatecrash.running.tasks.stored import classifier_state


@dataclass(frozen=True)
class DefenderInput:
    """What a defend task is given: the classifier, the hold-out, and (if any stage needs it) the suspicious training set.

    Made by the driver; roles, triggers, goals, the clean originals and the test set stay behind.
    """

    spec: dict[str, Any]
    state: dict[str, Tensor]
    clean: ImageSet
    training_data: ImageSet | None
    flip: bool

    @classmethod
    def of(
        cls, ground: Ground, seed: int, data: TrainPart, victim: StoredVictim, *, with_training_data: bool, clean: CleanData | None = None
    ) -> DefenderInput:
        """What a defender may see of this victim. Raises NotApplicable where there are too few clean images."""
        train, reserve = data.cut(ground, seed)
        training_data = None
        if with_training_data:
            images, labels = copied(train.images), train.labels.clone()
            rows = victim.poison["rows"]
            images[rows], labels[rows] = victim.poison["images"], victim.poison["labels"]
            training_data = ImageSet(images, labels, train.classes)
        return cls(
            victim.record.classifier,
            classifier_state(victim),
            own_copy((clean or CleanData()).choose(train, reserve, ground.dataset, seed)),
            training_data,
            data.flip,
        )

    def classifier(self) -> Classifier:
        """The victim's, on the CPU."""
        classifier = rebuild(self.spec, self.state)
        if not isinstance(classifier, Classifier):
            raise ContractError(f"the stored victim is a {type(classifier).__name__}, not a Classifier")
        return classifier


@dataclass(frozen=True)
class DefenseOutput:
    """A defense's outcome on its way to the evaluation."""

    spec: dict[str, Any] | None
    state: dict[str, Tensor]
    suspects: Tensor | None
    suspicion: Tensor | None
    verdict: dict[str, Any] | None
    steps: list[tuple[dict[str, Any], dict[str, Tensor]]]
    steps_spec: dict[str, Any] | None
    steps_state: dict[str, Tensor]
    """The classifier that the steps' changes refer to: the one that the stage was given."""
    detector_spec: dict[str, Any] | None = None
    detector_state: dict[str, Tensor] = field(default_factory=dict)
    skipped: tuple[int, ...] = ()
    """Places in the chain of the conditional stages that did not run."""
    figures: dict[str, Tensor] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    holdout_size: int | None = None
    precision: Precision | None = None
    """What `precision: auto` meant to its trainings."""
