"""Loading a dataset plugin, and tiny files in the formats of the published ones."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gatecrash import Dataset, Splits


def load(dataset: Dataset) -> Splits:
    seen: list[tuple[int, int]] = []
    dataset.manifest()
    splits = dataset.load(lambda done, total: seen.append((done, total)))
    total = len(splits.train) + len(splits.test)
    assert seen[-1] == (total, total), "progress ends at the number of images"
    return splits


def write_image(path: Path, value: int, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 2 * value, 0)).save(path)


def write_cifar(root: Path, folder: str, parts: dict[str, list[int]], meta: tuple[str, str, list[str]], key: str) -> dict[str, str]:
    """Batches as published: pickled rows of 3072 bytes, red plane first. Gives the MD5 of each file."""
    base = root / folder
    base.mkdir(parents=True)
    contents: dict[str, Any] = {meta[0]: {meta[1]: meta[2]}}
    for name, labels in parts.items():
        rows = np.stack([np.repeat(np.array([label, 100, 200], np.uint8), 1024) for label in labels])
        contents[name] = {"data": rows, key: labels}
    for name, content in contents.items():
        (base / name).write_bytes(pickle.dumps(content))
    return {name: hashlib.md5((base / name).read_bytes()).hexdigest() for name in contents}


def cifar10_files(root: Path) -> dict[str, str]:
    parts = {f"data_batch_{number}": [number, 0] for number in range(1, 6)} | {"test_batch": [3, 9]}
    return write_cifar(root, "cifar-10-batches-py", parts, ("batches.meta", "label_names", [f"name {i}" for i in range(10)]), "labels")
