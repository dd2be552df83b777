"""Tensors mapped from files: shared as long as nobody writes, and safe from each other where somebody does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from gatecrash.process import mapped

CONTENT = torch.arange(5000, 5000 + 40 * 75).remainder(251).to(torch.uint8).view(40, 3, 5, 5)
OFFSET = 11


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "images"
    path.write_bytes(b"x" * OFFSET + CONTENT.numpy().tobytes() + b"behind")
    return path


@pytest.fixture
def original(file: Path) -> Tensor:
    return mapped.mapped_file(file, OFFSET, tuple(CONTENT.shape))


def test_an_original_is_what_lies_in_the_file(original: Tensor) -> None:
    assert original.equal(CONTENT)
    assert original.dtype == torch.uint8


def test_what_is_written_to_a_copy_reaches_neither_the_file_nor_another_copy(original: Tensor, file: Path) -> None:
    one, other = mapped.copied(original), mapped.copied(original)
    one[3:7] = 0
    assert other.equal(original)
    assert original.equal(CONTENT)
    assert file.read_bytes()[OFFSET:-6] == CONTENT.numpy().tobytes()
    assert one[3:7].sum() == 0
    assert one[7:].equal(CONTENT[7:])


def test_what_is_let_go_of_is_read_again_and_a_copys_changes_stay(original: Tensor) -> None:
    changed = mapped.copied(original)
    changed[0] = 9
    for tensor in (original, changed):
        mapped.let_go(tensor)
    assert original.equal(CONTENT)
    assert (changed[0] == 9).all()


def test_only_a_whole_original_has_a_place(original: Tensor) -> None:
    found = mapped.region_of(original)
    assert found is not None
    assert found.mapped().equal(CONTENT)
    for other in (original[:5], original.view(-1), mapped.copied(original), original.clone()):
        assert mapped.region_of(other) is None


def test_a_copy_of_a_copy_has_what_was_written(original: Tensor) -> None:
    changed = mapped.copied(original)
    changed[1] = 7
    assert mapped.copied(changed).equal(changed)


def test_a_file_that_is_gone_or_replaced_is_not_mapped_again_and_copies_are_made_in_memory(original: Tensor, file: Path) -> None:
    region = mapped.region_of(original)
    assert region is not None
    file.rename(file.with_name("aside"))
    for _ in ("gone", "replaced"):
        with pytest.raises(OSError, match="run again"):
            region.mapped()
        assert mapped.copied(original).equal(CONTENT)
        file.write_bytes(bytes(CONTENT.numel() + OFFSET))


def test_reading_at_random_changes_no_content(original: Tensor) -> None:
    for tensor in (original, mapped.copied(original), CONTENT):
        with mapped.read_at_random(tensor):
            assert tensor.equal(CONTENT)


def test_a_file_that_is_too_short_is_refused(file: Path) -> None:
    with pytest.raises(OSError, match="too short"):
        mapped.mapped_file(file, OFFSET, (41, 3, 5, 5))


def test_rows_come_in_parts_in_their_order(original: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "AT_A_TIME", 7 * 75)
    rows = torch.tensor([0, 6, 7, 20, 39])
    assert torch.cat(list(mapped.in_parts(original, rows))).equal(CONTENT[rows])
    assert [part.stop - part.start for part in mapped.slices(original)] == [7, 7, 7, 7, 7, 5]
