"""What an attacker plants: a trigger, and a goal that says which labels triggered images are to get."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

from gatecrash.contracts.trigger import Trigger
from gatecrash.errors import ContractError

GoalKind = Literal["all-to-one", "all-to-all", "one-to-one", "many-to-one", "mapping"]
"""How labels are mapped, see `Goal.kind`."""


@dataclass(frozen=True)
class Goal:
    """Which label a triggered image is to get: `mapping[y]` for one of class y; None for classes that the backdoor is not meant for.

    No class is mapped to itself. Raises ContractError for a mapping that does so, names a class that does not exist, or is None everywhere.
    """

    mapping: tuple[int | None, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "mapping", tuple(self.mapping))
        if not self.sources:
            raise ContractError("a Goal must apply to a class; every class is mapped to None")
        for label in self.sources:
            wanted = self.mapping[label]
            if wanted not in range(self.num_classes) or wanted == label:
                others = f"another of the classes 0 to {self.num_classes - 1}"
                raise ContractError(f"a Goal must send class {label} to {others}, or to None; got {wanted}")

    @classmethod
    def all_to_one(cls, num_classes: int, target: int) -> Self:
        """Every class becomes `target`."""
        return cls.many_to_one(num_classes, range(num_classes), target)

    @classmethod
    def all_to_all(cls, num_classes: int) -> Self:
        """y becomes (y + 1) mod `num_classes` (Gu et al. 2017, section 4.1)."""
        return cls(tuple((label + 1) % num_classes for label in range(num_classes)))

    @classmethod
    def one_to_one(cls, num_classes: int, source: int, target: int) -> Self:
        """`source` becomes `target`."""
        return cls.many_to_one(num_classes, (source,), target)

    @classmethod
    def many_to_one(cls, num_classes: int, sources: Collection[int], target: int) -> Self:
        """Each of `sources` becomes `target`; `target` itself is left out of them."""
        for label in (target, *sources):
            if label not in range(num_classes):
                raise ContractError(f"class {label} does not exist; there are classes 0 to {num_classes - 1}")
        return cls(tuple(target if label in sources and label != target else None for label in range(num_classes)))

    @property
    def num_classes(self) -> int:
        return len(self.mapping)

    @property
    def kind(self) -> GoalKind:
        """Which constructor gives this mapping, the first that does in the order all-to-one, all-to-all, one-to-one, many-to-one; else
        mapping. (Of two classes, one-to-one is all-to-one.)"""
        if self.target is None:
            return "all-to-all" if self == Goal.all_to_all(self.num_classes) else "mapping"
        if len(self.sources) == self.num_classes - 1:
            return "all-to-one"
        return "one-to-one" if len(self.sources) == 1 else "many-to-one"

    @property
    def sources(self) -> tuple[int, ...]:
        """The classes that the backdoor is meant for."""
        return tuple(label for label, wanted in enumerate(self.mapping) if wanted is not None)

    @property
    def targets(self) -> tuple[int, ...]:
        """All classes that a triggered image can be sent to."""
        return tuple(sorted({wanted for wanted in self.mapping if wanted is not None}))

    @property
    def target(self) -> int | None:
        """The target, where there is one only."""
        return self.targets[0] if len(self.targets) == 1 else None

    @property
    def source(self) -> int | None:
        """The source of a one-to-one goal."""
        return self.sources[0] if self.kind == "one-to-one" else None

    @property
    def others(self) -> tuple[int, ...]:
        """The classes that are neither source nor target: those that a backdoor usually `keeps`."""
        return tuple(label for label in range(self.num_classes) if label not in (*self.sources, *self.targets))

    def eligible(self, labels: Tensor) -> Tensor:
        """bool [N]: images on which the backdoor is scored, and which a dirty-label attack may poison."""
        return _of_class([wanted is not None for wanted in self.mapping], labels)

    def labels(self, labels: Tensor) -> Tensor:
        """int64 [N]: the labels that the attacker wants for triggered images of these classes.

        Images of classes that the goal is not meant for get the target where there is one only, else they keep their class.
        """
        wanted = [(label if self.target is None else self.target) if to is None else to for label, to in enumerate(self.mapping)]
        return _of_class(wanted, labels)


def _of_class(values: Sequence[int], labels: Tensor) -> Tensor:
    """Of the values, one per class, those of the labels' classes; nothing waits for the device."""
    return torch.tensor(values).to(labels.device, non_blocking=True)[labels]


@dataclass(frozen=True, eq=False)
class Backdoor:
    """One planted behaviour: images under `trigger` are to be classified as `goal` says. Several can live in one victim.

    It may also be given by test images of the attack's own making, without a trigger: `images` uint8 [n, C, H, W], each with its label
    among `labels` int64 [n], the class that the attacker wants for it. An attack that aims at untouched images
    (`aim = "targeted"`) gives a name and a goal alone. Raises ContractError for parts that do not fit together.
    """

    name: str
    goal: Goal
    trigger: Trigger | None = None
    keeps: tuple[int, ...] = ()
    """Classes whose triggered images must keep their label: those that are sent to a target nevertheless are scored as `leak`."""
    cover: Trigger | None = None
    """A trigger whose images must keep their label (WaNet's noise mode): the share that does is scored as `cover_acc`."""
    images: Tensor | None = None
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.images is None) != (self.labels is None) or (self.images is not None and self.trigger is not None):
            raise ContractError(f"backdoor {self.name!r} needs either a trigger, or images together with their labels")
        if self.trigger is None and (self.keeps or self.cover is not None):
            raise ContractError(f"backdoor {self.name!r} has keeps or cover but no trigger")
        self._check_keeps()
        self._check_images()

    def _check_keeps(self) -> None:
        goal = self.goal
        for label in self.keeps:
            if label not in range(goal.num_classes) or label in goal.sources or label == goal.target:
                raise ContractError(
                    f"backdoor {self.name!r} keeps class {label}, which does not exist, or is a source or the target of its goal; "
                    f"goal.others are {list(goal.others)}"
                )

    def _check_images(self) -> None:
        if self.images is None or self.labels is None:
            return
        images, labels = self.images, self.labels
        if images.dtype != torch.uint8 or images.ndim != 4 or labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            got = f"{images.dtype} {list(images.shape)} and {labels.dtype} {list(labels.shape)}"
            raise ContractError(f"backdoor {self.name!r} needs images uint8 [n, C, H, W] and labels int64 [n]; got {got}")
        others = set(labels.tolist()) - set(self.goal.targets)
        if others or not len(labels):
            got = f"images that are to become {sorted(others)}" if others else "no image"
            raise ContractError(f"backdoor {self.name!r} needs images that are to become one of {list(self.goal.targets)}; got {got}")

    @property
    def is_triggered(self) -> bool:
        """Whether a trigger, or images of the attack's own, bring it about; False where untouched images are meant."""
        return self.trigger is not None or self.images is not None
