"""Own images: one folder per class."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from gatecrash import Dataset, DatasetConfig, UserError, hookimpl
from gatecrash_plugins.datasets._folders import Layout, find_images, find_splits
from gatecrash_plugins.datasets._groups import check_groups, group_numbers, is_table
from gatecrash_plugins.datasets._images import Background, Mode, decode, different_sizes, files_text, split_rows

if TYPE_CHECKING:
    import torch

    from gatecrash import Splits

log = logging.getLogger(__name__)

Side = Annotated[int, Field(ge=1, le=4096)]
Groups = Annotated[str, AfterValidator(check_groups)]


class ImageFolder(Dataset):
    """Any images in folders named for their classes, resized (bilinear, not keeping the aspect).

    Classes are numbered from 0 in the order of their names, sorted as text: `10` comes before `2`, capitals before small letters. Images
    in sub-folders of a class belong to it. Hidden and system files and folders are passed over; other files whose names do not end as
    images do are counted in a warning. Images are read as a viewer shows them (`gatecrash.open_image`): turned as their EXIF orientation
    says, with what is transparent laid on `background`.

    With layout `auto`, the sub-folders of root are splits if all their names are those of splits, or if the training folder holds folders
    and no images itself; otherwise they are classes, even one named `train`. Without a test folder the test set is drawn from the
    training folder.
    """

    name = "imagefolder"
    summary = "your own images: one folder per class"

    class Config(DatasetConfig):
        """Where the images are and what becomes of them."""

        root: Path = Field(
            description="folder with one folder per class (numbered by name, sorted as text), or with a training folder (train, training, "
            "Final_Training) and a test folder (test, testing, Final_Test, val, valid, validation) that hold those, in capitals or not"
        )
        layout: Layout = Field("auto", description="what the folders in root are: classes, splits, or found by their names and contents")
        resize: Side | tuple[Side, Side] | None = Field(
            None, description="size in pixels: a number for a square or [height, width]; needed where images differ in size"
        )
        mode: Mode = Field("rgb", description="channels: rgb (3) or grayscale (1)")
        background: Background = Field("white", description="colour behind transparent pixels")
        groups: Groups | None = Field(
            None,
            description="near-duplicates to keep on one side of a split: a regular expression searched in file names, whose first group "
            "names the group, as in (track\\d+)_; or a CSV file (its name ends in .csv) with columns path (below root) and group",
        )
        test_fraction: float = Field(
            0.2, ge=0.01, le=0.9, description="share of each class for the test set, where there is no test folder"
        )
        split_seed: int = Field(0, ge=0, lt=1 << 32, description="draws that test set")
        flip: bool = Field(True, description="whether mirroring an image keeps its class; false for text, digits, signs")

    config: Config

    def manifest(self) -> str:
        train, test, beside = find_splits(self._root, self.config.layout)
        images, unread = find_images(train)
        parts = [files_text(train, _paths(images))]
        if test is not None:
            tested, more = find_images(test)
            parts += [test.name, files_text(test, _paths(tested))]
            unread += more
        _warn_of_unread(self._root, [*beside, *unread])
        if self.config.groups is not None and is_table(self.config.groups):
            table = Path(self.config.groups).expanduser()
            parts.append(files_text(table.parent, [str(table)]))
        return " ".join(parts)

    def load(self, progress: Callable[[int, int], None]) -> Splits:
        import torch

        from gatecrash import ImageSet, Splits

        train_folder, test_folder, _ = find_splits(self._root, self.config.layout)
        found = find_images(train_folder).images
        classes, train_files, train_labels = tuple(found), _paths(found), _labels(found)
        groups = None
        if self.config.groups is not None:
            groups = torch.tensor(group_numbers(self.config.groups, self._root, train_files))
        if test_folder is not None:
            tested = find_images(test_folder).images
            _same_classes(train_folder, found, test_folder, tested)
            test_files, test_labels = _paths(tested), _labels(tested)
        else:
            single = [label for label, paths in found.items() if len(paths) < 2]
            if single:
                raise UserError(f"class {single[0]!r} in {train_folder} has one image, too few to split into train and test; add images")
            train_rows, test_rows = split_rows(train_labels, self.config.test_fraction, self.config.split_seed, groups)
            test_files, test_labels = [train_files[row] for row in test_rows], train_labels[test_rows]
            train_files, train_labels = [train_files[row] for row in train_rows], train_labels[train_rows]
            groups = None if groups is None else groups[train_rows]
            _every_class_tested(test_labels, classes)
        total, before = len(train_files) + len(test_files), len(train_files)
        train = ImageSet(self._decode(train_files, lambda done: progress(done, total)), train_labels, classes)
        test = ImageSet(self._decode(test_files, lambda done: progress(before + done, total)), test_labels, classes)
        if test.shape != train.shape:
            raise different_sizes(train_files[0], train.shape, test_files[0], test.shape)
        _compare(train.images, test.images, train_folder, test_folder)
        return Splits(train, test, groups=groups, flip=self.config.flip)

    @property
    def _root(self) -> Path:
        return self.config.root.expanduser()

    def _decode(self, files: Sequence[str], progress: Callable[[int], None]) -> torch.Tensor:
        resize = self.config.resize
        size = (resize, resize) if isinstance(resize, int) else resize
        return decode(files, self.config.mode, size, progress, self.config.background)


def _paths(images: dict[str, list[str]]) -> list[str]:
    return [path for paths in images.values() for path in paths]


def _labels(images: dict[str, list[str]]) -> torch.Tensor:
    import torch

    counts = torch.tensor([len(paths) for paths in images.values()])
    labels: torch.Tensor = torch.arange(len(images)).repeat_interleave(counts)
    return labels


def _warn_of_unread(root: Path, unread: Sequence[str]) -> None:
    if unread:
        first = ", ".join(os.path.relpath(path, root) for path in unread[:3]) + (", ..." if len(unread) > 3 else "")
        log.warning("image folder %s: %s of its files and folders are not read as images: %s", root, f"{len(unread):,}", first)


def _same_classes(train_folder: Path, train: dict[str, list[str]], test_folder: Path, test: dict[str, list[str]]) -> None:
    for has, other, label in [(train_folder, test_folder, name) for name in train.keys() - test.keys()] + [
        (test_folder, train_folder, name) for name in test.keys() - train.keys()
    ]:
        raise UserError(f"class {label!r} is in {has} but not in {other}; both need the same class folders")


def _every_class_tested(test_labels: torch.Tensor, classes: Sequence[str]) -> None:
    missing = [label for number, label in enumerate(classes) if not bool((test_labels == number).any())]
    if missing:
        raise UserError(f"class {missing[0]!r} cannot be split into train and test: its groups are too large; use a test folder")


def _compare(train: torch.Tensor, test: torch.Tensor, train_folder: Path, test_folder: Path | None) -> None:
    """UserError for test images that are the training images; a warning where some of them are."""
    of_train, of_test = (Counter(hashlib.sha256(image.numpy()).digest() for image in images) for images in (train, test))
    if test_folder is not None and of_train == of_test:
        raise UserError(f"the images in {test_folder} are those in {train_folder}; a test set needs images of its own")
    shared = sum(count for image, count in of_test.items() if image in of_train)
    if shared:
        log.warning(
            "image folder %s: %s of %s test images are also training images, pixel for pixel",
            train_folder,
            f"{shared:,}",
            f"{len(test):,}",
        )


@hookimpl
def register_datasets(register: Callable[[type[Dataset]], None]) -> None:
    register(ImageFolder)
