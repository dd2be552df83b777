"""What reaches the loss: every image once per epoch, augmented, changed by `on_batch` or not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gatecrash import ContractError
from gatecrash.contracts.randomness import Streams
from gatecrash.engine.feed import batch_sizes
from gatecrash.engine.training import train
from support.small_training import PLAIN, network, recipe, run, seen_batches, toy_set, weights


def test_every_image_is_visited_once_per_epoch_in_a_new_order() -> None:
    rows = [rows for _, _, rows in seen_batches(recipe(epochs=2), count=40)]
    assert [len(part) for part in rows] == [16, 16, 8] * 2
    first, second = torch.cat(rows[:3]), torch.cat(rows[3:])
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(40))
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [(6, 3, [3, 3]), (8, 3, [3, 3, 2]), (7, 3, [3, 4]), (4, 3, [4]), (2, 3, [2]), (1, 3, [1]), (3, 1, [1, 1, 1])],
)
def test_a_single_left_over_image_joins_the_batch_before(count: int, batch_size: int, sizes: list[int]) -> None:
    assert batch_sizes(count, batch_size) == sizes


def test_without_augmentation_images_arrive_byte_for_byte() -> None:
    images, labels = toy_set()
    for batch, targets, rows in seen_batches(PLAIN):
        assert torch.equal(batch, images[rows])
        assert torch.equal(targets, labels[rows])


def test_a_data_set_that_forbids_mirroring_is_never_mirrored() -> None:
    images, _ = toy_set()
    assert all(torch.equal(batch, images[rows]) for batch, _, rows in seen_batches(recipe(flip=True), flip=False))
    assert all(torch.equal(batch, images[rows]) for batch, _, rows in seen_batches(recipe(flip=False), flip=True))


def test_half_of_the_images_are_mirrored_where_recipe_and_data_set_allow_it() -> None:
    images, _ = toy_set()
    mirrored = []
    for batch, _, rows in seen_batches(recipe(epochs=6, flip=True), flip=True):
        same, flipped = ((batch == x).flatten(1).all(1) for x in (images[rows], images[rows].flip(3)))
        assert bool((same | flipped).all())
        mirrored.append(flipped.double())
    share, visits = torch.cat(mirrored).mean().item(), 6 * 64
    assert share == pytest.approx(0.5, abs=4 * 0.5 / visits**0.5)


def test_on_batch_sees_the_rows_before_augmentation() -> None:
    images, labels = toy_set()
    calls = []

    def on_batch(batch: Tensor, targets: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        assert torch.equal(batch, images[rows])
        assert torch.equal(targets, labels[rows])
        calls.append(rows)
        return batch, targets

    run(network(), recipe(epochs=2, crop=2, flip=True), flip=True, on_batch=on_batch)
    assert torch.cat(calls[:4]).sort().values.tolist() == list(range(64))


def test_what_on_batch_returns_is_augmented_and_trained_on() -> None:
    def whiten(batch: Tensor, targets: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full_like(batch, 255), torch.full_like(targets, 3)

    seen = seen_batches(recipe(epochs=1, crop=2), on_batch=whiten)
    batch = torch.cat([images for images, _, _ in seen])
    assert all(bool((labels == 3).all()) for _, labels, _ in seen)
    assert set(batch.unique().tolist()) == {0, 255}  # cropped from zero-padded white images
    assert bool((batch[:, :, 2:6, 2:6] == 255).all())


def test_on_batch_that_changes_nothing_changes_nothing() -> None:
    """So poisoned and clean rows are augmented alike."""
    plain, hooked = network(), network()
    options = recipe(crop=2, flip=True)
    run(plain, options, flip=True)
    run(hooked, options, flip=True, on_batch=lambda images, labels, rows: (images, labels))
    assert torch.equal(weights(plain), weights(hooked))


def test_on_batch_may_use_the_network_in_eval_mode_and_leave_gradients() -> None:
    plain, hooked = network(), network()

    def peek(images: Tensor, labels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        hooked.eval()(images).sum().backward()
        return images, labels

    run(plain)
    run(hooked, on_batch=peek)
    assert torch.equal(weights(plain), weights(hooked))


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda images, labels: (images.float(), labels), "images as torch.uint8"),
        (lambda images, labels: (images[:1], labels), "images as torch.uint8"),
        (lambda images, labels: (images, labels.float()), "labels as torch.int64"),
    ],
)
def test_on_batch_must_return_a_batch_of_the_same_form(result: Any, message: str) -> None:
    with pytest.raises(ContractError, match=f"on_batch must return {message}"):
        run(network(), on_batch=lambda images, labels, rows: result(images, labels))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(0, 3, 8, 8, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), "no image to train on"),
        (torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64), r"uint8 \[N, C, H, W\]; got torch.float32"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), r"int64 \[2\]; got torch.int64 \[3\]"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 4]), r"lie in \[0, 4\); got 0 to 4"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([-1, 0]), r"lie in \[0, 4\); got -1 to 0"),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused(images: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        train(network(), images, labels, PLAIN, streams=Streams(0), flip=False, device="cpu")
