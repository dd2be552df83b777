"""Selection of rows per class: counts in proportion, nested draws, and splits whose draws can never change."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from gatecrash import stratified_split
from gatecrash.datasets.sampling import stratified_counts, stratified_rows


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.data())
def test_stratified_counts_add_up_stay_in_proportion_and_leave_no_class_out(data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(0, 200), min_size=1, max_size=8).filter(any))
    total = data.draw(st.integers(sum(1 for count in counts if count), sum(counts)))
    shares = stratified_counts(counts, total)
    assert sum(shares) == total
    assert all(min(count, 1) <= share <= count for share, count in zip(shares, counts, strict=True))
    exact = [total * count / sum(counts) for count in counts]
    if min(value for value in exact if value) >= 1:
        assert all(abs(share - value) < 1 for share, value in zip(shares, exact, strict=True))


def test_a_smaller_stratified_draw_is_part_of_a_larger_one() -> None:
    labels = torch.tensor([0, 1] * 50)
    small, large = (set(stratified_rows(labels, [n, n], generator()).tolist()) for n in (5, 20))
    assert small < large


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.lists(st.integers(0, 9), min_size=4, max_size=4))
def test_a_split_has_every_row_once_and_the_chosen_number_of_each_class(labels: list[int], counts: list[int]) -> None:
    rest, chosen = stratified_split(torch.tensor(labels), counts, generator())
    assert sorted([*rest.tolist(), *chosen.tolist()]) == list(range(len(labels)))
    assert (rest.tolist(), chosen.tolist()) == (sorted(rest.tolist()), sorted(chosen.tolist()))
    of_chosen = [labels[row] for row in chosen.tolist()]
    assert [of_chosen.count(label) for label in range(4)] == [min(count, labels.count(label)) for label, count in enumerate(counts)]


def test_a_split_draws_one_permutation_per_class_in_ascending_order() -> None:
    """The order of draws is part of every published number: hold-outs, test sets and ANP's held-back rows come from it."""
    labels, draws = torch.tensor([1, 0, 1, 0, 1, 1, 0]), generator(3)
    zeros, ones = torch.randperm(3, generator=draws), torch.randperm(4, generator=draws)
    expected = sorted([*torch.tensor([1, 3, 6])[zeros[:1]].tolist(), *torch.tensor([0, 2, 4, 5])[ones[:2]].tolist()])
    assert stratified_split(labels, [1, 2], generator(3))[1].tolist() == expected


def test_what_is_left_over_goes_to_the_largest_remainders() -> None:
    """10 of 50, 26 and 24 are 5.0, 2.6 and 2.4 images: the one left over goes to the second class."""
    assert stratified_counts((50, 26, 24), 10) == (5, 3, 2)
