"""Which folders are splits and which are classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.dataset_files import load, write_image
from support.image_folders import folder_of, refused, write_classes


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("train", "val"),
        ("train", "valid"),
        ("train", "validation"),
        ("Train", "Test"),
        ("TRAIN", "TEST"),
        ("training", "testing"),
        ("Training", "Validation"),
        ("Final_Training", "Final_Test"),
    ],
)
@pytest.mark.parametrize("layout", ["auto", "splits"])
def test_split_folders_are_known_by_many_names(tmp_path: Path, train: str, test: str, layout: str) -> None:
    write_classes(tmp_path / train, "cat", "dog")
    write_classes(tmp_path / test, "cat", "dog", count=2, start=100)
    splits = load(folder_of(tmp_path, layout=layout))
    assert splits.train.classes == ("cat", "dog")
    assert (splits.train.class_counts(), splits.test.class_counts()) == ((4, 4), (2, 2))


def test_of_several_test_folders_the_one_named_test_is_read_and_the_other_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for start, name in enumerate(("train", "val", "test")):
        write_classes(tmp_path / name, "cat", "dog", start=50 * start)
    assert load(folder_of(tmp_path)).test.images[0, 0, 0, 0] == 100
    assert caplog.messages == [f"image folder {tmp_path}: 1 of its files and folders are not read as images: val"]


def test_a_training_folder_alone_is_split(tmp_path: Path) -> None:
    write_classes(tmp_path / "Train", "cat", "dog", count=10)
    splits = load(folder_of(tmp_path))
    assert splits.train.classes == ("cat", "dog")
    assert (splits.train.class_counts(), splits.test.class_counts()) == ((8, 8), (2, 2))


def test_a_training_folder_beside_unknown_folders_asks_for_the_test_folder(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", "cat", "dog")
    write_classes(tmp_path / "holdout", "cat", "dog")
    message = refused(tmp_path)
    assert "has train/ but no test/" in message
    assert f"set root to {tmp_path / 'train'} to split that, or set layout: classes if holdout, train are the classes" in message
    assert load(folder_of(tmp_path, layout="splits")).train.classes == ("cat", "dog")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write_classes(tmp_path, "bus", "plane", "train")
    assert load(folder_of(tmp_path)).train.classes == ("bus", "plane", "train")


def test_classes_that_all_have_names_of_splits_need_the_layout(tmp_path: Path) -> None:
    write_classes(tmp_path, "test", "train")
    message = refused(tmp_path)
    assert f"{tmp_path / 'train'} has images outside class folders" in message
    assert "set layout: classes if test, train are the classes" in message
    assert load(folder_of(tmp_path, layout="classes")).train.classes == ("test", "train")


def test_a_test_folder_without_a_training_folder_is_refused(tmp_path: Path) -> None:
    write_classes(tmp_path / "test", "cat", "dog")
    write_classes(tmp_path / "val", "cat", "dog")
    assert "has no training folder" in refused(tmp_path)


def test_layout_splits_needs_a_training_folder(tmp_path: Path) -> None:
    write_classes(tmp_path, "cat", "dog")
    assert "has no training folder" in refused(tmp_path, layout="splits")


def test_a_test_folder_without_classes_is_named(tmp_path: Path) -> None:
    """As GTSRB comes from Kaggle: `Train/0 ... 42`, `Test/*.png`, `Meta/*.png`."""
    write_classes(tmp_path / "Train", "0", "1")
    for name in ("Meta", "Test"):
        write_image(tmp_path / name / "0.png", 1)
    assert refused(tmp_path).startswith(f"{tmp_path / 'Test'} has no class folders")


def test_a_folder_between_split_and_classes_is_named(tmp_path: Path) -> None:
    """As GTSRB comes from its authors: `Final_Training/Images/00000`, `Final_Test/Images/*.ppm`."""
    write_classes(tmp_path / "Final_Training" / "Images", "00000", "00001")
    write_image(tmp_path / "Final_Test" / "Images" / "0.ppm", 1)
    assert f"the class folders are in {tmp_path / 'Final_Training' / 'Images'}; set root to it" in refused(tmp_path)


@pytest.mark.parametrize("below", ["gtsrb", "archive/gtsrb"])
@pytest.mark.parametrize("beside", [None, "Meta"])
@pytest.mark.parametrize("splits", [True, False])
def test_a_root_too_high_names_the_right_one(tmp_path: Path, below: str, beside: str | None, splits: bool) -> None:
    right = tmp_path / below
    if splits:
        write_classes(right / "Train", "0", "1")
        write_classes(right / "Test", "0", "1", start=100)
    else:
        write_classes(right, "0", "1")
    if beside is not None:
        write_classes(tmp_path / beside, *(() if splits else ("x", "y")))
        write_image(tmp_path / beside / ("0.png" if splits else "x/0.png"), 1)
    message = refused(tmp_path)
    assert "is one level too high" in message
    assert f"set root to {right if splits or beside is None else min(right, tmp_path / beside)}" in message
    assert load(folder_of(right)).train.classes == ("0", "1")


def test_folders_of_folders_of_images_are_classes_when_said_so(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        write_classes(tmp_path / label, "monday", "tuesday", start=10 if label == "cat" else 100)
    assert f"set root to {tmp_path / 'cat'}, or set layout: classes if cat, dog are the classes" in refused(tmp_path)
    splits = load(folder_of(tmp_path, layout="classes"))
    assert splits.train.classes == ("cat", "dog")
    assert len(splits.train) + len(splits.test) == 16


def test_classes_with_one_folder_each_stay_classes(tmp_path: Path) -> None:
    """As in Tiny ImageNet: `n01443537/images/*.JPEG`."""
    for label in ("n01443537", "n01629819"):
        write_classes(tmp_path / label, "images", start=10 if label.endswith("7") else 100)
    assert load(folder_of(tmp_path)).train.classes == ("n01443537", "n01629819")


def test_folders_below_a_class_that_has_images_itself_belong_to_it(tmp_path: Path) -> None:
    write_classes(tmp_path, "cat", "dog")
    write_classes(tmp_path / "cat", "more", "yet more", start=100)
    splits = load(folder_of(tmp_path))
    assert len(splits.train) + len(splits.test) == 4 + 8 + 4


def test_classes_are_numbered_by_name_as_text(tmp_path: Path) -> None:
    write_classes(tmp_path, "2", "10", "b", "B")
    assert load(folder_of(tmp_path)).train.classes == ("10", "2", "B", "b")


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    write_classes(tmp_path, "cat", "dog")
    (tmp_path / "bird").mkdir()
    (tmp_path / "bird" / "again").symlink_to(tmp_path / "bird")
    assert "class 'bird'" in refused(tmp_path)
