"""From a dataset plugin to images in the cache: decoded once, then found by the manifest.

`prepare_dataset` is the only entry point. What it returns can be read without torch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gatecrash.contracts.dataset import Dataset, Progress
from gatecrash.contracts.randomness import stream
from gatecrash.datasets.cache import Entry
from gatecrash.datasets.sampling import stratified_counts
from gatecrash.errors import UserError
from gatecrash.process.cache_folder import cache_folder

if TYPE_CHECKING:
    from gatecrash.contracts.data import Splits


@dataclass(frozen=True)
class PreparedDataset:
    """A dataset that is decoded and in the cache; everything but `splits()` is known without torch.

    Counts are images per class, after `limit` and `limit_test`. `fingerprint` says what the data are: sha256 over decoded pixels, labels,
    class names, groups and flip, with the limits mixed in where they leave something out.
    """

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    """`(channels, height, width)`."""
    train_counts: tuple[int, ...]
    test_counts: tuple[int, ...]
    flip: bool
    fingerprint: str
    has_clean: bool
    has_groups: bool
    _entry: Entry = field(repr=False, compare=False)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def train_size(self) -> int:
        return sum(self.train_counts)

    def splits(self, progress: Progress | None = None) -> Splits:
        """The tensors, on the CPU, mapped from the cache file; `progress` is for the rare case that they must be decoded again.

        Raises UserError if the source had to be decoded again and is gone or no longer the same.
        """
        from gatecrash.datasets.sampling import stratified_rows
        from gatecrash.datasets.splits import take

        splits = self._entry.read(progress or _silent)
        if (splits.train.class_counts(), splits.test.class_counts()) == (self.train_counts, self.test_counts):
            return splits
        return take(
            splits,
            stratified_rows(splits.train.labels, self.train_counts, stream("limit", "train")),
            stratified_rows(splits.test.labels, self.test_counts, stream("limit", "test")),
        )


def prepare_dataset(dataset: Dataset, cache: Path | None = None, progress: Progress | None = None) -> PreparedDataset:
    """Find the dataset in the cache by its manifest, or decode it into the cache.

    `cache` is `$GATECRASH_CACHE` by default, else the user's cache folder. Neither torch nor any image is touched where the cache has the
    dataset. Raises UserError for a missing or unusable source, a class without training images, a limit that is larger than the set, or
    a cache that cannot be written; ContractError where the plugin's splits contradict each other.
    """
    entry = Entry(dataset, cache or cache_folder())
    meta = entry.meta() or entry.build(progress or _silent)
    train_counts = _limited(meta.train_counts, dataset.config.limit, f"dataset {dataset.name}: limit", "training")
    test_counts = _limited(meta.test_counts, dataset.config.limit_test, f"dataset {dataset.name}: limit_test", "test")
    fingerprint = meta.fingerprint
    if (train_counts, test_counts) != (meta.train_counts, meta.test_counts):
        fingerprint = hashlib.sha256(json.dumps([fingerprint, "limit", sum(train_counts), sum(test_counts)]).encode()).hexdigest()
    return PreparedDataset(
        name=dataset.name,
        classes=meta.classes,
        shape=meta.shape,
        train_counts=train_counts,
        test_counts=test_counts,
        flip=meta.flip,
        fingerprint=fingerprint,
        has_clean=meta.has_clean,
        has_groups=meta.has_groups,
        _entry=entry,
    )


def _limited(counts: tuple[int, ...], limit: int | None, what: str, kind: str) -> tuple[int, ...]:
    if limit is None:
        return counts
    if limit > sum(counts):
        raise UserError(f"{what} {limit} is larger than its {sum(counts)} {kind} images; use at most {sum(counts)}")
    classes = sum(1 for count in counts if count)
    if limit < classes:
        raise UserError(f"{what} {limit} is smaller than its {classes} classes; use at least {classes}")
    return stratified_counts(counts, limit)


def _silent(_done: int, _total: int) -> None:
    """Progress that is not reported."""
