"""The datasets that ship: digits, image folders, and the torchvision sets on tiny files in their genuine formats."""

from __future__ import annotations

import hashlib
import pickle
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from pydantic import ValidationError

from gatecrash import Dataset, Splits, UserError
from gatecrash.datasets.preparation import prepare_dataset
from gatecrash_plugins.datasets.cifar import Cifar10, Cifar100
from gatecrash_plugins.datasets.digits import Digits
from gatecrash_plugins.datasets.gtsrb import Gtsrb
from gatecrash_plugins.datasets.imagefolder import ImageFolder
from gatecrash_plugins.datasets.mnist import FashionMnist, Mnist


def load(dataset: Dataset) -> Splits:
    seen: list[tuple[int, int]] = []
    dataset.manifest()
    splits = dataset.load(lambda done, total: seen.append((done, total)))
    total = len(splits.train) + len(splits.test)
    assert seen[-1] == (total, total), "progress ends at the number of images"
    return splits


def registered(module: Any) -> list[str]:
    names: list[str] = []
    module.register_datasets(lambda plugin: names.append(plugin.name))
    return names


def test_every_dataset_registers_itself() -> None:
    from gatecrash_plugins.datasets import cifar, digits, gtsrb, imagefolder, mnist

    names = [name for module in (cifar, digits, gtsrb, imagefolder, mnist) for name in registered(module)]
    assert names == ["cifar10", "cifar100", "digits", "gtsrb", "imagefolder", "mnist", "fashion-mnist"]


# digits


def test_digits_are_the_real_ones_scaled_to_16_pixels() -> None:
    from sklearn.datasets import load_digits

    splits = load(Digits())
    assert len(splits.train) + len(splits.test) == 1797
    assert splits.train.shape == (1, 16, 16)
    assert splits.flip is False
    assert splits.train.classes == tuple("0123456789")
    assert splits.test.class_counts() == (36, 36, 35, 37, 36, 36, 36, 36, 35, 36)  # a fifth of 178, 182, 177, 183, ...
    assert (int(splits.train.images.min()), int(splits.train.images.max())) == (0, 255)
    # Corners of a scaled image are the corners of the original.
    pixels, labels = load_digits(return_X_y=True)
    corners = np.round(pixels.reshape(-1, 8, 8)[:, ::7, ::7].reshape(-1, 4) * 255 / 16).astype(int)
    given = [(part.labels, part.images[:, 0, ::15, ::15].flatten(1)) for part in (splits.train, splits.test)]
    found = [(int(label), *four) for those, fours in given for label, four in zip(those, fours.tolist(), strict=True)]
    assert sorted(found) == sorted((int(label), *four) for label, four in zip(labels, corners.tolist(), strict=True))


def test_digits_split_the_same_way_every_time() -> None:
    assert load(Digits()).train.fingerprint == load(Digits()).train.fingerprint


# imagefolder


def write_image(path: Path, value: int, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 2 * value, 0)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """train/ and test/ with the classes cat (values from 10) and dog (values from 50), PNG, 6 wide and 4 high."""
    for part, count in (("train", 4), ("test", 2)):
        for label, base in (("dog", 50), ("cat", 10)):
            for number in range(count):
                write_image(tmp_path / part / label / f"{number}.png", base + number)
    return tmp_path


def folder_of(root: Path, **options: Any) -> ImageFolder:
    return ImageFolder(ImageFolder.Config(root=root, **options))


def test_a_folder_is_read_in_the_order_of_its_names(folder: Path) -> None:
    splits = load(folder_of(folder))
    assert splits.train.classes == ("cat", "dog")
    assert splits.train.shape == (3, 4, 6)
    assert splits.train.labels.tolist() == [0] * 4 + [1] * 4
    assert splits.train.images[:, 0, 0, 0].tolist() == [10, 11, 12, 13, 50, 51, 52, 53]
    assert splits.train.images[5, :, 3, 5].tolist() == [51, 102, 0]
    assert splits.test.images[:, 0, 0, 0].tolist() == [10, 11, 50, 51]
    assert splits.flip is True


@pytest.mark.parametrize("name", ["val", "valid"])
def test_the_test_folder_may_be_named_for_validation(folder: Path, name: str) -> None:
    (folder / "test").rename(folder / name)
    assert len(load(folder_of(folder)).test) == 4


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


