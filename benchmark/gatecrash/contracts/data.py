"""Images with labels, in the form that the whole harness uses: uint8 tensors, never files.

Pixels stay uint8 up to the classifier, so that a poisoned image can always be saved as a PNG without loss.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from gatecrash.contracts.patched import Patched, part
from gatecrash.errors import ContractError
from gatecrash.process.mapped import copied, slices

if TYPE_CHECKING:
    from gatecrash.contracts.backdoor import Backdoor


class Role(IntEnum):
    """What an attack has done to a training row. Only the harness knows it; defenses never see it."""

    CLEAN = 0
    """Byte-identical to the original."""
    POISON = 1
    """Changed image or label that plants the backdoor."""
    COVER = 2
    """Changed image with its true label (WaNet's noise mode): counted as neither clean nor poison."""


@dataclass(frozen=True)
class ImageSet:
    """Images `uint8 [N, C, H, W]`, labels `int64 [N]` and the names of the classes."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise ContractError(f"images must be uint8 [N, C, H, W]; got {self.images.dtype} {list(self.images.shape)}")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise ContractError(f"labels must be int64 [{len(self.images)}]; got {self.labels.dtype} {list(self.labels.shape)}")
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise ContractError(f"labels must lie in [0, {len(self.classes)}); got {int(self.labels.max())}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(channels, height, width)`."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def device(self) -> torch.device:
        return self.images.device

    def class_counts(self) -> tuple[int, ...]:
        """Images per class."""
        return tuple(torch.bincount(self.labels, minlength=self.num_classes).tolist())

    def subset(self, rows: Tensor) -> ImageSet:
        """The rows chosen by an index or a boolean mask, in that order."""
        return replace(self, images=self.images[rows], labels=self.labels[rows])

    def to(self, device: torch.device | str) -> ImageSet:
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over decoded pixels, labels and class names."""
        digest = hashlib.sha256()
        digest.update(json.dumps([list(self.images.shape), list(self.classes)]).encode())
        for rows in slices(self.images):
            digest.update(self.images[rows].cpu().contiguous().numpy().data)
        digest.update(self.labels.cpu().contiguous().numpy().data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Poisoned:
    """The training set after an attack: row i is row i of the training set that the attack was given.

    `role` is uint8 [N] of `Role`; `backdoors` are what the attacker planted, for the evaluation to score.
    """

    images: Tensor
    labels: Tensor
    role: Tensor
    backdoors: Sequence[Backdoor] = field(default_factory=tuple)

    @classmethod
    def untouched(cls, train: ImageSet, backdoors: Sequence[Backdoor] = ()) -> Poisoned:
        """No row changed: the benign case, and the start for attacks that control training instead of data."""
        return cls(train.images, train.labels, torch.zeros(len(train), dtype=torch.uint8), tuple(backdoors))

    @classmethod
    def replacing(
        cls,
        train: ImageSet,
        rows: Tensor,
        images: Tensor,
        labels: Tensor,
        backdoors: Sequence[Backdoor],
        role: Role = Role.POISON,
    ) -> Poisoned:
        """`train` with the given rows (int64 [n]) exchanged for `images` and `labels`, without touching `train`."""
        if images.dtype != torch.uint8 or images.shape != (len(rows), *train.shape):
            raise ContractError(f"images must be uint8 [n, {', '.join(map(str, train.shape))}]; got {images.dtype} {list(images.shape)}")
        return cls.untouched(train, backdoors).also(rows, images, labels, role)

    def also(self, rows: Tensor, images: Tensor, labels: Tensor, role: Role = Role.POISON) -> Self:
        """The same with more rows (int64 [n]) exchanged for `images` and `labels`: covers, or the rows of another backdoor.

        Nothing given is changed. Unchanged rows stay those of the training set, without a copy: do not write to it afterwards.

        Raises ContractError for rows that are no int64 row numbers, a row that comes twice or was changed already, and covers with another
        label than their true one.
        """
        chosen = rows.cpu()
        if chosen.dtype != torch.int64 or (len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < len(self.role)):
            raise ContractError(f"rows must be int64 numbers from 0 to {len(self.role) - 1}; got {chosen.dtype} {chosen[:3].tolist()}...")
        taken = chosen[self.role[chosen] != Role.CLEAN]
        if len(taken) or len(set(chosen.tolist())) < len(chosen):
            which = f"row {int(taken[0])} was changed before" if len(taken) else "a row comes twice"
            raise ContractError(f"each row of the training set can be changed once, and {which}; choose rows from those that are left")
        if role == Role.COVER and not self.labels[rows].equal(labels.to(self.labels.device)):
            raise ContractError("covers keep their true label; give train.labels[rows], or make the rows POISON")
        new_labels, roles = self.labels.clone(), self.role.clone()
        new_labels[rows] = labels.to(new_labels.device)
        roles[chosen] = int(role)
        changed: Any = Patched.of(patched(self), rows, images)
        return type(self)(changed, new_labels, roles, self.backdoors)

    def as_image_set(self, classes: tuple[str, ...]) -> ImageSet:
        """The part that a defender may see: images and labels, no roles."""
        return ImageSet(self.images, self.labels, classes)

    @property
    def changed(self) -> Tensor:
        """int64 rows whose role is not CLEAN."""
        return torch.nonzero(self.role != Role.CLEAN).flatten()

    @property
    def poison_share(self) -> float:
        """Share of all rows whose role is POISON, in [0, 1]."""
        return float((self.role == Role.POISON).double().mean()) if len(self.role) else 0.0

    def check(self, train: ImageSet) -> None:
        """Raise ContractError unless shapes, dtypes and labels are those of `train`, the role of every row is true and backdoors fit."""
        self._check_form(train)
        self._check_backdoors(train)
        role = self.role.to(train.device)
        same_label = self.labels.to(train.device) == train.labels
        same_image = torch.ones_like(same_label)
        for rows in slices(train.images):
            same_image[rows] = (part(patched(self), rows).to(train.device) == train.images[rows]).flatten(1).all(1)
        changed = torch.nonzero((role == Role.CLEAN) & ~(same_image & same_label)).flatten()
        if len(changed):
            raise ContractError(f"{len(changed)} rows have role CLEAN but were changed (first: row {int(changed[0])})")
        covers = torch.nonzero((role == Role.COVER) & ~same_label).flatten()
        if len(covers):
            raise ContractError(f"{len(covers)} rows have role COVER but another label than the true one (first: row {int(covers[0])})")

    def _check_backdoors(self, train: ImageSet) -> None:
        names = [backdoor.name for backdoor in self.backdoors]
        if len(set(names)) != len(names):
            raise ContractError(f"backdoors of one victim need distinct names; got {names}")
        for one in self.backdoors:
            if one.goal.num_classes != train.num_classes:
                raise ContractError(f"backdoor {one.name!r} has a goal for {one.goal.num_classes} classes; there are {train.num_classes}")
            if one.images is not None and one.images.shape[1:] != train.images.shape[1:]:
                raise ContractError(
                    f"backdoor {one.name!r} has images of shape {list(one.images.shape[1:])}; those of the dataset have {list(train.shape)}"
                )

    def _check_form(self, train: ImageSet) -> None:
        images = patched(self)
        if images.shape != train.images.shape or images.dtype != torch.uint8:
            raise ContractError(f"poison() must keep images as uint8 {list(train.images.shape)}; got {images.dtype} {list(images.shape)}")
        if self.labels.shape != train.labels.shape or self.labels.dtype != torch.int64:
            raise ContractError(f"poison() must keep labels as int64 [{len(train)}]; got {self.labels.dtype} {list(self.labels.shape)}")
        if self.role.shape != train.labels.shape:
            raise ContractError(f"role must have one entry per row, [{len(train)}]; got {list(self.role.shape)}")
        unknown = set(self.role.tolist()) - {int(role) for role in Role}
        if unknown:
            raise ContractError(f"role has values that are not in gatecrash.Role: {sorted(unknown)}")
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < train.num_classes:
            raise ContractError(f"poisoned labels must lie in [0, {train.num_classes})")


class _Images:
    """The field `images` of `Poisoned`: a tensor, made from a patch over the training set when it is first read. That is a second set
    of all images in memory; training and checks do without, by `patched`."""

    def __get__(self, owner: Poisoned | None, _kind: type[Poisoned]) -> Tensor:
        if owner is None:
            raise AttributeError("images")
        images: Tensor | Patched = vars(owner)["images"]
        if isinstance(images, Patched):
            images = vars(owner)["images"] = images.whole()
        return images

    def __set__(self, owner: Poisoned, images: Tensor | Patched) -> None:
        vars(owner)["images"] = images


def patched(poisoned: Poisoned) -> Tensor | Patched:
    """The images, uint8 [N, C, H, W], without a copy of those that did not change where they are not whole already."""
    images: Tensor | Patched = vars(poisoned)["images"]
    return images


def own_copy(data: ImageSet) -> ImageSet:
    """The same, to be written to."""
    return replace(data, images=copied(data.images), labels=data.labels.clone())


# Not in the class body: there type checkers and the reference take a descriptor for a default.
Poisoned.images = _Images()  # type: ignore[assignment]


@dataclass(frozen=True)
class Splits:
    """What a dataset plugin returns.

    `clean` is the defender's clean hold-out, for a dataset that has one of its own (else it is cut from `train`). `groups`, int64
    [len(train)], numbers groups of near-duplicates, each of which stays on one side of that cut. `flip=False` says that mirroring an image
    can change its class.
    """

    train: ImageSet
    test: ImageSet
    clean: ImageSet | None = None
    groups: Tensor | None = None
    flip: bool = True
