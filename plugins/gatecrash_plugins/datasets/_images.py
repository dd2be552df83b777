"""What the shipped datasets share: listing files, decoding them in threads, resizing arrays, splitting one folder."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gatecrash import UserError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from gatecrash import ImageSet, Splits

Mode = Literal["rgb", "grayscale"]
Background = Literal["white", "black"]
Size = tuple[int, int]
"""`(height, width)`."""

CHUNK = 256
"""Files that one thread decodes at a time."""
SMALL_FILE = 16_384
"""Bytes below which decoding an image takes less time than switching threads."""


def files_text(root: Path, files: Sequence[str]) -> str:
    """A line that changes when one of the files below `root` does: their number, and a digest of paths, sizes and times."""
    top, skip = str(root.resolve()), len(str(root))
    digest = hashlib.sha256(top.encode())
    for path in files:
        try:
            stat = os.stat(path)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}; check the folder") from None
        # The change time notices files exchanged by tools that keep sizes and modification times.
        line = f"{path[skip:]}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\n"
        digest.update(line.encode(errors="surrogateescape"))
    return f"{len(files)} files {digest.hexdigest()}"


def decode(
    files: Sequence[str], mode: Mode, size: Size | None, progress: Callable[[int], None], background: Background = "white"
) -> Tensor:
    """uint8 [N, C, H, W] of image files, resized (bilinear) to `size` if given; `progress` gets the number done.

    Raises UserError naming a file that `gatecrash.open_image` refuses, or one of another size than the first where nothing is resized, and
    for images that do not fit this machine's free memory.
    """
    import torch

    first = _decode_one(files[0], mode, size, background)
    images = _room(len(files), first.shape)

    def work(start: int) -> int:
        for row in range(start, min(start + CHUNK, len(files))):
            image = _decode_one(files[row], mode, size, background)
            if image.shape != first.shape:
                raise different_sizes(files[0], first.shape, files[row], image.shape)
            images[row] = image
        return min(CHUNK, len(files) - start)

    # Threads that decode small files spend their time waiting for the interpreter lock: one is faster than two.
    workers = min(16, os.cpu_count() or 1) if os.stat(files[0]).st_size > SMALL_FILE else 1
    done = 0
    with ThreadPoolExecutor(workers) as pool:
        try:
            for count in pool.map(work, range(0, len(files), CHUNK)):
                done += count
                progress(done)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return torch.from_numpy(images)


def different_sizes(one: str, its: Sequence[int], other: str, others: Sequence[int]) -> UserError:
    """The error for two images of different shapes, `(C, H, W)`."""
    return UserError(f"images differ in size: {one} is {its[1]}x{its[2]}, {other} is {others[1]}x{others[2]} (height x width); set resize")


def _room(count: int, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """uint8 [count, *shape], uninitialised."""
    import numpy as np
    import psutil

    needed, free = count * math.prod(shape), psutil.virtual_memory().available
    try:
        if needed > free:
            raise MemoryError
        return np.empty((count, *shape), dtype=np.uint8)
    except MemoryError:
        gib = 2**30
        raise UserError(
            f"{count:,} images of {shape[1]}x{shape[2]} need {needed / gib:,.1f} GiB of memory; {free / gib:,.1f} GiB are free; set resize"
        ) from None


def _decode_one(path: str, mode: Mode, size: Size | None, background: Background) -> np.ndarray[Any, Any]:
    import numpy as np
    from PIL import Image

    from gatecrash import open_image

    image = open_image(Path(path))
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    image = image.convert("RGB" if mode == "rgb" else "L")
    if size is not None and image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels.transpose(2, 0, 1) if mode == "rgb" else pixels[None]


def resized(images: Tensor, size: Size | None) -> Tensor:
    """uint8 [N, C, H, W] -> uint8 [N, C, *size], bilinear with antialiasing, in batches."""
    import torch
    from torch.nn import functional as F

    if size is None or tuple(images.shape[2:]) == size:
        return images
    parts = []
    for start in range(0, len(images), 1024):
        part = F.interpolate(images[start : start + 1024].float(), size=size, mode="bilinear", antialias=True)
        parts.append(part.round_().clamp_(0, 255).to(torch.uint8))
    return torch.cat(parts)


def with_test_share(images: ImageSet, fraction: float, seed: int, *, flip: bool) -> Splits:
    """One set split into training and test images: `fraction` of each class is for the test, at least one image and never all."""
    from gatecrash import Splits

    train, test = split_rows(images.labels, fraction, seed)
    return Splits(images.subset(train), images.subset(test), flip=flip)


def split_rows(labels: Tensor, fraction: float, seed: int, groups: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`(training rows, test rows)`, int64 and ascending: `fraction` of each class for the test, at least one image and never all.

    `labels` and `groups` are int64 [N], on the CPU. With groups, whole ones go to the test in random order until each class has its share;
    those that would take more than half of a class (or `fraction` of it, if that is more) are passed over. A class of which no group can
    be taken has no test row.
    """
    import torch

    from gatecrash import group_rows, stratified_split

    counts = [min(max(math.floor(fraction * count + 0.5), 1), count - 1) for count in torch.bincount(labels).tolist()]
    generator = torch.Generator().manual_seed(seed)
    if groups is None:
        return stratified_split(labels, counts, generator)
    test = torch.zeros(len(labels), dtype=torch.bool)
    test[group_rows(labels, groups, counts, max(fraction, 0.5), generator)] = True
    return torch.nonzero(~test).flatten(), torch.nonzero(test).flatten()
