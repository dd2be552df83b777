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


def decode(files: Sequence[str], mode: Mode, size: Size | None, progress: Callable[[int], None]) -> Tensor:
    """uint8 [N, C, H, W] of image files, resized (bilinear) to `size` if given; `progress` gets the number done.

    Raises UserError naming a corrupt file, or one of another size than the first where nothing is resized.
    """
    import numpy as np
    import torch

    first = _decode_one(files[0], mode, size)
    images: np.ndarray[Any, Any] = np.empty((len(files), *first.shape), dtype=np.uint8)

    def work(start: int) -> int:
        for row in range(start, min(start + CHUNK, len(files))):
            image = _decode_one(files[row], mode, size)
            if image.shape != first.shape:
                here, there = (f"{height}x{width}" for _, height, width in (first.shape, image.shape))
                raise UserError(f"images differ in size: {files[0]} is {here}, {files[row]} is {there} (height x width); set resize")
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


def _decode_one(path: str, mode: Mode, size: Size | None) -> np.ndarray[Any, Any]:
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as file:
            if file.mode.startswith(("I", "F")):
                raise ValueError("more than 8 bits per channel; convert it to 8 bits")
            image = file.convert("RGB" if mode == "rgb" else "L")
    except Exception as error:  # Pillow raises errors of many types for broken files
        reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        raise UserError(f"cannot decode the image {path}: {reason}; repair or remove it") from None
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
    import torch

    from gatecrash import Splits, stratified_split

    counts = [min(max(math.floor(fraction * count + 0.5), 1), count - 1) for count in images.class_counts()]
    train, test = stratified_split(images.labels, counts, torch.Generator().manual_seed(seed))
    return Splits(images.subset(train), images.subset(test), flip=flip)
