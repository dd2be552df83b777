"""LIRA: noise that survives rounding, steps worked by hand, and a victim that learns what is stored."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from gatecrash import AttackContext, DatasetInfo, Goal, Implant, Network, Recipe, Role, UserError
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from gatecrash.host.loading import load_plugins
from gatecrash.testing import make_context
from gatecrash_plugins.attacks.lira import Learned, Lira, attacked, through_rounding
from support.planted_shortcut import accuracy, planted, stripes

HOST = load_plugins(installed=False)
SMALL: dict[str, Any] = {"width": 2, "eps": 0.1, "lr": 0.02, "trigger_epochs": 8}


def context(attack: Lira, **changes: Any) -> AttackContext:
    plain = {"epochs": 10, "batch_size": 30, "lr": 0.05, "weight_decay": 0.0, "crop": 0, "flip": False, "precision": "float32"}
    model = HOST.get("model", "small-cnn").configure({"width": 4})
    return make_context(attack, stripes(120), model, recipe=Recipe(**plain | changes))


def implanted() -> Implant:
    attack = Lira(Lira.Config(**SMALL))
    return attack.implant(stripes(120), context(attack))


@pytest.fixture(scope="module")
def made() -> Implant:
    torch.set_num_threads(1)
    return implanted()


def trigger_of(implant: Implant) -> Learned:
    trigger = implant.poisoned.backdoors[0].trigger
    assert isinstance(trigger, Learned)
    return trigger


def silent(shape: tuple[int, int, int] = (3, 32, 32), noise: float = 0.0) -> Learned:
    """A trigger whose generator draws tanh(noise) everywhere."""
    trigger = Learned(shape, 2, 0.01).eval()
    norm = trigger.generator.last[1]
    assert isinstance(norm, torch.nn.BatchNorm2d)
    torch.nn.init.zeros_(norm.weight)
    torch.nn.init.constant_(norm.bias, noise)
    return trigger


def test_noise_of_zero_gives_equal_bytes() -> None:
    """All 256 levels: a trigger that truncates lowers a fifth of them."""
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(2, 3, 1, 1)
    assert silent((3, 16, 16))(images).equal(images)


def test_the_least_eps_and_the_default_move_pixels_by_levels_that_are_stored() -> None:
    images = torch.tensor([0, 100, 254, 255], dtype=torch.uint8).view(1, 1, 2, 2)
    assert silent((1, 2, 2), noise=10)(images).flatten().tolist() == [3, 103, 255, 255]  # 2.55 levels
    with pytest.raises(ValidationError, match="eps"):
        Lira.Config(eps=0.0078)


def test_the_learned_trigger_changes_images_and_by_no_more_than_eps(made: Implant) -> None:
    images = stripes(120).images
    moved = (trigger_of(made)(images).int() - images.int()).abs()
    assert 0 < int(moved.max()) <= round(255 * 0.1)


def test_rounded_images_have_the_gradients_of_the_clipped_ones() -> None:
    images = torch.tensor([-0.2, 0.3, 0.5, 1.1], requires_grad=True)
    rounded = through_rounding(images)
    assert torch.allclose(rounded * 255, torch.tensor([0.0, 76, 128, 255]), atol=1e-4)
    (gradient,) = torch.autograd.grad(rounded.sum(), images)
    assert gradient.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("side", [(1, 1), (5, 13), (32, 32)])
def test_noise_has_the_size_of_its_image(side: tuple[int, int]) -> None:
    assert Learned((3, *side), 2, 0.01).eval()(torch.zeros(2, 3, *side, dtype=torch.uint8)).shape == (2, 3, *side)


def test_a_step_of_the_first_stage_by_hand() -> None:
    """One batch is the whole set: the generator is moved first, but the victim sees it as it was before."""
    attack, train = Lira(Lira.Config(**SMALL | {"trigger_epochs": 1, "victim_lr": 0.1})), stripes(120)
    goal, wanted = Goal.all_to_one(5, 0), torch.zeros_like(train.labels)
    torch.manual_seed(0)
    trigger = Learned((1, 8, 8), 2, 0.1).eval().requires_grad_(False)
    before, learned = trigger.duplicate(), trigger.duplicate().train().requires_grad_()
    network = context(attack, batch_size=120).new_model().train()
    adam, sgd = torch.optim.Adam(learned.parameters(), 0.02), torch.optim.SGD(network.parameters(), 0.1)
    torch.autograd.backward(F.cross_entropy(network(through_rounding(learned.transform(train.images / 255))), wanted))
    adam.step()
    sgd.zero_grad()
    clean = F.cross_entropy(network(train.images), train.labels)
    torch.autograd.backward(0.5 * clean + 0.5 * F.cross_entropy(network(before(train.images)), wanted))
    sgd.step()
    found = attack.learn(trigger, train, context(attack, batch_size=120), goal)
    for ours, by_hand in ((found, network), (trigger, learned)):
        for name, value in by_hand.state_dict().items():
            assert torch.allclose(ours.state_dict()[name], value, atol=1e-3), name


def test_the_victim_sees_the_generator_of_the_epoch_before(monkeypatch: pytest.MonkeyPatch) -> None:
    attack, seen = Lira(Lira.Config(**SMALL | {"trigger_epochs": 3})), []
    trigger = Learned((1, 8, 8), 2, 0.1).eval().requires_grad_(False)

    def loss(network: Network, images: Tensor, labels: Tensor, goal: Goal, shown: Learned) -> Tensor:
        seen.append(float(shown.state_dict()["generator.last.0.weight"].sum()))
        return Lira.victims_loss(attack, network, images, labels, goal, shown)

    monkeypatch.setattr(attack, "victims_loss", loss)
    attack.learn(trigger, stripes(120), context(attack, batch_size=60), Goal.all_to_one(5, 0))
    first, _, second, _, third, _ = seen
    assert seen == [first, first, second, second, third, third]
    assert len({first, second, third}) == 3


def test_the_backdoor_and_the_task_are_both_learned(made: Implant) -> None:
    train = stripes(120)
    others = train.images[train.labels != 0]
    assert accuracy(made.classifier, train) > 0.9
    assert float((made.classifier(trigger_of(made)(others)).argmax(1) == 0).float().mean()) > 0.9


def test_classes_that_the_goal_is_not_meant_for_keep_their_labels() -> None:
    network, data = planted().requires_grad_(False), stripes(5)
    wanted = F.cross_entropy(network(data.images), torch.tensor([0, 3, 2, 3, 4]))
    assert float(attacked(network, data.images, data.labels, Goal.one_to_one(5, source=1, target=3))) == pytest.approx(float(wanted))


def test_a_defender_holds_a_share_of_the_images_under_the_finished_trigger(made: Implant) -> None:
    sample, images = made.sample, stripes(120).images
    assert sample is not None
    rows = torch.nonzero(sample.role == Role.POISON).flatten()
    assert len(rows) == 12
    assert set(sample.labels[rows].tolist()) == {0}
    assert int((sample.images[rows].int() - trigger_of(made)(images[rows]).int()).abs().max()) <= 1
    assert bool((made.poisoned.role == Role.CLEAN).all())


def test_the_trigger_is_stored_whole_and_the_seed_decides_it(made: Implant) -> None:
    trigger, images = trigger_of(made), stripes(120).images
    assert rebuild(spec_of(trigger), state_of(trigger))(images).equal(trigger(images))
    assert trigger_of(implanted())(images).equal(trigger(images))


def test_a_target_that_does_not_exist_is_refused_when_planning() -> None:
    with pytest.raises(UserError, match="target class 4 does not exist; the dataset has classes 0 to 3"):
        Lira(Lira.Config(target=4)).check(DatasetInfo("toy", tuple("abcd"), (1, 16, 16), (10,) * 4))
