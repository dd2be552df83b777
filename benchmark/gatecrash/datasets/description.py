"""A prepared dataset in words: one line before a run, and a table of its classes. Nothing is loaded."""

from __future__ import annotations

from typing import NamedTuple

from gatecrash.datasets.holdout import HoldoutConfig, remaining_counts
from gatecrash.datasets.preparation import PreparedDataset


class ClassCounts(NamedTuple):
    """Images of one class."""

    number: int
    name: str
    train: int
    """What is left for training once the hold-out is cut."""
    holdout: int
    test: int


def class_counts(prepared: PreparedDataset, config: HoldoutConfig) -> list[ClassCounts]:
    """By class number. A clean set that the dataset brings along is not counted; with groups, train and hold-out are about these."""
    left = remaining_counts(prepared, config)
    return [
        ClassCounts(number, shown(name), kept, total - kept, test)
        for number, (name, kept, total, test) in enumerate(
            zip(prepared.classes, left, prepared.train_counts, prepared.test_counts, strict=True)
        )
    ]


def described(prepared: PreparedDataset, config: HoldoutConfig) -> str:
    """Sizes of a dataset and of its smallest and largest class (training images before the hold-out is cut), as one line."""
    rows = class_counts(prepared, config)
    train, held, test = (sum(counts) for counts in zip(*((row.train, row.holdout, row.test) for row in rows), strict=True))
    holdout = "its own hold-out" if prepared.has_clean else f"{held:,} hold-out" + (" (about)" if prepared.has_groups else "")
    smallest, largest = (choose(rows, key=lambda row: row.train + row.holdout) for choose in (min, max))
    return (
        f"{len(rows)} classes, {train:,} train + {holdout} + {test:,} test, {'x'.join(map(str, prepared.shape))}, "
        f"smallest class {smallest.train + smallest.holdout:,} ({smallest.name}), largest {largest.train + largest.holdout:,}"
    )


def shown(name: str) -> str:
    """A class name with what a terminal cannot print written out."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in name)
