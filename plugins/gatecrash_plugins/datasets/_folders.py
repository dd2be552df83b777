"""Finding the images of a folder: which sub-folders are splits, which are classes, and which files are images. Nothing is opened."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn

from gatecrash import UserError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".pbm", ".pgm", ".pnm", ".ppm", ".tif", ".tiff", ".webp"})
SYSTEM = frozenset(
    {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "thumbs.db", "ehthumbs.db", "desktop.ini"}
)
"""What operating systems leave behind, besides names that begin with a dot."""
TRAINING = ("train", "training", "final_training")
TEST = ("test", "testing", "final_test", "val", "valid", "validation")
"""Names of split folders, in any case; of several the first counts."""

Layout = Literal["auto", "classes", "splits"]


class Found(NamedTuple):
    """The images of a folder, and what else is in it apart from hidden and system files."""

    images: dict[str, list[str]]
    """Paths by class, both sorted by name as text."""
    unread: list[str]


def find_splits(root: Path, layout: Layout) -> tuple[Path, Path | None, list[str]]:
    """The training folder, the test folder if there is one, and what stands beside them.

    With layout `auto`, folders whose names are all those of splits are splits, and so is a training folder that holds no images itself;
    otherwise the sub-folders are classes. Raises UserError for a root that is not a folder or one level too high, and where a split is
    missing.
    """
    if not root.is_dir():
        below = "" if root.is_absolute() else f" (below {Path.cwd()})"
        raise UserError(f"image folder {root}{below} {'is not a folder' if root.exists() else 'does not exist'}; check root")
    if layout == "classes":
        return root, None, []
    folders = _folders(root)
    train, test = _named(folders, TRAINING), _named(folders, TEST)
    if layout == "auto" and not _all_splits(folders) and (train is None or _holds_images(root / train)):
        _check_level(root, folders)
        return root, None, []
    if train is None:
        raise UserError(f"image folder {root} has no training folder (train/, training/ or Final_Training/); add it{_or_classes(folders)}")
    if layout == "auto":
        _check_found(root, folders, train, test)
    level = _first_branch(root / train)
    if level != root / train and not _holds_images(level):
        raise UserError(f"the class folders are in {level}; set root to it to split that, or move them into {root / train}")
    beside = [str(root / name) for name in folders if name not in (train, test)]
    return root / train, None if test is None else root / test, beside


def _all_splits(folders: Sequence[str]) -> bool:
    return bool(folders) and all(name.casefold() in TRAINING + TEST for name in folders)


def _check_found(root: Path, folders: Sequence[str], train: str, test: str | None) -> None:
    """Raise UserError where folders with names of splits may be classes, or the test folder has an unknown name."""
    if _holds_images(root / train):
        raise UserError(f"{root / train} has images outside class folders; put each into the folder of its class{_or_classes(folders)}")
    if test is None and len(folders) > 1:
        raise UserError(
            f"image folder {root} has {train}/ but no test/ (or testing/, Final_Test/, val/, valid/, validation/); add it, or set root to "
            f"{root / train} to split that{_or_classes(folders)}"
        )


def find_images(folder: Path) -> Found:
    """Image files by class; those in sub-folders of a class belong to it. UserError for a class without any, or without classes."""
    images: dict[str, list[str]] = {}
    unread = []
    for entry in sorted(_entries(folder), key=lambda entry: entry.name):
        if not _is_folder(entry):
            unread.append(entry.path)
            continue
        files = list(_files(entry.path))
        images[entry.name] = sorted(path for path in files if _is_image(path))
        unread += sorted(path for path in files if not _is_image(path))
    if not images:
        raise UserError(f"{folder} has no class folders; put the images of each class into a folder named for it")
    empty = [label for label, paths in images.items() if not paths]
    if empty:
        endings = ", ".join(sorted(EXTENSIONS))
        raise UserError(f"class {empty[0]!r} in {folder} has no images (files that end in {endings}); add some or remove the folder")
    return Found(images, unread)


def _check_level(root: Path, folders: Sequence[str]) -> None:
    """Raise UserError if the classes are farther down: in the only folder, or in folders that hold folders of images."""
    levels = {name: _first_branch(root / name) for name in folders}
    below = {name: level for name, level in levels.items() if not _holds_images(level) and len(_folders(level)) > 1}
    splits = [name for name, level in below.items() if _has_splits(level)]
    if not splits and any(_holds_images(root / name) for name in folders):
        return
    for name in splits or below:
        raise UserError(
            f"image folder {root} is one level too high: {root / name} holds folders of folders of images; set root to {levels[name]}"
            f"{_or_classes(folders)}"
        )


def _first_branch(folder: Path) -> Path:
    """The first folder on the way down that holds images, or more or fewer than one folder."""
    while not _holds_images(folder) and len(inside := _folders(folder)) == 1:
        folder /= inside[0]
    return folder


def _has_splits(folder: Path) -> bool:
    train = _named(_folders(folder), TRAINING)
    return train is not None and not _holds_images(folder / train)


def _or_classes(folders: Sequence[str]) -> str:
    named = ", ".join(folders[:3]) + (", ..." if len(folders) > 3 else "")
    return f", or set layout: classes if {named} are the classes" if len(folders) > 1 else ""


def _named(folders: Sequence[str], names: Sequence[str]) -> str | None:
    """The folder with the first of these names; the spelling in small letters goes before others."""
    return next((folder for name in names for folder in sorted(folders, key=lambda it: it != name) if folder.casefold() == name), None)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What is in a folder, without hidden and system files and folders."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if _is_visible(entry.name))
    except OSError as error:
        _fail(error)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle
        return False


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in _entries(folder) if _is_folder(entry))


def _holds_images(folder: Path) -> bool:
    return any(_is_image(entry.name) and not _is_folder(entry) for entry in _entries(folder))


def _files(folder: str) -> Iterator[str]:
    """All files below; links to folders, which are not followed, count as files."""
    for where, folders, names in os.walk(folder, onerror=_fail):
        folders[:] = [name for name in folders if _is_visible(name)]
        links = [name for name in folders if os.path.islink(os.path.join(where, name))]
        yield from (os.path.join(where, name) for name in names + links if _is_visible(name))


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in SYSTEM


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def _fail(error: OSError) -> NoReturn:
    raise UserError(f"cannot read {error.filename}: {error.strerror or error}; check the folder") from None
