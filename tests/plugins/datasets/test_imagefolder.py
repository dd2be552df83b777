"""Image folders: order of names, splits, resizing, and files that cannot be used."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from gatecrash.datasets.preparation import prepare_dataset
from gatecrash_plugins.datasets.imagefolder import ImageFolder
from support.dataset_files import load, write_image
from support.image_folders import folder_of, refused


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """train/ and test/ with the classes cat (values from 10) and dog (values from 50), PNG, 6 wide and 4 high."""
    for part, count in (("train", 4), ("test", 2)):
        for label, base in (("dog", 50), ("cat", 10)):
            for number in range(count):
                write_image(tmp_path / part / label / f"{number}.png", base + number)
    return tmp_path


def test_a_folder_is_read_in_the_order_of_its_names(folder: Path) -> None:
    splits = load(folder_of(folder))
    assert splits.train.classes == ("cat", "dog")
    assert splits.train.shape == (3, 4, 6)
    assert splits.train.labels.tolist() == [0] * 4 + [1] * 4
    assert splits.train.images[:, 0, 0, 0].tolist() == [10, 11, 12, 13, 50, 51, 52, 53]
    assert splits.train.images[5, :, 3, 5].tolist() == [51, 102, 0]
    assert splits.test.images[:, 0, 0, 0].tolist() == [10, 11, 50, 51]
    assert splits.flip is True


@pytest.mark.parametrize(("resize", "shape"), [(8, (3, 8, 8)), ([3, 5], (3, 3, 5))])
def test_resize_takes_a_side_or_height_and_width(folder: Path, resize: Any, shape: tuple[int, int, int]) -> None:
    write_image(folder / "train" / "cat" / "large.png", 14, size=(50, 40))
    splits = load(folder_of(folder, resize=resize))
    assert splits.train.shape == splits.test.shape == shape
    assert splits.train.images[4, 0].unique().tolist() == [14]


def test_grayscale_has_one_channel_of_luma(folder: Path) -> None:
    splits = load(folder_of(folder, mode="grayscale"))
    assert splits.train.shape == (1, 4, 6)
    assert int(splits.train.images[0, 0, 0, 0]) == round(0.299 * 10 + 0.587 * 20)


def test_formats_and_modes_are_made_uint8_channels(tmp_path: Path) -> None:
    for number, (mode, suffix) in enumerate([("RGB", "bmp"), ("L", "png"), ("RGBA", "png"), ("P", "gif"), ("1", "png"), ("CMYK", "jpg")]):
        for label in "ab":
            path = tmp_path / label / f"{number}.{suffix}"
            path.parent.mkdir(exist_ok=True)
            Image.new(mode, (5, 5)).save(path)
    assert load(folder_of(tmp_path)).train.shape == (3, 5, 5)


def test_one_folder_is_split_by_seed_within_each_class(tmp_path: Path) -> None:
    for label, count, base in (("a", 10, 0), ("b", 5, 100)):
        for number in range(count):
            write_image(tmp_path / label / f"{number:02d}.png", base + number)
    splits = load(folder_of(tmp_path))
    assert splits.train.class_counts() == (8, 4)
    assert splits.test.class_counts() == (2, 1)
    values = [part.images[:, 0, 0, 0].tolist() for part in (splits.train, splits.test)]
    assert sorted(values[0] + values[1]) == [*range(10), *range(100, 105)]
    tests = {tuple(load(folder_of(tmp_path, split_seed=seed)).test.images[:, 0, 0, 0].tolist()) for seed in range(6)}
    assert len(tests) > 1
    assert load(folder_of(tmp_path, test_fraction=0.5)).test.class_counts() == (5, 3)
    assert tuple(values[1]) == tuple(load(folder_of(tmp_path)).test.images[:, 0, 0, 0].tolist())


def test_the_manifest_changes_with_the_files_and_only_then(folder: Path) -> None:
    texts = [folder_of(folder).manifest()]
    assert folder_of(folder).manifest() == texts[0]
    write_image(folder / "train" / "cat" / "more.png", 14)
    texts.append(folder_of(folder).manifest())
    (folder / "train" / "cat" / "more.png").rename(folder / "train" / "dog" / "more.png")
    texts.append(folder_of(folder).manifest())
    write_image(folder / "test" / "cat" / "0.png", 99)
    texts.append(folder_of(folder).manifest())
    shutil.copytree(folder / "train", folder / "elsewhere" / "train")
    shutil.copytree(folder / "test", folder / "elsewhere" / "test")
    texts.append(folder_of(folder / "elsewhere").manifest())
    assert len(set(texts)) == 5


def test_the_fingerprint_of_a_folder_is_what_it_always_was(folder: Path, tmp_path: Path) -> None:
    """Results are found by it, so that they stay valid for folders that were read right before files were read as viewers show them."""
    found = [prepare_dataset(folder_of(folder, **options), tmp_path / "cache").fingerprint[:16] for options in ({}, {"mode": "grayscale"})]
    split = prepare_dataset(folder_of(folder / "train"), tmp_path / "cache").fingerprint[:16]
    assert [*found, split] == ["2d7ef7a3307b94fe", "7e0f993bd0c5e45b", "d6f623d6d3299628"]


def test_moved_images_have_the_same_fingerprint(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    cache, moved = tmp_path_factory.mktemp("cache"), tmp_path_factory.mktemp("moved") / "images"
    before = prepare_dataset(folder_of(folder), cache).fingerprint
    shutil.copytree(folder, moved)
    assert prepare_dataset(folder_of(moved), cache).fingerprint == before


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path / "nowhere") == f"image folder {tmp_path / 'nowhere'} does not exist; check root"
    (tmp_path / "file").write_text("")
    assert "is not a folder" in refused(tmp_path / "file")


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "0.png", 1)
    assert "has no class folders" in refused(tmp_path)


def test_a_class_without_images_is_named(folder: Path) -> None:
    (folder / "train" / "bird").mkdir()
    (folder / "train" / "bird" / "notes.txt").write_text("soon")
    assert "class 'bird'" in refused(folder)


@pytest.mark.parametrize(("part", "other"), [("train", "test"), ("test", "train")])
def test_class_folders_that_differ_are_named(folder: Path, part: str, other: str) -> None:
    write_image(folder / part / "bird" / "0.png", 1)
    assert refused(folder) == f"class 'bird' is in {folder / part} but not in {folder / other}; both need the same class folders"


def test_a_class_with_one_image_cannot_be_split(tmp_path: Path) -> None:
    write_image(tmp_path / "a" / "0.png", 1)
    write_image(tmp_path / "b" / "0.png", 1)
    assert "class 'a'" in refused(tmp_path)


def test_a_corrupt_image_is_named(folder: Path) -> None:
    broken = folder / "train" / "dog" / "1.png"
    broken.write_bytes(broken.read_bytes()[:50])
    assert f"cannot decode the image {broken}" in refused(folder)
    broken.write_text("not an image at all")
    assert f"cannot decode the image {broken}" in refused(folder)


def test_sixteen_bit_images_are_refused_instead_of_clipped(folder: Path) -> None:
    deep = folder / "train" / "dog" / "1.png"
    Image.fromarray(np.full((4, 6), 40_000, dtype=np.uint16)).save(deep)
    assert f"cannot decode the image {deep}: it has 16 bits per channel" in refused(folder)


def test_images_of_several_sizes_ask_for_resize(folder: Path) -> None:
    odd = folder / "train" / "dog" / "1.png"
    write_image(odd, 1, size=(9, 4))
    assert f"{odd} is 4x9 (height x width); set resize" in refused(folder)
    write_image(odd, 1)
    for path in (folder / "test").rglob("*.png"):
        write_image(path, 1, size=(9, 4))
    assert "set resize" in refused(folder)


def test_options_out_of_range_are_refused(tmp_path: Path) -> None:
    for options in ({"resize": 0}, {"resize": [1, 2, 3]}, {"test_fraction": 1}, {"mode": "cmyk"}, {"limit": 0}, {"colour": True}):
        with pytest.raises(ValidationError):
            ImageFolder.Config(root=tmp_path, **options)  # type: ignore[arg-type]


def test_many_images_of_real_size_are_decoded_in_threads_in_order(tmp_path: Path) -> None:
    """Files above the size where threads pay, in several chunks' worth of order."""
    noise = np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    for number in range(300):
        path = tmp_path / "train" / "ab"[number // 150] / f"{number:03d}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise[0, 0] = number % 256
        Image.fromarray(noise).save(path)
    shutil.copytree(tmp_path / "train", tmp_path / "test")
    write_image(tmp_path / "test" / "a" / "000.bmp", 1, size=(90, 90))
    assert load(folder_of(tmp_path)).train.images[:, 0, 0, 0].tolist() == [number % 256 for number in range(300)]
