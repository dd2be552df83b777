"""Input-Aware: triggers that belong to their images, generators whose gradients do not pile up, and what a defender holds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gatecrash import DatasetInfo, Implant, Role, UserError
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from gatecrash.contracts.recipe import recipe_from
from gatecrash.host.loading import load_plugins
from gatecrash.testing import make_context
from gatecrash_plugins.attacks.input_aware import Generated, InputAware, diversity
from support.planted_shortcut import stripes

HOST = load_plugins(installed=False)


def implanted() -> tuple[Implant, Tensor]:
    train = stripes(200)
    attack = InputAware(InputAware.Config(mask_epochs=60, width=4, norm=400))
    recipe = recipe_from({"preset": "tiny", "epochs": 2})
    context = make_context(attack, train, HOST.get("model", "small-cnn").configure({"width": 4}), recipe=recipe)
    return attack.implant(train, context), train.images


@pytest.fixture(scope="module")
def made() -> tuple[Implant, Tensor]:
    torch.set_num_threads(1)
    return implanted()


def test_masks_are_sparse(made: tuple[Implant, Tensor]) -> None:
    implant, images = made
    trigger = implant.poisoned.backdoors[0].trigger
    assert isinstance(trigger, Generated)
    assert float(trigger.masks(images / 255).mean()) <= 0.06


def test_a_mask_of_zero_changes_nothing_and_one_of_one_gives_the_pattern() -> None:
    trigger = Generated((1, 16, 16), 4).eval()
    images = torch.randint(256, (3, 1, 16, 16), dtype=torch.uint8)
    for value, wanted in ((-50.0, images), (50.0, (trigger.pattern(images / 255) * 255).round().to(torch.uint8))):
        last = [module for module in trigger.mask if isinstance(module, torch.nn.BatchNorm2d)][-1]
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.constant_(last.bias, value)
        assert int((trigger(images).int() - wanted.int()).abs().max()) <= 1


def test_the_cross_trigger_lends_the_trigger_of_the_donor_that_the_pixels_choose() -> None:
    torch.manual_seed(0)
    own, crossed = Generated((1, 8, 8), 4).eval(), Generated((1, 8, 8), 4, donors=2).eval()
    donors = torch.rand(2, 1, 8, 8)
    crossed.load_state_dict({**own.state_dict(), "donors": donors})
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    images[0, 0, 0, 0], images[1, 0, 0, 0] = 2, 3  # an even sum chooses the first donor, an odd one the second
    with torch.no_grad():
        wanted = images / 255 + (own.pattern(donors) - images / 255) * own.masks(donors)
    assert (crossed(images).int() - 255 * wanted).abs().max() <= 0.51


def test_any_size_is_drawn_in_full() -> None:
    assert Generated((3, 13, 10), 2).eval()(torch.zeros(2, 3, 13, 10, dtype=torch.uint8)).shape == (2, 3, 13, 10)


def test_diversity_by_hand() -> None:
    """Two images 0 and 1 are 1 apart; what is drawn for them, 0 and 1/2, half as far."""
    zeros, ones = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    assert float(diversity((zeros, ones), (zeros, ones / 2))) == pytest.approx(2, abs=1e-4)


def test_a_defender_holds_rows_under_the_finished_triggers(made: tuple[Implant, Tensor]) -> None:
    implant, images = made
    sample, (backdoor,) = implant.sample, implant.poisoned.backdoors
    assert sample is not None
    assert backdoor.trigger is not None
    assert [int((sample.role == role).sum()) for role in (Role.POISON, Role.COVER)] == [20, 20]
    attacked = torch.nonzero(sample.role == Role.POISON).flatten()
    assert set(sample.labels[attacked].tolist()) == {0}
    assert int((sample.images[attacked].int() - backdoor.trigger(images[attacked]).int()).abs().max()) <= 1


def test_triggers_are_stored_whole_and_the_seed_decides_them(made: tuple[Implant, Tensor]) -> None:
    implant, images = made
    backdoor, (again,) = implant.poisoned.backdoors[0], implanted()[0].poisoned.backdoors
    for trigger, other in ((backdoor.trigger, again.trigger), (backdoor.cover, again.cover)):
        assert trigger is not None
        assert other is not None
        copy = rebuild(spec_of(trigger), state_of(trigger))
        assert copy(images).equal(trigger(images))
        assert other(images).equal(trigger(images))


def test_a_target_that_does_not_exist_is_refused_when_planning() -> None:
    with pytest.raises(UserError, match="target class 4 does not exist; the dataset has classes 0 to 3"):
        InputAware(InputAware.Config(target=4)).check(DatasetInfo("toy", tuple("abcd"), (1, 16, 16), (10,) * 4))
