"""`prepare_dataset`: decode once, find again without decoding, survive damage; limits."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from gatecrash import ContractError, Dataset, DatasetConfig, ImageSet, Splits, UserError
from gatecrash.datasets.holdout import HoldoutConfig, remaining_counts
from gatecrash.datasets.preparation import prepare_dataset
from gatecrash.process.cache_folder import cache_folder
from gatecrash_plugins.datasets.digits import Digits


def images_of(labels: list[int], classes: int = 3, first: int = 0, shape: tuple[int, int, int] = (1, 2, 2)) -> ImageSet:
    pixels = torch.arange(first, first + len(labels)).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, *shape).contiguous()
    return ImageSet(pixels, torch.tensor(labels, dtype=torch.int64), tuple(f"class {label}" for label in range(classes)))


class Counting(Dataset):
    """Gives `content`, and counts how often it was decoded."""

    name = "counting"
    summary = "for tests"
    content = Splits(images_of([0, 1, 2] * 10), images_of([0, 1, 2] * 4, first=100))
    text = "manifest"
    loads = 0

    class Config(DatasetConfig):
        size: int = 2

    def manifest(self) -> str:
        return self.text

    def load(self, progress: Any) -> Splits:
        type(self).loads += 1
        progress(42, 42)
        return self.content


@pytest.fixture
def counting() -> type[Counting]:
    return type("Counting", (Counting,), {"loads": 0})


def same(a: Splits, b: Splits) -> bool:
    return all(
        torch.equal(x.images, y.images) and torch.equal(x.labels, y.labels) and x.classes == y.classes
        for x, y in ((a.train, b.train), (a.test, b.test))
    )


def entry(cache: Path) -> Path:
    (folder,) = (path for path in (cache / "datasets").iterdir() if path.is_dir() and not path.name.endswith(".damaged"))
    return folder


def test_a_dataset_is_decoded_once(counting: type[Counting], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    first = prepare_dataset(counting(), tmp_path, lambda done, total: seen.append((done, total)))
    again = prepare_dataset(counting(), tmp_path, lambda done, total: seen.append((done, total)))
    assert first == again
    assert (first.name, first.classes, first.shape) == ("counting", ("class 0", "class 1", "class 2"), (1, 2, 2))
    assert (first.train_counts, first.test_counts) == ((10, 10, 10), (4, 4, 4))
    assert same(again.splits(), Counting.content)
    assert counting.loads == 1
    assert seen == [(42, 42)]


def test_another_manifest_option_or_version_is_another_entry(counting: type[Counting], tmp_path: Path) -> None:
    prepare_dataset(counting(), tmp_path)
    prepare_dataset(counting(counting.Config(size=3)), tmp_path)
    counting.text = "the files changed"
    prepare_dataset(counting(), tmp_path)
    counting.version = 2
    prepare_dataset(counting(), tmp_path)
    assert counting.loads == 4


def test_everything_of_the_splits_comes_back(counting: type[Counting], tmp_path: Path) -> None:
    train = images_of([0, 1, 2, 0])
    counting.content = Splits(train, train, clean=images_of([2, 1], first=9), groups=torch.tensor([5, 6, 7, 5]), flip=False)
    prepared = prepare_dataset(counting(), tmp_path)
    splits = prepare_dataset(counting(), tmp_path).splits()
    assert (prepared.flip, prepared.has_clean, prepared.has_groups) == (False, True, True)
    assert splits.flip is False
    assert splits.clean is not None
    assert splits.clean.images[:, 0, 0, 0].tolist() == [9, 10]
    assert splits.groups is not None
    assert splits.groups.tolist() == [5, 6, 7, 5]


def test_reading_the_cache_imports_no_torch(tmp_path: Path) -> None:
    prepare_dataset(Digits(), tmp_path)
    script = (
        "import sys; from pathlib import Path; from gatecrash.datasets.preparation import prepare_dataset\n"
        "from gatecrash.datasets.holdout import HoldoutConfig, remaining_counts\n"
        "from gatecrash_plugins.datasets.digits import Digits\n"
        "prepared = prepare_dataset(Digits(Digits.Config(limit=500)), Path(sys.argv[1]))\n"
        "print(sum(remaining_counts(prepared, HoldoutConfig())), 'torch' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True).stdout
    assert output == "380 False\n"  # 500, about 50 per class, less a quarter of each rounded down: 10 x 12


def truncated(folder: Path) -> None:
    data = folder / "data.safetensors"
    data.write_bytes(data.read_bytes()[:-7])


def flipped(folder: Path) -> None:
    data = folder / "data.safetensors"
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)


def nonsense(folder: Path) -> None:
    (folder / "meta.json").write_text('{"schema": 1, "cla')


def another_type(folder: Path) -> None:
    (folder / "meta.json").write_text("[1, 2]")


def no_data(folder: Path) -> None:
    (folder / "data.safetensors").unlink()


def no_meta(folder: Path) -> None:
    (folder / "meta.json").unlink()


def other_counts(folder: Path) -> None:
    """What a flipped bit may do: 6 test images of each class are planned for instead of 4."""
    text = (folder / "meta.json").read_text()
    assert "  4," in text
    (folder / "meta.json").write_text(text.replace("  4,", "  6,"))


@pytest.mark.parametrize("damage", [truncated, flipped, nonsense, another_type, no_data, no_meta, other_counts])
@pytest.mark.parametrize("when", ["before planning", "between planning and loading"])
def test_a_damaged_entry_is_set_aside_and_decoded_again(damage: Any, when: str, counting: type[Counting], tmp_path: Path) -> None:
    prepared = prepare_dataset(counting(), tmp_path)
    damage(entry(tmp_path))
    if when == "before planning":
        prepared = prepare_dataset(counting(), tmp_path)
    assert same(prepared.splits(), Counting.content)
    assert same(prepare_dataset(counting(), tmp_path).splits(), Counting.content)
    assert counting.loads == 2
    assert [path.name for path in (tmp_path / "datasets").glob("*.damaged")] == [f"{entry(tmp_path).name}.damaged"]


def test_damage_is_reported_by_name(counting: type[Counting], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prepare_dataset(counting(), tmp_path)
    truncated(entry(tmp_path))
    prepare_dataset(counting(), tmp_path)
    assert "cached copy of dataset counting is damaged" in caplog.text


def without_digest(folder: Path) -> None:
    """As Gatecrash wrote it before descriptions had a digest."""
    path = folder / "meta.json"
    fields = json.loads(path.read_text())
    assert len(fields.pop("digest")) == 64
    path.write_text(json.dumps(fields, indent=1) + "\n")


def test_every_flipped_bit_of_a_description_is_noticed(counting: type[Counting], tmp_path: Path) -> None:
    expected = prepare_dataset(counting(), tmp_path)
    path = entry(tmp_path) / "meta.json"
    content = path.read_bytes()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        assert prepare_dataset(counting(), tmp_path) == expected


def test_a_cache_from_before_the_digest_is_read(counting: type[Counting], tmp_path: Path) -> None:
    first = prepare_dataset(counting(), tmp_path)
    without_digest(entry(tmp_path))
    again = prepare_dataset(counting(), tmp_path)
    assert again == first
    assert same(again.splits(), Counting.content)
    assert counting.loads == 1


def test_wrong_counts_in_a_cache_from_before_the_digest_stop_the_run_and_are_mended(counting: type[Counting], tmp_path: Path) -> None:
    first = prepare_dataset(counting(), tmp_path)
    without_digest(entry(tmp_path))
    other_counts(entry(tmp_path))
    planned = prepare_dataset(counting(), tmp_path)
    assert planned.test_counts != first.test_counts
    with pytest.raises(UserError, match="the cached copy of dataset counting was damaged when this run was planned"):
        planned.splits()
    assert prepare_dataset(counting(), tmp_path) == first


def test_a_set_that_changed_between_planning_and_a_repair_is_refused(counting: type[Counting], tmp_path: Path) -> None:
    prepared = prepare_dataset(counting(), tmp_path)
    flipped(entry(tmp_path))
    counting.content = Splits(images_of([0, 1, 2]), images_of([0]))
    with pytest.raises(UserError, match="counting changed on disk"):
        prepared.splits()


def test_what_a_killed_process_left_is_not_taken_for_data_and_is_cleared(counting: type[Counting], tmp_path: Path) -> None:
    prepare_dataset(counting(), tmp_path)
    folder = entry(tmp_path)
    half = folder.with_name(f"{folder.name}.tmp-dead")
    folder.rename(half)
    prepare_dataset(counting(), tmp_path)
    assert counting.loads == 2
    assert not half.exists()


def _prepare_in_process(cache: str, start: Any, results: Any) -> None:
    class Slow(Counting):
        def load(self, progress: Any) -> Splits:
            results.put("decoded")
            return super().load(progress)

    start.wait()
    results.put(prepare_dataset(Slow(), Path(cache)).fingerprint)


def test_processes_at_once_decode_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    barrier = context.Barrier(3)
    processes = [context.Process(target=_prepare_in_process, args=(str(tmp_path), barrier, results)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in range(4)]
    for process in processes:
        process.join()
    assert found.count("decoded") == 1
    assert len(set(found)) == 2


def test_the_fingerprint_says_what_the_data_are(tmp_path: Path) -> None:
    train, test = images_of([0, 1, 2] * 2), images_of([0, 1, 2])
    pixel = train.images.clone()
    pixel[0, 0, 0, 0] ^= 1
    variants = {
        "as it is": Splits(train, test),
        "a pixel": Splits(ImageSet(pixel, train.labels, train.classes), test),
        "a label": Splits(ImageSet(train.images, train.labels.roll(1), train.classes), test),
        "test": Splits(train, images_of([0, 1, 2], first=7)),
        "swapped": Splits(test, train),
        "names": Splits(*(ImageSet(part.images, part.labels, ("a", "b", "c")) for part in (train, test))),
        "flip": Splits(train, test, flip=False),
        "groups": Splits(train, test, groups=torch.arange(6)),
        "clean": Splits(train, test, clean=test),
    }
    prints = {}
    for what, content in variants.items():
        plugin = type("Variant", (Counting,), {"content": content, "text": what})
        prints[what] = prepare_dataset(plugin(), tmp_path).fingerprint
    assert len(set(prints.values())) == len(variants)
    renamed = type("Renamed", (Counting,), {"name": "renamed", "content": variants["as it is"]})
    assert prepare_dataset(renamed(), tmp_path).fingerprint == prints["as it is"]


# Limits


def limited(plugin: type[Counting], cache: Path, **limits: int) -> Any:
    return prepare_dataset(plugin(plugin.Config(**limits)), cache)


def test_a_limit_is_a_stratified_subset_that_decodes_nothing_again(counting: type[Counting], tmp_path: Path) -> None:
    labels = [0] * 60 + [1] * 30 + [2] * 10
    counting.content = Splits(images_of(labels), images_of(labels, first=100), groups=torch.arange(100))
    whole = limited(counting, tmp_path)
    part = limited(counting, tmp_path, limit=50, limit_test=10)
    assert part.train_counts == (30, 15, 5)
    assert part.test_counts == (6, 3, 1)
    splits = part.splits()
    assert splits.train.class_counts() == (30, 15, 5)
    assert splits.test.class_counts() == (6, 3, 1)
    rows = splits.train.images[:, 0, 0, 0].long()
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert splits.train.labels.tolist() == [labels[row] for row in rows]
    assert splits.groups is not None
    assert torch.equal(splits.groups, rows)
    assert torch.equal(limited(counting, tmp_path, limit=50).splits().train.images, splits.train.images)
    assert part.fingerprint != whole.fingerprint
    assert counting.loads == 1


def test_each_limit_has_a_fingerprint_of_its_own(counting: type[Counting], tmp_path: Path) -> None:
    limits: list[dict[str, int]] = [{}, {"limit": 9}, {"limit": 12}, {"limit_test": 9}, {"limit": 9, "limit_test": 9}]
    assert len({limited(counting, tmp_path, **chosen).fingerprint for chosen in limits}) == 5
    assert limited(counting, tmp_path, limit=30, limit_test=12).fingerprint == limited(counting, tmp_path).fingerprint


def test_a_limit_that_cannot_be_met_is_a_user_error(counting: type[Counting], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="counting: limit 31 is larger than its 30 training images; use at most 30"):
        limited(counting, tmp_path, limit=31)
    with pytest.raises(UserError, match="counting: limit_test 13 is larger than its 12 test images"):
        limited(counting, tmp_path, limit_test=13)
    with pytest.raises(UserError, match="limit 2 is smaller than its 3 classes"):
        limited(counting, tmp_path, limit=2)


# What a run has left, known without loading


def test_remaining_counts_are_what_the_cut_leaves(counting: type[Counting], tmp_path: Path) -> None:
    prepared = prepare_dataset(counting(), tmp_path)
    assert remaining_counts(prepared, HoldoutConfig()) == (8, 8, 8)
    counting.content, counting.text = Splits(counting.content.train, counting.content.test, clean=counting.content.test), "with a clean set"
    assert remaining_counts(prepare_dataset(counting(), tmp_path), HoldoutConfig()) == (10, 10, 10)


# What a source can lack


EMPTY = images_of([])


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (Splits(images_of([0, 0, 2]), images_of([0])), UserError, "class 'class 1' has no training images"),
        (Splits(EMPTY, images_of([0])), UserError, "no training images"),
        (Splits(images_of([0, 1, 2]), EMPTY), UserError, "no test images"),
        (Splits(images_of([0], classes=1), images_of([0], classes=1)), UserError, "at least two"),
        (Splits(images_of([0, 1, 2]), images_of([0], classes=4)), ContractError, "other classes"),
        (Splits(images_of([0, 1, 2]), images_of([0], shape=(3, 2, 2))), ContractError, r"test images are \[3, 2, 2\]"),
        (Splits(images_of([0, 1, 2]), images_of([0]), groups=torch.arange(2)), ContractError, r"groups must be int64 \[3\]"),
    ],
)
def test_unusable_splits_are_refused_and_not_cached(
    content: Splits, error: type[Exception], message: str, counting: type[Counting], tmp_path: Path
) -> None:
    counting.content = content
    for _ in range(2):
        with pytest.raises(error, match=message):
            prepare_dataset(counting(), tmp_path)
    assert counting.loads == 2


def test_a_cache_that_cannot_be_written_is_a_user_error(counting: type[Counting], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write the dataset cache .* set GATECRASH_CACHE"):
        prepare_dataset(counting(), tmp_path / "file")


def test_the_cache_folder_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, counting: type[Counting]) -> None:
    monkeypatch.setenv("GATECRASH_CACHE", str(tmp_path / "here"))
    prepare_dataset(counting())
    assert json.loads((entry(tmp_path / "here") / "meta.json").read_text())["schema"] == 1
    monkeypatch.delenv("GATECRASH_CACHE")
    assert "gatecrash" in os.fspath(cache_folder())
