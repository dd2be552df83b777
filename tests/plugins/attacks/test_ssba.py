"""SSBA: a string that can be read again, from residuals that differ from image to image and stay within their bound."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from gatecrash import AttackContext, ContractError, ImageSet, Poisoned, Role, UserError
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from gatecrash.testing import make_context
from gatecrash_plugins.attacks._stega import Decoder, Encoder
from gatecrash_plugins.attacks.ssba import SSBA, Hidden, Stega, secret
from gatecrash_plugins.models.small_cnn import SmallCnn


def images(count: int = 200, shape: tuple[int, int, int] = (1, 16, 16)) -> ImageSet:
    """Smooth random images: not noise, which would drown any string."""
    coarse = torch.rand(count, shape[0], 4, 4, generator=torch.Generator().manual_seed(5))
    pixels = (F.interpolate(coarse, shape[1:], mode="bilinear") * 255).round().to(torch.uint8)
    return ImageSet(pixels, torch.arange(count) % 4, ("a", "b", "c", "d"))


SHORT: dict[str, Any] = {"bits": 3, "width": 4, "steps": 100, "lr": 0.01}
UNTRAINED: dict[str, Any] = {"bits": 5, "width": 4, "steps": 1, "min_accuracy": 0, "min_psnr": 0}


def scene(seed: int = 0, shape: tuple[int, int, int] = (1, 16, 16), **options: Any) -> tuple[SSBA, ImageSet, AttackContext]:
    attack, train = SSBA(SSBA.Config(**options)), images(shape=shape)
    return attack, train, make_context(attack, train, SmallCnn(), seed=seed)


def stega_of(ctx: AttackContext) -> Stega:
    assert isinstance(ctx.prepared, Stega)
    return ctx.prepared


def trigger_of(poisoned: Poisoned) -> Hidden:
    (backdoor,) = poisoned.backdoors
    assert isinstance(backdoor.trigger, Hidden)
    return backdoor.trigger


@pytest.fixture(scope="module")
def trained() -> tuple[SSBA, ImageSet, AttackContext]:
    """A small encoder, trained once for all tests."""
    torch.set_num_threads(1)
    return scene(**SHORT)


def test_decoding_returns_the_string(trained: tuple[SSBA, ImageSet, AttackContext]) -> None:
    attack, train, ctx = trained
    trigger = trigger_of(attack.poison(train, ctx))
    string = torch.tensor([bit == "1" for bit in trigger.string])
    assert (stega_of(ctx).read(trigger(train.images)) == string).float().mean() >= 0.95
    flipped = Hidden(trigger.encoder.duplicate(), "".join("10"[int(bit)] for bit in trigger.string), trigger.levels)
    assert (stega_of(ctx).read(flipped(train.images)) == string).float().mean() <= 0.05


def test_what_was_measured_meets_what_is_asked_for(trained: tuple[SSBA, ImageSet, AttackContext]) -> None:
    found = stega_of(trained[2]).measured
    assert found["images"] == 20  # a tenth
    assert 0.95 <= found["accuracy"] <= 1
    assert found["psnr"] >= 28
    assert found["largest"] <= 8


def test_residuals_of_two_images_differ(trained: tuple[SSBA, ImageSet, AttackContext]) -> None:
    attack, train, ctx = trained
    trigger = trigger_of(attack.poison(train, ctx))
    residuals = (trigger(train.images).float() - train.images.float()).flatten(1)
    assert len(residuals.unique(dim=0)) > 0.95 * len(residuals)
    alike = F.normalize(residuals[:50]) @ F.normalize(residuals[50:100]).T
    assert alike.mean() < 0.6  # one pattern for all would have 1
    assert stega_of(ctx).measured["similarity"] < 0.6


def test_an_image_and_a_string_give_the_same_bytes_in_every_batch(trained: tuple[SSBA, ImageSet, AttackContext]) -> None:
    attack, train, ctx = trained
    trigger = trigger_of(attack.poison(train, ctx))
    together = trigger(train.images)
    assert torch.cat([trigger(image[None]) for image in train.images[:40]]).equal(together[:40])
    assert trigger(train.images.flip(0)).flip(0).equal(together)
    again = rebuild(spec_of(trigger), state_of(trigger))
    assert again(train.images).equal(together)


def test_poisoned_images_carry_the_string_and_the_target(trained: tuple[SSBA, ImageSet, AttackContext]) -> None:
    attack, train, ctx = trained
    poisoned = attack.poison(train, ctx)
    poisoned.check(train)
    rows = poisoned.changed
    assert len(rows) == 20  # the paper's tenth
    assert (poisoned.role[rows] == Role.POISON).all()
    assert (train.labels[rows] != 0).all()
    assert (poisoned.labels[rows] == 0).all()
    assert poisoned.images[rows].equal(trigger_of(poisoned)(train.images[rows]))


@pytest.mark.parametrize("levels", [1, 8, 40])
def test_no_pixel_changes_by_more_than_the_bound(levels: int) -> None:
    encoder = Encoder((1, 16, 16), 4, 4)
    torch.nn.init.constant_(encoder.residual.bias, 20.0)  # type: ignore[arg-type]
    grey = torch.full((2, 1, 16, 16), 100, dtype=torch.uint8)
    assert (Hidden(encoder, "0110", levels)(grey) == 100 + levels).all()
    assert (Hidden(encoder, "0110", levels)(grey + 154) == min(255, 254 + levels)).all()  # clipped, not wrapped


def test_a_residual_of_less_than_half_a_level_leaves_every_grey_level() -> None:
    encoder = Encoder((1, 16, 16), 4, 4)
    torch.nn.init.zeros_(encoder.residual.weight)
    torch.nn.init.constant_(encoder.residual.bias, 0.05)  # type: ignore[arg-type]
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert Hidden(encoder, "0110", 8)(every).equal(every)  # + 0.4 levels: rounded, never truncated
    torch.nn.init.constant_(encoder.residual.bias, -0.05)  # type: ignore[arg-type]
    assert Hidden(encoder, "0110", 8)(every).equal(every)


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 17, 23), (3, 32, 32), (1, 33, 16), (3, 64, 48)])
def test_any_shape_is_encoded_and_decoded(shape: tuple[int, int, int]) -> None:
    pixels = torch.rand(3, *shape)
    encoder = Encoder(shape, 6, 2)
    residual = encoder(pixels, torch.ones(3, 6))
    assert residual.shape == pixels.shape
    assert residual.abs().max() <= 1
    assert Decoder(shape, 6, 2).eval()(pixels).shape == (3, 6)
    assert Hidden(encoder, "010101", 8)((pixels * 255).to(torch.uint8)).shape == pixels.shape


def test_colour_images_of_odd_sizes_go_through_the_whole_attack() -> None:
    attack, train, ctx = scene(shape=(3, 17, 21), **UNTRAINED)
    attack.poison(train, ctx).check(train)


def test_the_string_has_a_seed_of_its_own() -> None:
    attack, train, ctx = scene(**UNTRAINED)
    first = trigger_of(attack.poison(train, ctx))
    assert first.string == secret(5, 0)
    assert len({secret(20, seed) for seed in range(20)}) == 20
    other, _, other_ctx = scene(seed=1, **UNTRAINED)
    second = trigger_of(other.poison(train, other_ctx))
    assert second.string == first.string
    assert not state_of(second)["encoder.string.weight"].equal(state_of(first)["encoder.string.weight"])
    assert trigger_of(SSBA(SSBA.Config(**UNTRAINED, secret_seed=3)).poison(train, ctx)).string == secret(5, 3)


def test_preparing_twice_gives_the_same_encoder() -> None:
    first, second = (state_of(stega_of(scene(**{**UNTRAINED, "steps": 3})[2])) for _ in range(2))
    assert all(tensor.equal(second[name]) for name, tensor in first.items())


def test_what_is_stored_comes_back_with_its_measures() -> None:
    made = stega_of(scene(**UNTRAINED)[2])
    again = rebuild(spec_of(made), state_of(made))
    assert isinstance(again, Stega)
    assert again.measured == made.measured
    assert again.read(images().images).equal(made.read(images().images))


def test_an_encoder_that_cannot_be_read_is_refused_with_its_figures() -> None:
    attack, train, ctx = scene(**{**UNTRAINED, "min_accuracy": 0.95})
    with pytest.raises(UserError, match=r"not good enough on 20 held-out images: \d+\.\d% of the bits are read \(asked: 95\.0%\)"):
        attack.poison(train, ctx)
    attack, train, ctx = scene(**{**UNTRAINED, "min_psnr": 100})
    with pytest.raises(UserError, match=r"PSNR \d+\.\d dB \(asked: 100\)"):
        attack.poison(train, ctx)


def test_the_poison_needs_what_was_prepared() -> None:
    attack, train, ctx = scene(**UNTRAINED)
    object.__setattr__(ctx, "prepared", None)
    with pytest.raises(ContractError, match="needs the encoder"):
        attack.poison(train, ctx)
