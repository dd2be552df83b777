"""Which files are read, how, and which are refused or reported."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from support.dataset_files import load, write_image
from support.image_folders import folder_of, refused, write_classes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """train/ and test/ with the classes cat and dog, PNG, 6 wide and 4 high."""
    write_classes(tmp_path / "train", "cat", "dog")
    write_classes(tmp_path / "test", "cat", "dog", count=2, start=100)
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        ".ipynb_checkpoints/0-checkpoint.png",
        "__MACOSX/0.png",
        "@eaDir/0.png/thumb.png",
        "._0.png",
        ".DS_Store",
        "Thumbs.db",
        "desktop.ini",
    ],
)
@pytest.mark.parametrize("where", ["", "train", "train/cat", "train/cat/nested"])
def test_hidden_and_system_files_are_passed_over_everywhere(folder: Path, where: str, name: str, caplog: pytest.LogCaptureFixture) -> None:
    before = load(folder_of(folder)).train.fingerprint
    (folder / where / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "train" / "dog" / "1.png", folder / where / name)
    splits = load(folder_of(folder))
    assert splits.train.class_counts() == (4, 4)
    assert splits.train.fingerprint == before
    assert not caplog.messages


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "jpe", "jfif", "JFIF", "png", "bmp", "gif", "ppm", "pnm", "tif", "tiff", "webp"])
def test_common_endings_are_read(folder: Path, suffix: str) -> None:
    Image.new("RGB", (6, 4), (200, 100, 0)).save(folder / "train" / "cat" / f"new.{suffix}", format=formats(suffix))
    splits = load(folder_of(folder))
    assert splits.train.class_counts() == (5, 4)
    np.testing.assert_allclose(splits.train.images[4, :, 2, 3], [200, 100, 0], atol=3)


def formats(suffix: str) -> str | None:
    return {"jfif": "JPEG", "jpe": "JPEG"}.get(suffix.lower())


def test_files_that_are_not_read_are_counted_and_named_in_one_line(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copy(folder / "train" / "cat" / "0.png", folder / "train" / "cat" / "0001")
    shutil.copy(folder / "train" / "cat" / "0.png", folder / "test" / "dog" / "new.img")
    (folder / "train" / "labels.csv").write_text("")
    (folder / "train" / "dog" / "more").symlink_to(folder / "train" / "cat")
    assert load(folder_of(folder)).train.class_counts() == (4, 4)
    assert caplog.messages == [
        f"image folder {folder}: 4 of its files and folders are not read as images: train/cat/0001, train/dog/more, train/labels.csv, ..."
    ]


def test_pictures_that_look_the_same_are_read_the_same(tmp_path: Path) -> None:
    """The colour of transparent pixels is not seen: it is what the tool that wrote the file left there."""
    visible = np.zeros((8, 8), bool)
    visible[2:5, 2:5] = True
    for label, hidden in (("a", 0), ("b", 180)):
        pixels = np.full((8, 8, 4), (hidden, hidden, hidden, 0), np.uint8)
        pixels[visible] = (200, 50, 0, 255)
        for number in range(2):
            (tmp_path / label).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / label / f"{number}.png")
    for background, value in (("white", 255), ("black", 0)):
        splits = load(folder_of(tmp_path, background=background))
        one, other = splits.train.images.numpy()
        assert (one == other).all()
        assert (one[:, visible].T == (200, 50, 0)).all()
        assert (one[:, ~visible] == value).all()


def test_half_transparent_pixels_are_mixed_with_the_background(tmp_path: Path) -> None:
    write_classes(tmp_path, "a", "b", count=2)
    Image.new("LA", (6, 4), (100, 51)).save(tmp_path / "a" / "0.png")  # a fifth of 100 and four fifths of white
    Image.new("LA", (6, 4), (100, 51)).save(tmp_path / "a" / "1.png")
    splits = load(folder_of(tmp_path, mode="grayscale"))
    assert splits.train.images[0].unique().tolist() == [224]


def test_images_are_turned_as_their_exif_data_say(folder: Path) -> None:
    """Phones store what the sensor saw, and that it is to be turned."""
    upright = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    Image.fromarray(np.rot90(upright)).save(folder / "train" / "cat" / "0.png", exif=exif)
    splits = load(folder_of(folder))
    assert (splits.train.images[0].numpy() == upright).all()


def test_identical_training_and_test_images_are_refused(folder: Path) -> None:
    shutil.rmtree(folder / "test")
    shutil.copytree(folder / "train", folder / "test")
    for path in (folder / "test" / "cat").iterdir():
        path.rename(path.with_name(f"copy {9 - int(path.stem)}.png"))
    assert refused(folder).startswith(f"the images in {folder / 'test'} are those in {folder / 'train'}")


def test_test_images_that_are_training_images_are_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copy(folder / "train" / "cat" / "0.png", folder / "test" / "cat" / "0.png")
    load(folder_of(folder))
    assert caplog.messages == [f"image folder {folder / 'train'}: 1 of 4 test images are also training images, pixel for pixel"]


def test_what_is_no_regular_file_is_refused_at_once(folder: Path) -> None:
    os.mkfifo(folder / "train" / "cat" / "pipe.png")
    assert refused(folder) == f"cannot decode the image {folder}/train/cat/pipe.png: it is not a regular file; repair or replace it"


def test_images_that_need_more_memory_than_there_is_ask_for_resize(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need = 8 * 3 * 4 * 6
    free = namedtuple("free", "available")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free(need - 1))
    assert refused(folder) == "8 images of 4x6 need 0.0 GiB of memory; 0.0 GiB are free; set resize"
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free(need))
    assert load(folder_of(folder)).train.class_counts() == (4, 4)


def test_memory_that_the_system_refuses_asks_for_resize(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise np._core._exceptions._ArrayMemoryError((1 << 20, 3), np.dtype(np.uint8))

    load(folder_of(folder))
    monkeypatch.setattr(np, "empty", full)
    assert "set resize" in refused(folder)


def test_one_damaged_image_of_a_class_is_named_among_others(folder: Path) -> None:
    write_image(folder / "train" / "cat" / "9.png", 1)
    content = (folder / "train" / "cat" / "9.png").read_bytes()
    (folder / "train" / "cat" / "9.png").write_bytes(content[:45])
    assert f"cannot decode the image {folder}/train/cat/9.png" in refused(folder)
