"""Rows of a data set that is mapped from a file, as another such set.

A training set is what is left of a data set once the hold-out is cut. In memory it would be a second copy, of each task; in a file of the
cache all tasks of a machine share it, and the kernel keeps of it what fits.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gatecrash.process.cache_folder import cache_folder
from gatecrash.process.whole_file import replacing

if TYPE_CHECKING:
    from torch import Tensor

    from gatecrash.contracts.data import ImageSet

log = logging.getLogger(__name__)

SMALL = 2**26
"""Bytes of images that are copied in memory: a file would save nothing worth the space on disk."""

FORGOTTEN = 7 * 24 * 3600
"""Seconds after which a file that nothing has used is removed, when another one is written."""

_BLOCK = 2**20


_WHOLE: set[tuple[str, int]] = set()
"""Files that this process has written, or compared with their digest: path and time of the last change."""


def selected(data: ImageSet, rows: Tensor) -> ImageSet:
    """These rows (int64 [n], ascending) of the data. Their images are an original (`process.mapped`) where those of the data are one and
    there is much of them, else a copy in memory."""
    import torch

    from gatecrash.process.mapped import in_parts, region_of

    region = region_of(data.images)
    if region is None:
        return data.subset(rows.to(data.device))
    if len(rows) * data.images[0].numel() <= SMALL:
        return replace(data, images=torch.cat(list(in_parts(data.images, rows))), labels=data.labels[rows])
    identity = json.dumps([region.path, region.offset, region.shape, region.stamp]).encode()
    path = cache_folder() / "selections" / hashlib.sha256(identity + rows.numpy().tobytes()).hexdigest()
    try:
        images = _from_file(path, data.images, rows)
    except OSError as error:
        log.warning("a task needs a copy of the training images in memory: the cache cannot hold them (%s)", error)
        return data.subset(rows)
    return replace(data, images=images, labels=data.labels[rows])


def _from_file(path: Path, images: Tensor, rows: Tensor) -> Tensor:
    """The rows as they lie in the file, written there first if need be. Raises OSError."""
    from filelock import FileLock

    from gatecrash.process.mapped import mapped_file

    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (len(rows), *images.shape[1:])
    with FileLock(path.with_name(f"{path.name}.lock")):
        if not _is_whole(path, math.prod(shape)):
            _clear(path.parent)
            if shutil.disk_usage(path.parent).free < 2 * math.prod(shape):
                raise OSError(f"{path.parent} has too little free space")
            _write(path, images, rows)
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
        return mapped_file(path, 0, shape)


def _write(path: Path, images: Tensor, rows: Tensor) -> None:
    """The rows, and after them their digest."""
    from gatecrash.process.mapped import in_parts

    digest = hashlib.sha256()
    with replacing(path) as temporary, temporary.open("wb") as file:
        for block in in_parts(images, rows):
            digest.update(block.numpy().data)
            file.write(block.numpy().data)
        file.write(digest.digest())
    _WHOLE.add((str(path), path.stat().st_mtime_ns))


def _is_whole(path: Path, size: int) -> bool:
    """Whether the file has so many bytes and their digest; it is read once in a process."""
    if not path.exists():
        return False
    known = str(path), path.stat().st_mtime_ns
    if known not in _WHOLE:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            for start in range(0, size, _BLOCK):
                digest.update(file.read(min(_BLOCK, size - start)))
            if file.read() != digest.digest():
                return False
        _WHOLE.add(known)
    return True


def _clear(folder: Path) -> None:
    """Remove what has not been used for long. Locks stay: who holds one does not touch it."""
    from filelock import FileLock

    for path in folder.iterdir():
        with suppress(OSError):  # a lock that is held raises one, too
            if path.suffix != ".lock" and time.time() - path.stat().st_atime > FORGOTTEN:
                with FileLock(path.with_name(f"{path.name}.lock"), timeout=0):
                    path.unlink()
