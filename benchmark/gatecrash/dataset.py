"""The Dataset contract, and the cache that makes decoding happen once.

A dataset plugin names its source cheaply (`manifest`) and decodes it (`load`). Decoded sets are kept as uint8 safetensors under the cache
folder, found by the manifest, so planning and later runs decode nothing; `prepare` is the one door, and what it returns can be read without
torch.

An entry is a folder that appears by a rename, under a kernel lock: it is there whole or not at all, and two processes decode once. An entry
that was damaged later (a file cut short, flipped bits) is noticed by size when planning and by fingerprint when loading, set aside and
rebuilt. The cache can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from gatecrash.config import Config as Options
from gatecrash.errors import ContractError, UserError, one_line
from gatecrash.randomness import stream
from gatecrash.reference import Reference

if TYPE_CHECKING:
    from torch import Tensor

    from gatecrash.data import ImageSet, Splits

log = logging.getLogger(__name__)

SCHEMA = 1
"""Version of the cache format; part of every entry's name, so that versions never meet."""

Progress = Callable[[int, int], None]
"""`progress(done, total)` while images are decoded."""


class DatasetConfig(Options):
    """Options that every dataset has; the harness applies them after loading."""

    limit: int | None = Field(None, ge=1, description="use only this many training images, stratified by class")
    limit_test: int | None = Field(None, ge=1, description="use only this many test images, stratified by class")


class Dataset(ABC):
    """One dataset = one subclass."""

    name: ClassVar[str]
    summary: ClassVar[str]
    reference: ClassVar[Reference | None] = None
    version: ClassVar[int] = 1

    class Config(DatasetConfig):
        """No further options."""

    def __init__(self, config: DatasetConfig | None = None) -> None:
        self.config: Any = config if config is not None else self.Config()

    @abstractmethod
    def manifest(self) -> str:
        """A cheap text that changes when the decoded images would (paths, sizes and times of files; no decoding).

        Raises UserError if the source is missing or unusable, with what to do.
        """

    @abstractmethod
    def load(self, progress: Progress) -> Splits:
        """Decode everything to uint8. Raises UserError naming a corrupt or missing file."""


@dataclass(frozen=True)
class Prepared:
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
    _entry: _Entry = field(repr=False, compare=False)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def train_size(self) -> int:
        return sum(self.train_counts)

    @property
    def test_size(self) -> int:
        return sum(self.test_counts)

    def splits(self, progress: Progress | None = None) -> Splits:
        """The tensors, on the CPU, mapped from the cache file; `progress` is for the rare case that they must be decoded again.

        Raises UserError if the source had to be decoded again and is gone or no longer the same.
        """
        from gatecrash.holdout import stratified_rows, take

        splits = self._entry.read(progress or _silent)
        if (splits.train.class_counts(), splits.test.class_counts()) == (self.train_counts, self.test_counts):
            return splits
        return take(
            splits,
            stratified_rows(splits.train.labels, self.train_counts, stream("limit", "train")),
            stratified_rows(splits.test.labels, self.test_counts, stream("limit", "test")),
        )


def prepare(dataset: Dataset, cache: Path | None = None, progress: Progress | None = None) -> Prepared:
    """Find the dataset in the cache by its manifest, or decode it into the cache.

    `cache` is `$GATECRASH_CACHE` by default, else the user's cache folder. Neither torch nor any image is touched where the cache has the
    dataset. Raises UserError for a missing or unusable source, a class without training images, a limit that is larger than the set, or
    a cache that cannot be written; ContractError where the plugin's splits contradict each other.
    """
    entry = _Entry(dataset, cache or cache_folder())
    meta = entry.meta() or entry.build(progress or _silent)
    train_counts = _limited(meta.train_counts, dataset.config.limit, f"dataset {dataset.name}: limit", "training")
    test_counts = _limited(meta.test_counts, dataset.config.limit_test, f"dataset {dataset.name}: limit_test", "test")
    fingerprint = meta.fingerprint
    if (train_counts, test_counts) != (meta.train_counts, meta.test_counts):
        fingerprint = hashlib.sha256(json.dumps([fingerprint, "limit", sum(train_counts), sum(test_counts)]).encode()).hexdigest()
    return Prepared(
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


def cache_folder() -> Path:
    """`$GATECRASH_CACHE`, else the user's cache folder for gatecrash."""
    chosen = os.environ.get("GATECRASH_CACHE")
    if chosen:
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_cache_dir("gatecrash"))


