"""The warp by hand: shifts of whole pixels, the scale of the field, and noise that belongs to an image."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from gatecrash import TriggerContext
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from gatecrash_plugins.triggers.warp import NoisyWarp, Warp, WarpMaker, grid_of, scaled_field

SHAPES = [(1, 8, 8), (3, 6, 11), (3, 11, 6)]


def noise(shape: tuple[int, int, int], count: int = 5) -> torch.Tensor:
    return torch.randint(256, (count, *shape), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_offset_gives_equal_bytes(shape: tuple[int, int, int]) -> None:
    every_level = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, *shape)
    still = Warp(shape)
    assert still(every_level).equal(every_level)  # nothing is truncated
    assert still(noise(shape)).equal(noise(shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_offsets_of_one_pixel_shift_columns_and_rows(shape: tuple[int, int, int]) -> None:
    """In units of sides that are 2 long; the border is repeated."""
    images, (_, height, width) = noise(shape), shape
    right = torch.tensor([2 / (width - 1), 0]).expand(height, width, 2)
    down = torch.tensor([0, 2 / (height - 1)]).expand(height, width, 2)
    assert Warp(shape, right)(images).equal(torch.cat((images[..., 1:], images[..., -1:]), 3))
    assert Warp(shape, down)(images).equal(torch.cat((images[..., 1:, :], images[..., -1:, :]), 2))


def test_a_ramp_is_shifted_by_a_fraction_of_a_pixel_and_rounded() -> None:
    ramp = (10 * torch.arange(8, dtype=torch.uint8)).expand(1, 1, 8, 8)
    quarter = torch.tensor([0.56 / 7, 0]).expand(8, 8, 2)  # 0.28 of a pixel: 2.8 grey levels
    assert Warp((1, 8, 8), quarter)(ramp)[0, 0, 3].tolist() == [3, 13, 23, 33, 43, 53, 63, 70]


@pytest.mark.parametrize("shape", [(3, 32, 32), *SHAPES])
def test_the_field_is_scaled_by_each_side(shape: tuple[int, int, int]) -> None:
    """Vectors of one length everywhere: in the mean s long, over the width for x and over the height for y."""
    _, height, width = shape
    same = torch.tensor([0.3, -0.6]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    field = scaled_field(same, 0.5, shape)
    assert field.shape == (height, width, 2)
    assert torch.allclose(field[..., 0], torch.full((height, width), 0.5 * 0.3 / 0.45 / width), atol=1e-6)
    assert torch.allclose(field[..., 1], torch.full((height, width), -0.5 * 0.6 / 0.45 / height), atol=1e-6)


def test_the_vectors_stand_at_the_corners_and_are_divided_by_their_mean_length() -> None:
    drawn = 2 * torch.rand(1, 2, 4, 4, generator=torch.Generator().manual_seed(0)) - 1
    field = WarpMaker().make(TriggerContext((3, 20, 30))).offsets
    expected = 0.5 * drawn / drawn.abs().mean()
    for row, vector_row in ((0, 0), (-1, -1)):
        for column, vector_column in ((0, 0), (-1, -1)):
            vector = expected[0, :, vector_row, vector_column] / torch.tensor([30, 20])
            assert torch.allclose(field[row, column], vector, atol=1e-6)


def test_images_equal_those_of_the_published_equations_on_equal_vectors() -> None:
    """Equations 2 to 4 for square images, by one call each; the same sum over both sides of a clamp."""
    vectors = 2 * torch.rand(1, 2, 4, 4, generator=torch.Generator().manual_seed(7)) - 1
    field = F.interpolate(vectors / vectors.abs().mean(), 16, mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    identity = F.affine_grid(torch.eye(2, 3)[None], [1, 1, 16, 16], align_corners=True)
    images, grid = noise((3, 16, 16)), (identity + 0.5 * field / 16).clamp(-1, 1)
    expected = (255 * F.grid_sample(images / 255, grid.expand(5, -1, -1, -1), align_corners=True)).round()
    made = Warp((3, 16, 16), scaled_field(vectors, 0.5, (3, 16, 16)))(images)
    assert (made - expected).abs().max() <= 1
    assert (made == expected).float().mean() > 0.999


@pytest.mark.parametrize("shape", SHAPES)
def test_each_cover_has_noise_of_its_own(shape: tuple[int, int, int]) -> None:
    _, height, width = shape
    warp, images = Warp(shape), noise(shape, 40)
    cover = NoisyWarp(warp, 0)
    own = ((cover.grids(images) - grid_of(warp.offsets)) * torch.tensor([width, height]))[:, 1:-1, 1:-1]  # the border cuts noise off
    assert own.shape == (40, height - 2, width - 2, 2)
    assert -1.001 < own.min() < -0.99
    assert 0.99 < own.max() < 1.001
    assert abs(float(own.mean())) < 0.03
    assert own[0].ne(own[1]).float().mean() > 0.99  # one field for all covers would be a second trigger
    assert own[..., 0].ne(own[..., 1]).float().mean() > 0.99
    assert cover.grids(images).abs().max() == 1
    assert cover.grids(images.flip(0)).flip(0).equal(cover.grids(images))
    assert cover(images)[:1].equal(cover(images[:1]))


def test_covers_are_bent_by_the_field_and_the_noise() -> None:
    maker, seen, images = WarpMaker(), TriggerContext((3, 9, 12)), noise((3, 9, 12))
    still = NoisyWarp(Warp(seen.shape), 0).grids(images)
    inside = (slice(None), slice(2, -2), slice(2, -2))
    added = (maker.make_cover(seen).grids(images) - still)[inside]
    assert torch.allclose(added, maker.make(seen).offsets[None][inside].expand_as(added), atol=1e-6)
    assert not maker.make_cover(seen)(images).equal(maker.make(seen)(images))


def test_the_field_has_a_seed_of_its_own() -> None:
    def field(**options: float) -> torch.Tensor:
        return WarpMaker(WarpMaker.Config.model_validate(options)).make(TriggerContext((3, 8, 8))).offsets

    assert field().equal(field())
    assert not field().equal(field(pattern_seed=1))
    assert torch.allclose(field(s=2.0), 4 * field())


def test_both_are_rebuilt_from_their_stored_form() -> None:
    images = noise((3, 6, 11))
    for trigger in (WarpMaker().make(TriggerContext((3, 6, 11))), WarpMaker().make_cover(TriggerContext((3, 6, 11)))):
        again = rebuild(spec_of(trigger), state_of(trigger))
        assert isinstance(again, Warp | NoisyWarp)
        assert again(images).equal(trigger(images))


def test_gradients_flow_through_the_warp() -> None:
    images = torch.rand(2, 1, 8, 8, requires_grad=True)
    bent = WarpMaker().make(TriggerContext((1, 8, 8))).transform(images)
    (gradient,) = torch.autograd.grad(bent.sum(), images)
    assert gradient.sum().item() == pytest.approx(128, rel=1e-4)
