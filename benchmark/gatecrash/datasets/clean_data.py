"""Which clean images a defense is given: of what kind, and how many.

The reserve is cut once, before poisoning, and is part of every victim's key. What a defense is given is drawn afterwards and enters the
key of the cell alone, so that no victim is trained anew for it. Draws are nested: fewer images are a subset of more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from gatecrash.contracts.config import Options
from gatecrash.contracts.randomness import stream
from gatecrash.datasets.sampling import stratified_rows
from gatecrash.datasets.selection import selected
from gatecrash.errors import NotApplicable

if TYPE_CHECKING:
    from gatecrash.contracts.data import ImageSet


class CleanData(Options):
    """Kind and size of the clean images that a defense is given."""

    kind: Literal["reserved", "seen"] = Field(
        "reserved",
        description="reserved: images of the hold-out, which the victim was not trained on; seen: training images as they were before "
        "poisoning, originals of poisoned rows among them, as many of each class as the hold-out has (as BackdoorBench does)",
    )
    per_class: int | None = Field(None, ge=1, le=100_000, description="images of each class; by default all of the hold-out's")

    def choose(self, train: ImageSet, reserve: ImageSet, dataset: str, seed: int) -> ImageSet:
        """Of `train`, the training set before poisoning, or of the reserve: the images that a defense of this seed is given.

        Raises NotApplicable where a class has fewer images than are asked for.
        """
        if self.kind == "reserved" and self.per_class is None:
            return reserve
        source = reserve if self.kind == "reserved" else train
        counts = reserve.class_counts() if self.per_class is None else [self.per_class] * reserve.num_classes
        for name, there, wanted in zip(source.classes, source.class_counts(), counts, strict=True):
            if there < wanted:
                where = "the hold-out" if self.kind == "reserved" else "the training set"
                raise NotApplicable(f"{wanted} clean images of each class are asked for; class {name!r} has {there} in {where}")
        rows = stratified_rows(source.labels.cpu(), counts, stream("clean data", dataset, self.kind, seed))
        return selected(source, rows)
