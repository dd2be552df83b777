"""`Poisoned.also`: covers, and rows of further backdoors, one line each."""

from __future__ import annotations

import pytest
import torch

from gatecrash import ContractError, Poisoned, Role
from support.written_answers import Mark, backdoor, numbered

TRAIN = numbered([0, 0, 1, 1, 2, 2])


def test_rows_are_added_to_what_is_poisoned_already() -> None:
    rows, covers = torch.tensor([2]), torch.tensor([4, 5])
    first = Poisoned.replacing(TRAIN, rows, Mark()(TRAIN.images[rows]), torch.tensor([0]), [backdoor()])
    both = first.also(covers, Mark()(TRAIN.images[covers]), TRAIN.labels[covers], Role.COVER)
    both.check(TRAIN)
    assert both.role.tolist() == [0, 0, Role.POISON, 0, Role.COVER, Role.COVER]
    assert both.labels.tolist() == [0, 0, 0, 1, 2, 2]
    assert both.images[:, 0, 0, 1].tolist() == [0, 0, 255, 0, 255, 255]
    assert (both.poison_share, both.backdoors) == (1 / 6, first.backdoors)
    assert first.role.tolist() == [0, 0, Role.POISON, 0, 0, 0]  # as it was
    assert TRAIN.images[:, 0, 0, 1].tolist() == [0] * 6


@pytest.mark.parametrize(
    ("rows", "labels", "role", "said"),
    [
        ([2], [0], Role.POISON, "row 2 was changed before"),
        ([3, 3], [0, 0], Role.POISON, "a row comes twice"),
        ([3], [0], Role.COVER, "covers keep their true label"),
    ],
)
def test_a_row_changed_twice_and_a_cover_with_a_false_label_are_refused(rows: list[int], labels: list[int], role: Role, said: str) -> None:
    chosen = torch.tensor([2])
    made = Poisoned.replacing(TRAIN, chosen, TRAIN.images[chosen], torch.tensor([0]), [backdoor()])
    with pytest.raises(ContractError, match=said):
        made.also(torch.tensor(rows), TRAIN.images[torch.tensor(rows)], torch.tensor(labels), role)
