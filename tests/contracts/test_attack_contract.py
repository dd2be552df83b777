"""The Attack contract, proved on attacks of the awkward kind: covers, training control, own trigger networks, several backdoors."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from gatecrash import (
    ContractError,
    ImageSet,
    Poisoned,
    Recipe,
    Role,
)
from gatecrash.host.host import Host
from gatecrash.records.stage import Stage
from gatecrash.records.victim import StoredVictim
from gatecrash.running.tasks.ground import Ground, TrainPart
from gatecrash.running.tasks.implant import implant
from gatecrash.running.tasks.stored import backdoors_of, classifier_of
from gatecrash.testing import make_context
from support.awkward_attacks import SHAPE, Painter, Plugins, Tiny, Twins, WaNetLike

RECIPE = Recipe(epochs=10, batch_size=32, lr=0.05, schedule="one-cycle", crop=0, flip=False)


def bars(count: int = 240) -> ImageSet:
    """Three classes that a tiny net learns: a bright bar at the left, in the middle or at the right, on noise."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 60, (count, *SHAPE), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % 3
    for label, left in enumerate((1, 3, 5)):
        pixels[labels == label, :, 1:7, left : left + 2] += 150
    return ImageSet(pixels, labels, ("left", "middle", "right"))


def train_victim(attack: str, seed: int = 0, **options: Any) -> StoredVictim:
    """What the store gets: the same task as in a run."""
    host = Host()
    host.add(Plugins(), "test plugins")  # type: ignore[arg-type]
    assert host.problems == []
    ground = Ground("bars", Stage(name="tiny"), RECIPE.model_dump(), {}, device="cpu")
    data = TrainPart(bars(), clean=bars(30), groups=None, flip=False)
    return implant(host, ground, Stage(name=attack, config=options), seed, data, None, lambda _: None)


victim_of = cache(train_victim)


def answers(victim: StoredVictim, images: Tensor) -> Tensor:
    with torch.no_grad():
        return classifier_of(victim)(images).argmax(1)


def test_covers_keep_their_labels_and_count_as_neither_clean_nor_poison() -> None:
    victim = victim_of("wanet-like")
    train = bars()
    roles = victim.poison["role"]
    assert [(roles == role).sum().item() for role in (Role.CLEAN, Role.POISON, Role.COVER)] == [0, 30, 30]
    rows = victim.poison["rows"]
    covers, poison = rows[roles == Role.COVER], rows[roles == Role.POISON]
    assert victim.poison["labels"][roles == Role.COVER].equal(train.labels[covers])
    assert (victim.poison["labels"][roles == Role.POISON] == 0).all()
    assert (train.labels[poison] != 0).all()
    assert victim.record.poison_share == 30 / 240


def test_an_attack_that_controls_training_sees_the_batches_of_its_own_data() -> None:
    attack, train = WaNetLike(), bars()
    made = attack.implant(train, make_context(attack, train, Tiny(), recipe=RECIPE))
    made.poisoned.check(train)
    epoch = torch.cat([rows for _, _, rows in attack.seen]).view(RECIPE.epochs, len(train))
    assert (epoch.sort(1).values == torch.arange(len(train))).all()  # every row once in every epoch
    for images, labels, rows in attack.seen:
        assert images.equal(made.poisoned.images[rows])
        assert labels.equal(made.poisoned.labels[rows])


def test_a_learned_trigger_is_stored_with_its_weights_and_rebuilt_from_them() -> None:
    victim = victim_of("input-aware-like")
    (backdoor,) = backdoors_of(victim)
    assert isinstance(backdoor.trigger, Painter)
    others = bars().subset(backdoor.goal.eligible(bars().labels))
    assert (answers(victim, others.images) == others.labels).float().mean() > 0.95
    assert (answers(victim, backdoor.trigger(others.images)) == 0).float().mean() > 0.95
    assert victim.record.poison_share == 0
    assert len(victim.poison["rows"]) == 0


def test_the_same_spec_gives_the_same_learned_trigger() -> None:
    first, second = victim_of("input-aware-like").weights, train_victim("input-aware-like").weights
    assert first.keys() == second.keys()
    assert all(tensor.equal(second[name]) for name, tensor in first.items())
    other = train_victim("input-aware-like", seed=1).weights
    assert not other["trigger.0.body.0.weight"].equal(first["trigger.0.body.0.weight"])


def test_several_backdoors_live_in_one_victim() -> None:
    victim = victim_of("twins")
    backdoors = backdoors_of(victim)
    assert [(backdoor.name, backdoor.goal.target) for backdoor in backdoors] == [("top-left", 0), ("bottom-right", 1)]
    for backdoor in backdoors:
        others = bars().subset(backdoor.goal.eligible(bars().labels))
        assert (answers(victim, backdoor.trigger(others.images)) == backdoor.goal.target).float().mean() > 0.9
    assert (answers(victim, bars().images) == bars().labels).float().mean() > 0.9


@pytest.mark.parametrize("trigger", ["wanet-like", "input-aware-like", "twins"])
def test_triggers_are_independent_of_batch_and_order(trigger: str) -> None:
    images = bars(12).images
    for backdoor in backdoors_of(victim_of(trigger)):
        together = backdoor.trigger(images)
        assert together.dtype == torch.uint8
        assert backdoor.trigger(images.flip(0)).flip(0).equal(together)
        assert torch.cat([backdoor.trigger(image[None]) for image in images]).equal(together)
        assert not together.equal(images)


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ("image", r"1 rows have role CLEAN but were changed \(first: row 3\)"),
        ("label", r"1 rows have role CLEAN but were changed \(first: row 4\)"),
        ("cover", r"1 rows have role COVER but another label than the true one \(first: row 5\)"),
        ("dtype", r"must keep images as uint8 .* got torch\.float32"),
        ("rows", r"must keep images as uint8 \[240, 1, 8, 8\]; got torch\.uint8 \[239"),
        ("role", r"one entry per row"),
        ("class", r"labels must lie in \[0, 3\)"),
    ],
)
def test_lies_about_rows_are_caught(lie: str, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        train_victim("lying", lie=lie)


def test_an_honest_attack_changes_nothing_it_was_given() -> None:
    train = bars()
    before = train.images.clone(), train.labels.clone()
    for attack in (WaNetLike(), Twins()):
        attack.poison(train, make_context(attack, train, Tiny(), recipe=RECIPE)).check(train)
    assert train.images.equal(before[0])
    assert train.labels.equal(before[1])


def test_a_role_that_does_not_exist_is_refused():
    train = ImageSet(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1, 0]), ("a", "b"))
    with pytest.raises(ContractError, match=r"not in gatecrash\.Role: \[7\]"):
        replace(Poisoned.untouched(train), role=torch.tensor([0, 7, 0], dtype=torch.uint8)).check(train)
