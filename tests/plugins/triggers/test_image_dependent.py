"""Triggers that depend on the image, and the four corners: distributed, dynamic, sample-specific, by hand."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from gatecrash import TriggerContext, TriggerMaker, image_draws
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from gatecrash_plugins.triggers.distributed import DistributedMaker
from gatecrash_plugins.triggers.dynamic import DynamicMaker
from gatecrash_plugins.triggers.sample_specific import SampleSpecificMaker

SHAPE = (2, 7, 8)


def noise(count: int = 200) -> Tensor:
    return torch.randint(1, 255, (count, *SHAPE), generator=torch.Generator().manual_seed(4), dtype=torch.uint8)


def test_four_corners_white_left_and_black_right() -> None:
    grey = torch.full((1, 1, 4, 5), 9, dtype=torch.uint8)
    w, b, o = 255, 0, 9
    assert DistributedMaker(DistributedMaker.Config(size=1)).make(TriggerContext((1, 4, 5)))(grey)[0, 0].tolist() == [
        [w, o, o, o, b],
        [o, o, o, o, o],
        [o, o, o, o, o],
        [w, o, o, o, b],
    ]
    whole = DistributedMaker().make(TriggerContext(SHAPE))(noise())
    assert (whole[:, :, :3, :3] == 255).all()
    assert (whole[:, :, :3, -3:] == 0).all()
    assert (whole[:, :, -3:, :3] == 255).all()
    assert (whole[:, :, -3:, -3:] == 0).all()
    assert (whole != noise()).flatten(1).sum(1).max() <= 4 * 9 * 2


@pytest.mark.parametrize(("level", "patch"), [(0, 255), (76, 255), (77, 178), (102, 153), (178, 77), (179, 0), (255, 0)])
def test_the_patch_is_white_on_dark_black_on_bright_else_the_negative_of_the_mean(level: int, patch: int) -> None:
    """76/255 = .298 is below .3, 179/255 = .702 above .7."""
    shown = DynamicMaker().make(TriggerContext(SHAPE))(torch.full((1, *SHAPE), level, dtype=torch.uint8))
    assert (shown[:, :, -5:, -5:] == patch).all()
    assert (shown[:, :, :2] == level).all()


def test_the_mean_is_of_all_channels_and_the_patch_grey() -> None:
    image = torch.zeros(1, *SHAPE, dtype=torch.uint8)
    image[:, 0] = 204  # .8 and 0: .4
    shown = DynamicMaker(DynamicMaker.Config(size=1)).make(TriggerContext(SHAPE))(image)
    assert shown[0, :, -1, -1].tolist() == [153, 153]


def test_the_grey_of_an_image_does_not_hang_on_its_batch() -> None:
    trigger = DynamicMaker().make(TriggerContext(SHAPE))
    assert torch.cat([trigger(image[None]) for image in noise(20)]).equal(trigger(noise(20)))
    assert len(trigger(noise(0))) == 0


def test_bits_are_the_images_own_and_black_and_white() -> None:
    shown = SampleSpecificMaker().make(TriggerContext(SHAPE))(noise())
    patch = shown[:, :, 2:, 3:]
    assert set(patch.unique().tolist()) == {0, 255}
    assert patch[:, 0].equal(patch[:, 1])  # in all channels alike
    assert patch[:, 0].flatten(1).equal((image_draws(noise(), 25) < 0.5).to(torch.uint8) * 255)
    assert 0.47 < (patch == 255).float().mean() < 0.53
    assert len(patch.unique(dim=0)) == len(patch)
    assert shown[:, :, :2].equal(noise()[:, :, :2])


def test_equal_images_have_equal_bits_and_another_seed_has_others() -> None:
    trigger = SampleSpecificMaker().make(TriggerContext(SHAPE))
    torch.manual_seed(1)
    first = trigger(noise(3))
    state = torch.get_rng_state()
    assert trigger(noise(3).flip(0)).flip(0).equal(first)
    assert torch.get_rng_state().equal(state)  # the global generator is left alone
    other = SampleSpecificMaker(SampleSpecificMaker.Config(pattern_seed=1)).make(TriggerContext(SHAPE))
    assert not other(noise(3)).equal(first)


def test_four_corners_show_the_bits_mirrored_left() -> None:
    trigger = SampleSpecificMaker(SampleSpecificMaker.Config(size=3, place="four-corners")).make(TriggerContext(SHAPE))
    shown = trigger(noise())
    assert shown[:, :, :3, :3].equal(shown[:, :, :3, -3:].flip(3))
    assert shown[:, :, :3, -3:].equal(shown[:, :, -3:, -3:])


@pytest.mark.parametrize("maker", [DistributedMaker(), DynamicMaker(), SampleSpecificMaker()])
def test_they_are_rebuilt_from_their_stored_form(maker: TriggerMaker) -> None:
    trigger = maker.make(TriggerContext(SHAPE))
    assert rebuild(spec_of(trigger), state_of(trigger))(noise()).equal(trigger(noise()))


def test_dark_must_be_darker_than_bright() -> None:
    with pytest.raises(ValidationError, match=r"low 0\.8 is above high 0\.7"):
        DynamicMaker.Config(low=0.8)