def test_files_that_are_no_images_are_passed_over(folder: Path) -> None:
    for name in ("README.txt", ".hidden.png", "Thumbs.db"):
        (folder / "train" / "cat" / name).write_text("not an image")
    (folder / "train" / ".git").mkdir()
    (folder / "train" / "labels.csv").write_text("")
    assert load(folder_of(folder)).train.class_counts() == (4, 4)


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


def test_moved_images_have_the_same_fingerprint(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    cache, moved = tmp_path_factory.mktemp("cache"), tmp_path_factory.mktemp("moved") / "images"
    before = prepare_dataset(folder_of(folder), cache).fingerprint
    shutil.copytree(folder, moved)
    assert prepare_dataset(folder_of(moved), cache).fingerprint == before


def refused(root: Path, **options: Any) -> str:
    """The one-line message with which planning or loading refuses the folder."""
    with pytest.raises(UserError) as caught:
        load(folder_of(root, **options))
    message = str(caught.value)
    assert "\n" not in message
    return message


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


def test_train_without_test_is_refused(folder: Path) -> None:
    shutil.rmtree(folder / "test")
    assert "has train/ but no test/" in refused(folder)


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
    assert "more than 8 bits per channel" in refused(folder)


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
    assert load(folder_of(tmp_path)).train.images[:, 0, 0, 0].tolist() == [number % 256 for number in range(300)]


# torchvision's formats


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


def accept(monkeypatch: pytest.MonkeyPatch, source: Any, md5: dict[str, str]) -> None:
    """Let torchvision take these files for the published ones."""
    monkeypatch.setattr(source, "train_list", [[name, md5[name]] for name, _ in source.train_list])
    monkeypatch.setattr(source, "test_list", [[name, md5[name]] for name, _ in source.test_list])
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": md5[source.meta["filename"]]})


def cifar10_files(root: Path) -> dict[str, str]:
    parts = {f"data_batch_{number}": [number, 0] for number in range(1, 6)} | {"test_batch": [3, 9]}
    return write_cifar(root, "cifar-10-batches-py", parts, ("batches.meta", "label_names", [f"name {i}" for i in range(10)]), "labels")


def test_cifar10_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accept(monkeypatch, torchvision.datasets.CIFAR10, cifar10_files(tmp_path))
    splits = load(Cifar10(Cifar10.Config(root=tmp_path)))
    assert splits.train.labels.tolist() == [1, 0, 2, 0, 3, 0, 4, 0, 5, 0]
    assert splits.train.shape == (3, 32, 32)
    assert splits.test.images[1, :, 31, 0].tolist() == [9, 100, 200]
    assert splits.test.classes[3] == "name 3"
    assert splits.flip is True


def test_cifar100_has_its_fine_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"fine {i}" for i in range(100)]
    md5 = write_cifar(tmp_path, "cifar-100-python", {"train": [99, 5], "test": [7]}, ("meta", "fine_label_names", names), "fine_labels")
    accept(monkeypatch, torchvision.datasets.CIFAR100, md5)
    splits = load(Cifar100(Cifar100.Config(root=tmp_path, resize=16)))
    assert splits.train.labels.tolist() == [99, 5]
    assert splits.train.shape == (3, 16, 16)
    assert splits.train.images[0, :, 8, 8].tolist() == [99, 100, 200]
    assert splits.train.num_classes == 100


def test_cifar_files_that_are_not_the_published_ones_are_not_unpickled(tmp_path: Path) -> None:
    cifar10_files(tmp_path)
    with pytest.raises(UserError, match=r"cannot read cifar10 .* corrupted") as caught:
        load(Cifar10(Cifar10.Config(root=tmp_path)))
    assert "\n" not in str(caught.value)


def write_idx(path: Path, array: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())


