"""The unlabelled pile of test images, clean and triggered, in an order in which no image ever meets its twin."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gatecrash.contracts.backdoor import Backdoor
from gatecrash.contracts.data import ImageSet
from gatecrash.contracts.randomness import stream
from gatecrash.evaluation.prediction import in_batches
from gatecrash.evaluation.triggering import apply_trigger


class Pile:
    """Images uint8 [N, C, H, W], as many as there are versions of test images: clean, and under each backdoor's trigger.

    The versions of one test image are *twins*: beside its clean twin a triggered image gives itself away. So the pile has as many parts as
    there are versions, no part holds two twins, and no batch reaches over the end of a part. Each part is a shuffled mixture of versions.
    `rows` are the test images of each version, `places` where they lie in the pile.
    """

    def __init__(self, test: ImageSet, backdoors: Sequence[Backdoor], device: torch.device, clean: bool) -> None:
        labels = test.labels.cpu()
        self.rows = [torch.arange(len(test) if clean else 0)]
        self.rows += [torch.nonzero(backdoor.goal.eligible(labels)).flatten() for backdoor in backdoors]
        sizes = [len(chosen) for chosen in self.rows]
        self._sources = torch.cat(self.rows)
        self._versions = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        order, self._part_sizes = self._arranged(len(test))
        # _sources and _versions go from the order of the versions to that of the pile
        self._sources, self._versions = self._sources[order], self._versions[order]
        self.places = torch.split(order.argsort(), sizes)
        self.images = torch.empty((len(order), *test.shape), dtype=torch.uint8, device=test.device)
        self.images[self.places[0]] = test.images[self.rows[0]]
        for backdoor, chosen, places in zip(backdoors, self.rows[1:], self.places[1:], strict=True):
            self.images[places] = apply_trigger(backdoor, test.images[chosen], device=device)

    def __len__(self) -> int:
        return len(self.images)

    def _arranged(self, sources: int) -> tuple[Tensor, list[int]]:
        """The order of the pile, and how many images each part has. Not drawn from the run's seed: one test set has one order."""
        total, parts = len(self._sources), len(self.rows)
        generator = stream("evaluation-order", total)
        # Twins differ in their version and share their source's shift, so they never come into one part.
        shift = torch.randint(parts, (sources,), generator=generator)
        part = (self._versions + shift[self._sources]) % parts
        shuffled = torch.randperm(total, generator=generator)
        return shuffled[part[shuffled].argsort(stable=True)], torch.bincount(part, minlength=parts).tolist()

    def batches(self, size: int) -> list[Tensor]:
        """Batches of rows (int64) of the pile, `size` at most in each: all rows, in order, no twins together."""
        parts = torch.split(torch.arange(len(self)), self._part_sizes)
        return [rows for part in parts for rows in in_batches(part, size)]

    def sample(self, most: int, *inputs: object) -> Tensor:
        """Rows (int64) to show again: of each version alike, at random, and no two twins; `inputs` choose among the samples."""
        order = torch.randperm(len(self), generator=stream("evaluation-check", len(self), *inputs))
        rank = torch.nn.functional.one_hot(self._versions[order], len(self.rows)).cumsum(0)
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