@dataclass(frozen=True)
class _Meta:
    """What `meta.json` says: of the whole dataset, before limits."""

    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    train_counts: tuple[int, ...]
    test_counts: tuple[int, ...]
    flip: bool
    has_clean: bool
    has_groups: bool
    fingerprint: str
    bytes: int
    """Size of the data file."""

    @classmethod
    def read(cls, path: Path) -> _Meta:
        """Raises OSError, ValueError, TypeError or KeyError for a file that is missing or damaged."""
        fields = json.loads(path.read_bytes())
        if fields.pop("schema") != SCHEMA:
            raise ValueError("another schema version")
        channels, height, width = fields["shape"]
        return cls(**{**fields, "shape": (channels, height, width), **{name: tuple(fields[name]) for name in cls._TUPLES}})

    _TUPLES: ClassVar[tuple[str, ...]] = ("classes", "train_counts", "test_counts")


class _Entry:
    """One decoded dataset's folder in the cache."""

    def __init__(self, dataset: Dataset, cache: Path) -> None:
        self._dataset = dataset
        config = dataset.config.model_dump(mode="json", exclude=set(DatasetConfig.model_fields))
        identity = [SCHEMA, dataset.name, dataset.version, config, dataset.manifest()]
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self._folder = cache / "datasets" / key
        self._fingerprint: str | None = None

    @property
    def _data(self) -> Path:
        return self._folder / "data.safetensors"

    def meta(self) -> _Meta | None:
        """What the cache knows, or None if it has nothing usable."""
        try:
            meta = _Meta.read(self._folder / "meta.json")
            if self._data.stat().st_size != meta.bytes:
                raise ValueError("the data file has another size than its description says")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("the cached copy of dataset %s is damaged (%s); decoding it again", self._dataset.name, one_line(error))
            return None
        self._fingerprint = meta.fingerprint
        return meta

    def build(self, progress: Progress) -> _Meta:
        """Decode into the cache, unless another process just has."""
        with self._locked():
            return self.meta() or self._decode(progress)

    def read(self, progress: Progress) -> Splits:
        """The tensors, checked against the fingerprint; decoded again if the entry is damaged or gone."""
        planned = self._fingerprint
        splits = self._load()
        if splits is None:
            with self._locked():
                splits = self._load()  # another process may have repaired it
                if splits is None:
                    self._decode(progress)
                    splits = self._load()
        if splits is None or self._fingerprint != planned:
            raise UserError(f"dataset {self._dataset.name} changed on disk since this run was planned; run again")
        return splits

    def _load(self) -> Splits | None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from gatecrash.data import ImageSet, Splits

        meta = self.meta()
        if meta is None:
            return None
        try:
            tensors = load_file(self._data)
            part: dict[str, ImageSet] = {
                name: ImageSet(tensors[f"{name}.images"], tensors[f"{name}.labels"], meta.classes)
                for name in ("train", "test", "clean")
                if f"{name}.images" in tensors
            }
            splits = Splits(part["train"], part["test"], part.get("clean"), tensors.get("groups"), meta.flip)
            found = fingerprint_of(splits)
        except (OSError, SafetensorError, KeyError, ContractError) as error:
            log.warning("the cached copy of dataset %s is damaged (%s); decoding it again", self._dataset.name, one_line(error))
            return None
        if found != meta.fingerprint:
            log.warning("the cached copy of dataset %s is damaged (another fingerprint); decoding it again", self._dataset.name)
            return None
        return splits

    def _decode(self, progress: Progress) -> _Meta:
        """Load through the plugin and write the entry; the lock is held."""
        from safetensors.torch import save_file

        splits = self._dataset.load(progress)
        check_splits(splits, self._dataset.name)
        tensors = {}
        for name, part in (("train", splits.train), ("test", splits.test), ("clean", splits.clean)):
            if part is not None:
                tensors[f"{name}.images"] = part.images.cpu().contiguous()
                tensors[f"{name}.labels"] = part.labels.cpu().contiguous()
        if splits.groups is not None:
            tensors["groups"] = splits.groups.cpu().contiguous()
        # Only the holder of the lock writes, so other temporary folders are what killed processes left.
        for leftover in self._folder.parent.glob(f"{self._folder.name}.tmp-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        folder = self._folder.with_name(f"{self._folder.name}.tmp-{uuid.uuid4().hex}")
        with self._writing():
            folder.mkdir()
            save_file(_unshared(tensors), folder / "data.safetensors")
            meta = _Meta(
                classes=splits.train.classes,
                shape=splits.train.shape,
                train_counts=splits.train.class_counts(),
                test_counts=splits.test.class_counts(),
                flip=splits.flip,
                has_clean=splits.clean is not None,
                has_groups=splits.groups is not None,
                fingerprint=fingerprint_of(splits),
                bytes=(folder / "data.safetensors").stat().st_size,
            )
            (folder / "meta.json").write_text(json.dumps({"schema": SCHEMA, **vars(meta)}, indent=1) + "\n")
            shutil.copymode(folder / "meta.json", folder / "data.safetensors")  # safetensors writes for the owner alone
            if self._folder.exists():
                aside = self._folder.with_name(f"{self._folder.name}.damaged")
                shutil.rmtree(aside, ignore_errors=True)
                self._folder.rename(aside)
            folder.rename(self._folder)
        self._fingerprint = meta.fingerprint
        return meta

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock

        with self._writing():
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._folder.with_name(f"{self._folder.name}.lock"))
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        from safetensors import SafetensorError

        try:
            yield
        except (OSError, SafetensorError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or error
            raise UserError(
                f"cannot write the dataset cache {self._folder.parent}: {reason}; set GATECRASH_CACHE to a writable folder with space"
            ) from None


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, with copies of those whose memory another one also uses: safetensors refuses to write such pairs."""
    seen: set[int] = set()
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return tensors


def fingerprint_of(splits: Splits) -> str:
    """sha256 over the fingerprints of train, test and clean set, the groups and flip."""
    parts = [None if part is None else part.fingerprint for part in (splits.train, splits.test, splits.clean)]
    groups = None if splits.groups is None else hashlib.sha256(splits.groups.cpu().contiguous().numpy().data).hexdigest()
    return hashlib.sha256(json.dumps([*parts, groups, splits.flip]).encode()).hexdigest()


def check_splits(splits: Splits, name: str) -> None:
    """Raise UserError where the source lacks images, ContractError where the plugin's parts contradict each other."""
    import torch

    train = splits.train
    if len(train.classes) < 2:
        raise UserError(f"dataset {name} has {len(train.classes)} classes; a classifier needs at least two")
    if len(set(train.classes)) < len(train.classes):
        raise ContractError(f"dataset {name}: class names must differ from each other")
    for what, part in (("training", train), ("test", splits.test), ("clean", splits.clean)):
        if part is None:
            continue
        if not len(part):
            raise UserError(f"dataset {name} has no {what} images; check its source")
        if part.classes != train.classes:
            raise ContractError(f"dataset {name}: the {what} set has other classes than the training set")
        if part.shape != train.shape:
            raise ContractError(f"dataset {name}: {what} images are {list(part.shape)}, training images {list(train.shape)}")
    empty = [label for label, count in zip(train.classes, train.class_counts(), strict=True) if not count]
    if empty:
        raise UserError(f"dataset {name}: class {empty[0]!r} has no training images; add some or remove the class")
    groups = splits.groups
    if groups is not None and (groups.dtype != torch.int64 or groups.shape != (len(train),)):
        raise ContractError(f"dataset {name}: groups must be int64 [{len(train)}]; got {groups.dtype} {list(groups.shape)}")


def stratified_counts(counts: Sequence[int], total: int) -> tuple[int, ...]:
    """`total` images divided over the classes in proportion to `counts` (largest remainders), at least one for each that has any.

    Needs as many images as non-empty classes, and no more than there are.
    """
    whole = sum(counts)
    shares = [total * count // whole for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda label: (-(total * counts[label] % whole), label))
    for label in by_remainder[: total - sum(shares)]:
        shares[label] += 1
    for label, count in enumerate(counts):
        if count and not shares[label]:
            shares[max(range(len(shares)), key=shares.__getitem__)] -= 1
            shares[label] = 1
    return tuple(shares)


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
    """Progress that nobody watches."""