@pytest.mark.parametrize(
    ("plugin", "folder", "flip", "third"), [(Mnist, "MNIST", False, "3 - three"), (FashionMnist, "FashionMNIST", True, "Dress")]
)
def test_mnist_files_are_read(tmp_path: Path, plugin: type[Mnist], folder: str, flip: bool, third: str) -> None:
    for part, labels in (("train", [3, 1, 9]), ("t10k", [2, 3])):
        images = np.stack([np.full((28, 28), 10 * label, np.uint8) for label in labels])
        write_idx(tmp_path / folder / "raw" / f"{part}-images-idx3-ubyte", images)
        write_idx(tmp_path / folder / "raw" / f"{part}-labels-idx1-ubyte", np.array(labels, np.uint8))
    splits = load(plugin(plugin.Config(root=tmp_path)))
    assert splits.train.shape == (1, 28, 28)
    assert splits.train.labels.tolist() == [3, 1, 9]
    assert splits.train.images[:, 0, 5, 5].tolist() == [30, 10, 90]
    assert splits.test.labels.tolist() == [2, 3]
    assert splits.train.classes[3] == third
    assert splits.flip is flip
    assert load(plugin(plugin.Config(root=tmp_path, resize=32))).train.images[:, 0, 5, 5].tolist() == [30, 10, 90]
    (tmp_path / folder / "raw" / "train-images-idx3-ubyte").write_bytes(b"short")
    with pytest.raises(UserError, match=f"cannot read {plugin.name} in"):
        load(plugin(plugin.Config(root=tmp_path)))


@pytest.fixture
def signs(tmp_path: Path) -> Path:
    """GTSRB's layout: two signs with two tracks of three frames each, of many sizes, and three test images."""
    base = tmp_path / "gtsrb"
    for label in range(2):
        for track in range(2):
            for frame in range(3):
                name = f"{track:05d}_{frame:05d}.ppm"
                write_image(base / "GTSRB" / "Training" / f"{label:05d}" / name, 50 * label + 10 * track + frame, size=(30 + frame, 29))
    for number in range(3):
        write_image(base / "GTSRB" / "Final_Test" / "Images" / f"{number:05d}.ppm", 90 + number, size=(40, 41))
    header = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
    rows = [f"{number:05d}.ppm;40;41;5;5;34;35;{number % 2}" for number in range(3)]
    (base / "GT-final_test.csv").write_text("\r\n".join([header, *rows]) + "\r\n")
    return tmp_path


def test_gtsrb_keeps_tracks_together(signs: Path) -> None:
    splits = load(Gtsrb(Gtsrb.Config(root=signs)))
    assert splits.train.shape == splits.test.shape == (3, 32, 32)
    assert splits.train.classes == ("00000", "00001")
    assert splits.train.labels.tolist() == [0] * 6 + [1] * 6
    assert splits.groups is not None
    assert splits.groups.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert splits.train.images[:, 0, 16, 16].tolist() == [0, 1, 2, 10, 11, 12, 50, 51, 52, 60, 61, 62]
    assert splits.test.labels.tolist() == [0, 1, 0]
    assert splits.test.images[:, 0, 16, 16].tolist() == [90, 91, 92]
    assert splits.flip is False
    assert load(Gtsrb(Gtsrb.Config(root=signs, resize=48))).train.shape == (3, 48, 48)


def test_gtsrb_with_broken_answers_is_a_user_error(signs: Path) -> None:
    (signs / "gtsrb" / "GT-final_test.csv").write_text("Filename;ClassId\n00000.ppm;77\n")
    with pytest.raises(UserError, match=r"cannot read .*GT-final_test.csv"):
        load(Gtsrb(Gtsrb.Config(root=signs)))


@pytest.mark.parametrize("plugin", [Cifar10, Cifar100, Mnist, FashionMnist, Gtsrb])
def test_files_that_are_not_there_ask_for_root_or_download(plugin: type[Dataset], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{plugin.name} is not complete in .*; set root to the folder above it, or set download: true"):
        plugin(plugin.Config(root=tmp_path)).manifest()  # type: ignore[call-arg]


def test_download_fetches_what_is_missing_and_only_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []

    def fetch(self: Cifar10) -> None:
        calls.append(self.root)
        cifar10_files(self.root)

    monkeypatch.setattr(Cifar10, "download", fetch)
    dataset = Cifar10(Cifar10.Config(root=tmp_path, download=True))
    assert dataset.manifest() == dataset.manifest()
    assert calls == [tmp_path]


def test_a_download_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no route\nto host")

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", offline)
    with pytest.raises(UserError) as caught:
        Cifar10(Cifar10.Config(root=tmp_path, download=True)).manifest()
    assert str(caught.value) == f"cannot download cifar10 into {tmp_path}: no route to host"


def test_a_tiny_set_goes_through_the_cache(signs: Path, tmp_path: Path) -> None:
    prepared = prepare_dataset(Gtsrb(Gtsrb.Config(root=signs)), tmp_path / "cache")
    assert prepared.has_groups
    groups = prepared.splits().groups
    assert groups is not None
    assert torch.equal(groups, torch.arange(4).repeat_interleave(3))
