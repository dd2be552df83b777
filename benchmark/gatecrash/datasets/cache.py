"""The cache that makes decoding happen once.

An entry is a folder that is written under another name and then renamed, under a kernel lock: it is complete or it does not exist, and two
processes decode once. An entry that was damaged later (a file cut short, flipped bits) is noticed by size when planning and by fingerprint
when loading, set aside and rebuilt. The cache can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from gatecrash.contracts.dataset import Dataset, DatasetConfig, Progress
from gatecrash.datasets.splits import check_splits, fingerprint_of
from gatecrash.errors import ContractError, UserError, one_line

if TYPE_CHECKING:
    from torch import Tensor

    from gatecrash.contracts.data import ImageSet, Splits


log = logging.getLogger(__name__)


SCHEMA = 1
"""Version of the cache format; part of every entry's name, so that versions never meet."""


@dataclass(frozen=True)
class Meta:
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
    def read(cls, path: Path) -> Meta:
        """Raises OSError, ValueError, TypeError or KeyError for a file that is missing or damaged."""
        fields = json.loads(path.read_bytes())
        if fields.pop("schema") != SCHEMA:
            raise ValueError("another schema version")
        channels, height, width = fields["shape"]
        return cls(**{**fields, "shape": (channels, height, width), **{name: tuple(fields[name]) for name in cls._TUPLES}})

    _TUPLES: ClassVar[tuple[str, ...]] = ("classes", "train_counts", "test_counts")


class Entry:
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

    def meta(self) -> Meta | None:
        """What the cache knows, or None if it has nothing usable."""
        try:
            meta = Meta.read(self._folder / "meta.json")
            if self._data.stat().st_size != meta.bytes:
                raise ValueError("the data file has another size than its description says")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("the cached copy of dataset %s is damaged (%s); decoding it again", self._dataset.name, one_line(error))
            return None
        self._fingerprint = meta.fingerprint
        return meta

    def build(self, progress: Progress) -> Meta:
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

        from gatecrash.contracts.data import ImageSet, Splits

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

    def _decode(self, progress: Progress) -> Meta:
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
            meta = Meta(
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
