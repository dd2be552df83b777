"""The cache that makes decoding happen once.

An entry is a folder that is written under another name and then renamed, under a kernel lock: it is complete or it does not exist, and two
processes decode once. An entry that was damaged later (a file cut short, flipped bits) is noticed when planning (the description by its
digest, the data by their size) or when loading (by fingerprint), set aside and rebuilt. The cache can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gatecrash.contracts.dataset import Dataset, DatasetConfig, Progress
from gatecrash.datasets.meta import SCHEMA, Meta
from gatecrash.datasets.splits import check_splits
from gatecrash.errors import ContractError, UserError, one_line

if TYPE_CHECKING:
    from torch import Tensor

    from gatecrash.contracts.data import ImageSet, Splits


log = logging.getLogger(__name__)


class Entry:
    """One decoded dataset's folder in the cache."""

    def __init__(self, dataset: Dataset, cache: Path) -> None:
        self._dataset = dataset
        config = dataset.config.model_dump(mode="json", exclude=set(DatasetConfig.model_fields))
        identity = [SCHEMA, dataset.name, dataset.version, config, dataset.manifest()]
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self._folder = cache / "datasets" / key
        self._meta: Meta | None = None
        """What was last read or written."""

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
        self._meta = meta
        return meta

    def build(self, progress: Progress) -> Meta:
        """Decode into the cache, unless another process just has."""
        with self._locked():
            return self.meta() or self._decode(progress)

    def read(self, progress: Progress) -> Splits:
        """The tensors, checked against the fingerprint; decoded again if the entry is damaged or gone."""
        planned = self._meta
        splits = self._load()
        if splits is None:
            with self._locked():
                splits = self._load()  # another process may have repaired it
                if splits is None:
                    self._decode(progress)
                    splits = self._load()
        found = self._meta
        if splits is None or found is None or planned is None or found.fingerprint != planned.fingerprint:
            raise UserError(f"dataset {self._dataset.name} changed on disk since this run was planned; run again")
        if replace(found, bytes=planned.bytes) != planned:
            raise UserError(f"the cached copy of dataset {self._dataset.name} was damaged when this run was planned; run again")
        return splits

    def _load(self) -> Splits | None:
        from safetensors import SafetensorError

        from gatecrash.contracts.data import ImageSet, Splits
        from gatecrash.datasets.mapping import mapped_tensors

        meta = self.meta()
        if meta is None:
            return None
        try:
            tensors = mapped_tensors(self._data)
            part: dict[str, ImageSet] = {
                name: ImageSet(tensors[f"{name}.images"], tensors[f"{name}.labels"], meta.classes)
                for name in ("train", "test", "clean")
                if f"{name}.images" in tensors
            }
            splits = Splits(part["train"], part["test"], part.get("clean"), tensors.get("groups"), meta.flip)
            found = Meta.of(splits, meta.bytes)
        except (OSError, SafetensorError, KeyError, ContractError) as error:
            log.warning("the cached copy of dataset %s is damaged (%s); decoding it again", self._dataset.name, one_line(error))
            return None
        if found != meta:
            what = "another fingerprint" if found.fingerprint != meta.fingerprint else "other counts than its description says"
            log.warning("the cached copy of dataset %s is damaged (%s); decoding it again", self._dataset.name, what)
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
            meta = Meta.of(splits, (folder / "data.safetensors").stat().st_size)
            (folder / "meta.json").write_text(meta.to_text())
            shutil.copymode(folder / "meta.json", folder / "data.safetensors")  # safetensors writes for the owner alone
            if self._folder.exists():
                aside = self._folder.with_name(f"{self._folder.name}.damaged")
                shutil.rmtree(aside, ignore_errors=True)
                self._folder.rename(aside)
            folder.rename(self._folder)
        self._meta = meta
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
