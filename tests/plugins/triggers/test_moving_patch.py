"""The patch in a random place: which places, whose draw, and that it is one function of the image."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from gatecrash import Stamp, TriggerContext, UserError, image_draws
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from gatecrash_plugins.triggers.patch import MovingStamp, PatchMaker, paste


def noise(count: int = 400, side: int = 6) -> Tensor:
    """Pixels in 0..199, so that white is the patch's alone."""
    return torch.randint(200, (count, 1, side, side), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)


def moving(**options: object) -> MovingStamp:
    made = PatchMaker(PatchMaker.Config.model_validate({"place": "random", **options})).make(TriggerContext((1, 6, 6)))
    assert isinstance(made, MovingStamp)
    return made


def test_every_place_is_used_and_the_patch_is_whole_in_each() -> None:
    white = moving(size=3)(noise()).eq(255)[:, 0]
    assert (white.sum((1, 2)) == 9).all()
    corners = {tuple(torch.nonzero(image)[0].tolist()) for image in white}
    assert corners == {(top, left) for top in range(4) for left in range(4)}


def test_the_place_is_the_images_own_draw() -> None:
    images = noise(3)
    top, left = (image_draws(images, 2) * 4).long().unbind(1)
    for image, row, column in zip(moving()(images), top.tolist(), left.tolist(), strict=True):
        assert (image[0, row : row + 3, column : column + 3] == 255).all()
    assert moving()(images).flip(0).equal(moving()(images.flip(0)))


def test_a_patch_may_keep_away_from_the_border() -> None:
    white = moving(size=2, inset=1)(noise()).eq(255)[:, 0]
    assert white[:, 1:5, 1:5].sum() == 400 * 4
    assert len({tuple(torch.nonzero(image)[0].tolist()) for image in white}) == 9


def test_opacity_mixes_and_rounds() -> None:
    images = torch.full((1, 1, 6, 6), 100, dtype=torch.uint8)
    assert sorted(moving(size=1, alpha=0.5)(images).flatten().tolist()) == [*[100] * 35, 178]  # 177.5, to the even one


def test_a_pictures_transparent_pixels_stamp_nothing(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (2, 2), (255, 255, 255, 255))
    picture.putpixel((0, 0), (0, 0, 0, 0))
    picture.save(tmp_path / "corner.png")
    white = moving(pattern="given", image=tmp_path / "corner.png", size=2)(noise()).eq(255)
    assert (white.flatten(1).sum(1) == 3).all()


def test_it_is_rebuilt_from_its_stored_form() -> None:
    trigger = moving(size=2, inset=1, alpha=0.7, pattern="checkerboard")
    assert rebuild(spec_of(trigger), state_of(trigger))(noise()).equal(trigger(noise()))


def test_a_patch_that_does_not_fit_is_refused_when_planning() -> None:
    with pytest.raises(UserError, match="5x5 patch with inset 1 does not fit an image of 6x6"):
        PatchMaker(PatchMaker.Config(place="random", size=5, inset=1)).check((1, 6, 6))


def test_places_that_are_fixed_make_what_they_made_before() -> None:
    made = PatchMaker().make(TriggerContext((1, 6, 6)))
    assert isinstance(made, Stamp)
    assert PatchMaker().config.model_dump() == {
        "pattern": "white",
        "image": None,
        "size": 3,
        "place": "bottom-right",
        "inset": 0,
        "alpha": 1.0,
    }


def test_gradients_reach_the_patch_where_it_is_seen() -> None:
    patch = torch.zeros(1, 2, 2, requires_grad=True)
    shown = paste(torch.ones(3, 1, 4, 4), patch, torch.tensor([[1.0, 0.5], [0.0, 1.0]]), torch.rand(3, 2))
    (gradient,) = torch.autograd.grad(shown.sum(), patch)
    assert gradient.tolist() == [[[3.0, 1.5], [0.0, 3.0]]]
