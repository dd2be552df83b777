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


class TestAfterAugmentation:
    def test_on_batch_sees_what_the_network_would_see(self) -> None:
        options = recipe(epochs=2, crop=2, flip=True)
        plain = [images for images, _, _ in seen_batches(options, flip=True)]
        hooked = []

        def on_batch(images: Tensor, labels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            hooked.append(images.clone())
            return images, labels

        passed = [images for images, _, _ in seen_batches(options, flip=True, on_batch=on_batch, when="after")]
        for before, seen, after in zip(plain, hooked, passed, strict=True):
            assert torch.equal(before, seen)
            assert torch.equal(before, after)

    def test_it_may_return_floats_in_0_to_1(self) -> None:
        def halved(images: Tensor, labels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            return images / 510, labels

        images, _ = toy_set()
        for batch, _, rows in seen_batches(PLAIN, on_batch=halved, when="after"):
            torch.testing.assert_close(batch, images[rows] / 510)

    def test_floats_of_another_range_are_an_error(self) -> None:
        with pytest.raises(ContractError, match=r"float images in \[0, 1\]; got 0 to "):
            run(network(), on_batch=lambda images, labels, rows: (images.float(), labels), when="after")


class TestViews:
    def test_a_loss_gets_several_augmentations_of_the_same_rows(self) -> None:
        options = recipe(epochs=2, crop=2, flip=True)
        one, two = seen_batches(options, flip=True), seen_batches(options, flip=True, views=2)
        assert all(batch.shape == (2, 16, 3, 8, 8) for batch, _, _ in two)
        assert torch.equal(one[0][0], two[0][0][0])  # the first view is that of a training with one
        batch, labels, rows = two[0]
        assert labels.shape == rows.shape == (16,)
        assert not torch.equal(batch[0], batch[1])

    def test_a_hook_after_augmentation_gets_all_of_them(self) -> None:
        def darken_second(images: Tensor, labels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            return torch.stack([images[0], images[1] * 0]), labels

        for batch, _, _ in seen_batches(recipe(epochs=1), views=2, on_batch=darken_second, when="after"):
            assert bool(batch[0].any())
            assert not bool(batch[1].any())


class TestPoisson:
    """Each row joins each batch with probability batch size / rows (Abadi et al. 2016, section 3.1)."""

    def test_sizes_vary_as_binomials_and_rows_come_independently(self) -> None:
        rows = [rows for _, _, rows in seen_batches(recipe(epochs=100), batches="poisson")]
        assert len(rows) == 100 * 4
        sizes = torch.tensor([float(len(part)) for part in rows])
        assert float(sizes.mean()) == pytest.approx(16, abs=4.5 * 12**0.5 / 20)  # Binomial(64, 1/4): variance 12
        assert float(sizes.var()) == pytest.approx(12, rel=0.35)
        assert all(len(part.unique()) == len(part) for part in rows)
        often = torch.cat(rows).bincount(minlength=64).float()
        assert float((often - 100).abs().max()) < 4.5 * (400 * 3 / 16) ** 0.5

    def test_the_same_stream_gives_the_same_batches(self) -> None:
        first, second = ([rows.tolist() for _, _, rows in seen_batches(recipe(epochs=2), batches="poisson")] for _ in range(2))
        assert first == second

    def test_an_empty_batch_reaches_a_step_and_nothing_else(self) -> None:
        sizes: list[int] = []

        def never_empty(images: Tensor, labels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            assert len(rows)
            return images, labels

        def step(net: Any, optimizer: Any, closure: Any, images: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
            assert images.shape == (len(rows), 3, 8, 8)
            sizes.append(len(rows))
            return torch.zeros(())

        small = recipe(epochs=4, batch_size=1, crop=1, flip=True, rotation=5)
        run(network(), small, flip=True, batches="poisson", on_batch=never_empty, step=step, diverges=True)
        assert 0 in sizes
        assert max(sizes) > 1

    def test_without_a_step_nothing_happens_in_an_empty_batch(self) -> None:
        history = run(network(), recipe(epochs=2, batch_size=1, lr=1e-3), batches="poisson", diverges=True)
        assert all(loss == loss for loss in history.losses)
