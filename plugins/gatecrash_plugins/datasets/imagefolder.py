"""Own images: one folder per class."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from gatecrash import Dataset, DatasetConfig, UserError, hookimpl
from gatecrash_plugins.datasets._images import Mode, decode, files_text, with_test_share

if TYPE_CHECKING:
    import torch

    from gatecrash import ImageSet, Splits

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp"})
TEST_FOLDERS = ("test", "val", "valid")

Side = Annotated[int, Field(ge=1, le=4096)]


class ImageFolder(Dataset):
    """Any images in folders named for their classes, decoded with Pillow and resized (bilinear, not keeping the aspect).

    Classes are numbered in the order of their sorted names. Files that do not end as images do, and hidden ones, are passed over.
    """

    name = "imagefolder"
    summary = "your own images: one folder per class"

    class Config(DatasetConfig):
        """Where the images are and what becomes of them."""

        root: Path = Field(description="folder with one folder per class, or with train/ and test/ (or val/, valid/) that hold those")
        resize: Side | tuple[Side, Side] | None = Field(
            None, description="size in pixels: a number for a square or [height, width]; needed where images differ in size"
        )
        mode: Mode = Field("rgb", description="channels: rgb (3) or grayscale (1)")
        test_fraction: float = Field(
            0.2, ge=0.01, le=0.9, description="share of each class for the test set, where there is no test folder"
        )
        split_seed: int = Field(0, ge=0, lt=1 << 32, description="draws that test set")
        flip: bool = Field(True, description="whether mirroring an image keeps its class; false for text, digits, signs")

    config: Config

    def manifest(self) -> str:
        train, test = self._folders()
        parts = [files_text(train, [path for paths in _list(train).values() for path in paths])]
        if test is not None:
            parts += [test.name, files_text(test, [path for paths in _list(test).values() for path in paths])]
        return " ".join(parts)

    def load(self, progress: Callable[[int, int], None]) -> Splits:
        from gatecrash import Splits

        train_folder, test_folder = self._folders()
        listed = [_list(folder) for folder in (train_folder, test_folder) if folder is not None]
        total = sum(len(paths) for folder in listed for paths in folder.values())
        classes = tuple(listed[0])
        if test_folder is not None:
            _same_classes(train_folder, listed[0], test_folder, listed[1])
            train = self._decode(listed[0], classes, lambda done: progress(done, total))
            before = len(train)
            test = self._decode(listed[1], classes, lambda done: progress(before + done, total))
            if test.shape != train.shape:
                raise UserError(
                    f"images differ in size: in {train_folder} they are {train.shape[2]}x{train.shape[1]}, "
                    f"in {test_folder} {test.shape[2]}x{test.shape[1]}; set resize"
                )
            return Splits(train, test, flip=self.config.flip)
        single = [label for label, paths in listed[0].items() if len(paths) < 2]
        if single:
            raise UserError(f"class {single[0]!r} in {train_folder} has one image, too few to split into train and test; add images")
        everything = self._decode(listed[0], classes, lambda done: progress(done, total))
        return with_test_share(everything, self.config.test_fraction, self.config.split_seed, flip=self.config.flip)

    def _folders(self) -> tuple[Path, Path | None]:
        """The training folder, and the test folder if there is one."""
        root = self.config.root.expanduser()
        if not root.is_dir():
            raise UserError(f"image folder {root} {'is not a folder' if root.exists() else 'does not exist'}; check root")
        train = root / "train"
        if not train.is_dir():
            return root, None
        for name in TEST_FOLDERS:
            if (root / name).is_dir():
                return train, root / name
        raise UserError(f"image folder {root} has train/ but no test/ (or val/, valid/); add it, or set root to {train} to split that")

    def _decode(self, folder: dict[str, list[str]], classes: tuple[str, ...], progress: Callable[[int], None]) -> ImageSet:
        import torch

        from gatecrash import ImageSet

        resize = self.config.resize
        size = (resize, resize) if isinstance(resize, int) else resize
        images = decode([path for label in classes for path in folder[label]], self.config.mode, size, progress)
        counts = torch.tensor([len(folder[label]) for label in classes])
        labels: torch.Tensor = torch.arange(len(classes)).repeat_interleave(counts)
        return ImageSet(images, labels, classes)


def _list(folder: Path) -> dict[str, list[str]]:
    """Image files by class, both sorted by name; UserError for a class without any, or without classes."""
    files = {}
    try:
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.is_dir() and not entry.name.startswith("."):
                walk = os.walk(entry.path, onerror=_fail)
                files[entry.name] = sorted(os.path.join(where, name) for where, _, names in walk for name in names if _is_image(name))
    except OSError as error:
        raise UserError(f"cannot read {error.filename or folder}: {error.strerror or error}; check the folder") from None
    if not files:
        raise UserError(f"{folder} has no class folders; put the images of each class into a folder named for it")
    empty = [label for label, paths in files.items() if not paths]
    if empty:
        raise UserError(f"class {empty[0]!r} in {folder} has no images; add some or remove the folder")
    return files


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS


def _fail(error: OSError) -> None:
    raise error


def _same_classes(train_folder: Path, train: dict[str, list[str]], test_folder: Path, test: dict[str, list[str]]) -> None:
    for has, other, label in [(train_folder, test_folder, name) for name in train.keys() - test.keys()] + [
        (test_folder, train_folder, name) for name in test.keys() - train.keys()
    ]:
        raise UserError(f"class {label!r} is in {has} but not in {other}; both need the same class folders")


@hookimpl
def register_datasets(register: Callable[[type[Dataset]], None]) -> None:
    register(ImageFolder)
