"""The unlabelled pile of test images, clean and triggered, in an order in which no image ever meets its twin."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Self

import torch
from torch import Tensor

from gatecrash.contracts.backdoor import Backdoor
from gatecrash.contracts.data import ImageSet
from gatecrash.contracts.randomness import stream
from gatecrash.evaluation.prediction import in_batches
from gatecrash.evaluation.triggering import apply_trigger


@dataclass(frozen=True)
class Version:
    """Images of one kind, of which `make` gives uint8 [n, C, H, W].

    `sources` (int64 [n]) are the test images that they are made from, numbers from the size of the test set up for images of an attack's
    own; `truth` (int64 [n]) are their true labels, or where nobody knows these those that the attacker wants.
    """

    kind: Literal["clean", "attacked", "kept", "covered"]
    backdoor: str
    """Name of the backdoor; empty for the clean images."""
    sources: Tensor
    truth: Tensor
    make: Callable[[], Tensor]
    basic: bool = True
    """Whether it comes in the first parts of the pile, whose order the versions in the others do not change."""


def versions_of(test: ImageSet, backdoors: Iterable[Backdoor], device: torch.device, clean: bool = True) -> Iterator[Version]:
    """The test images (no clean ones unless `clean`), and those of each backdoor: attacked, those that it must keep, and covered."""
    labels, every = test.labels.cpu(), torch.arange(len(test))

    def triggered(kind: Literal["attacked", "kept", "covered"], one: Backdoor, rows: Tensor) -> Version:
        make = partial(_triggered, test, one, rows, device, kind == "covered")
        return Version(kind, one.name, rows, labels[rows], make, kind == "attacked")

    shown = every if clean else every[:0]
    yield Version("clean", "", shown, labels[shown], lambda: test.images[shown])
    own = len(test)
    for one in backdoors:
        if one.images is not None and one.labels is not None:
            sources = torch.arange(own, own + len(one.images))
            own += len(sources)
            yield Version("attacked", one.name, sources, one.labels.cpu(), lambda images=one.images: images, False)  # type: ignore[misc]
            continue
        yield triggered("attacked", one, torch.nonzero(one.goal.eligible(labels)).flatten())
        if one.keeps:
            yield triggered("kept", one, torch.nonzero(torch.isin(labels, torch.tensor(one.keeps))).flatten())
        if one.cover is not None:
            yield triggered("covered", one, every)


def _triggered(test: ImageSet, backdoor: Backdoor, rows: Tensor, device: torch.device, cover: bool) -> Tensor:
    return apply_trigger(backdoor, test.images[rows], device=device, cover=cover)


class Pile:
    """Images uint8 [N, C, H, W] of all versions.

    The versions of one test image are *twins*: beside its clean twin a triggered image gives itself away. So the pile has as many parts as
    there are versions, no part holds two twins, and no batch reaches over the end of a part. Each part is a shuffled mixture of versions,
    first of the basic ones, then of the others. `places` say where the versions lie in the pile.
    """

    def __init__(self, test: ImageSet, versions: Sequence[Version]) -> None:
        self.versions = tuple(versions)
        sizes = [len(version.sources) for version in versions]
        sources = torch.cat([version.sources for version in versions])
        numbers = torch.repeat_interleave(torch.arange(len(versions)), torch.tensor(sizes))
        basic = torch.tensor([version.basic for version in versions])
        orders, self._part_sizes = [], []
        for chosen in (basic, ~basic):
            rows = torch.nonzero(chosen[numbers]).flatten()
            order, part_sizes = _arranged(sources[rows], (chosen.cumsum(0) - 1)[numbers[rows]], int(chosen.sum()), len(test))
            orders.append(rows[order])
            self._part_sizes += part_sizes
        order = torch.cat(orders)
        # sources and numbers go from the order of the versions to that of the pile
        self._sources, self._versions, self._count = sources[order], numbers[order], len(versions)
        self.places = torch.split(order.argsort(), sizes)
        self.images = torch.empty((len(order), *test.shape), dtype=torch.uint8, device=test.device)
        for version, places in zip(versions, self.places, strict=True):
            self.images[places] = version.make().to(test.device)

    def __len__(self) -> int:
        return len(self.images)

    def changed(self, change: Callable[[Tensor, Tensor], Tensor]) -> Self:
        """The same pile with other images, uint8 of the same shape: what `change` makes of them and of their places in the test set."""
        other = copy.copy(self)
        other.images = change(self.images, self._sources)
        return other

    def batches(self, size: int) -> list[Tensor]:
        """Batches of rows (int64) of the pile, `size` at most in each: all rows, in order, no twins together."""
        parts = torch.split(torch.arange(len(self)), self._part_sizes)
        return [rows for part in parts for rows in in_batches(part, size)]

    def sample(self, most: int, *inputs: object) -> Tensor:
        """Rows (int64) to show again: of each version alike, at random, and no two twins; `inputs` choose among the samples."""
        order = torch.randperm(len(self), generator=stream("evaluation-check", len(self), *inputs))
        rank = torch.nn.functional.one_hot(self._versions[order], self._count).cumsum(0)
        order = order[rank[torch.arange(len(order)), self._versions[order]].argsort(stable=True)]
        chosen: list[int] = []
        shown: set[int] = set()
        for row, source in zip(order.tolist(), self._sources[order].tolist(), strict=True):
            if len(chosen) == most:
                break
            if source not in shown:
                shown.add(source)
                chosen.append(row)
        mixed = torch.tensor(chosen, dtype=torch.int64)
        return mixed[torch.randperm(len(mixed), generator=stream("evaluation-check-order", len(mixed), *inputs))]


def _arranged(sources: Tensor, versions: Tensor, parts: int, tested: int) -> tuple[Tensor, list[int]]:
    """The order of images with these sources and versions (0 to `parts` - 1), int64 [n] both, and how many of them each part has.

    Not drawn from the run's seed: one test set, of `tested` images, has one order.
    """
    if not parts:
        return torch.empty(0, dtype=torch.int64), []
    total = len(sources)
    generator = stream("evaluation-order", total)
    # Twins differ in their version and share their source's shift, so they never come into one part.
    shift = torch.randint(parts, (max(tested, int(sources.max()) + 1 if total else 0),), generator=generator)
    part = (versions + shift[sources]) % parts
    shuffled = torch.randperm(total, generator=generator)
    return shuffled[part[shuffled].argsort(stable=True)], torch.bincount(part, minlength=parts).tolist()
