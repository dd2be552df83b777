"""Image folders as users have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gatecrash import UserError
from gatecrash_plugins.datasets.imagefolder import ImageFolder
from support.dataset_files import load, write_image


def folder_of(root: Path, **options: Any) -> ImageFolder:
    return ImageFolder(ImageFolder.Config(root=root, **options))


def refused(root: Path, **options: Any) -> str:
    """The one-line message with which planning or loading refuses the folder."""
    with pytest.raises(UserError) as caught:
        load(folder_of(root, **options))
    message = str(caught.value)
    assert "\n" not in message
    return message


def write_classes(folder: Path, *labels: str, count: int = 4, start: int = 10) -> None:
    """`count` images in each class folder, all different: values go up from `start`, by 20 from class to class."""
    for number, label in enumerate(labels):
        for index in range(count):
            write_image(folder / label / f"{index}.png", start + 20 * number + index)
