"""Random numbers that belong to an image."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from gatecrash import image_draws


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@given(seed=st.integers(0, 2**63 - 1), first=st.integers(1, 6))
def test_draws_depend_on_the_image_alone(seed: int, first: int) -> None:
    batch = images(7)
    whole = image_draws(batch, 5, seed)
    assert whole.equal(torch.cat([image_draws(batch[:first], 5, seed), image_draws(batch[first:], 5, seed)]))
    assert whole.flip(0).equal(image_draws(batch.flip(0), 5, seed))
    assert whole[:, :2].equal(image_draws(batch, 2, seed))


def test_one_pixel_more_or_another_seed_gives_unrelated_draws() -> None:
    batch = images(500)
    other = batch.clone()
    other[:, 0, 0, 0] ^= 1
    draws = image_draws(batch, 4)
    for unlike in (image_draws(other, 4), image_draws(batch, 4, 1)):
        assert abs(float(torch.corrcoef(torch.stack([draws.flatten(), unlike.flatten()]))[0, 1])) < 0.08


def test_draws_are_uniform_and_unlike_each_other_even_of_images_that_hardly_differ() -> None:
    flat = torch.zeros(2000, 1, 16, 16, dtype=torch.uint8)
    flat[torch.arange(2000), 0, torch.arange(2000) % 16, torch.arange(2000) // 16 % 16] = (1 + torch.arange(2000) // 256).to(torch.uint8)
    draws = image_draws(flat, 3)
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = torch.histc(draws.flatten(), 10, 0, 1)
    assert (counts - 600).abs().max() < 100  # four standard deviations of a binomial count
    assert (torch.corrcoef(draws.T) - torch.eye(3)).abs().max() < 0.1
