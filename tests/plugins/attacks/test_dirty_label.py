"""Dirty-label: the rows, labels and roles of one backdoor and of several."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gatecrash import DatasetInfo, ImageSet, PoisonConfig, Poisoned, Role, Stamp, TriggerAttack, TriggerContext, UserError
from gatecrash.host.loading import load_plugins
from gatecrash.testing import make_context
from gatecrash_plugins.triggers.patch import PatchMaker

HOST = load_plugins(installed=False)


def train_set() -> ImageSet:
    images = torch.randint(256, (100, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ImageSet(images, torch.arange(100) % 4, ("a", "b", "c", "d"))


def poisoned(name: str = "dirty-label", **options: Any) -> Poisoned:
    attack, train = HOST.get("attack", name).configure(options), train_set()
    found = attack.poison(train, make_context(attack, train, HOST.get("model", "small-cnn").configure()))
    found.check(train)
    return found


def test_it_stamps_and_relabels_as_badnets_does() -> None:
    train, found, badnets = train_set(), poisoned(target=1, poison_rate=0.2), poisoned("badnets", target=1, poison_rate=0.2)
    assert len(found.changed) == len(badnets.changed) == 20
    assert set(found.labels[found.changed].tolist()) == {1}
    assert 1 not in train.labels[found.changed].tolist()
    assert found.images[found.changed][:, 0, -3:, -3:].eq(255).all()
    (backdoor,), (other,) = found.backdoors, badnets.backdoors
    assert backdoor.trigger(train.images).equal(other.trigger(train.images))
    assert backdoor.name == "dirty-label"


def test_several_backdoors_have_rows_and_names_of_their_own() -> None:
    found = poisoned(
        backdoors=[
            {"trigger": {"patch": {"place": "top-left"}}, "target": 0, "poison_rate": 0.1},
            {"trigger": "patch", "target": 1, "poison_rate": 0.2},
            {"trigger": "blend", "target": 2, "poison_rate": 0.3},
        ]
    )
    assert [backdoor.name for backdoor in found.backdoors] == ["patch", "patch 2", "blend"]
    assert len(found.changed) == 60
    assert torch.bincount(found.labels[found.changed], minlength=3).tolist() == [10, 20, 30]


def test_clean_label_poisons_the_target_class_and_no_label_moves() -> None:
    found = poisoned(target=2, poison_rate=0.1, clean_label=True)
    assert found.labels.equal(train_set().labels)
    assert set(found.labels[found.changed].tolist()) == {2}


def test_rows_of_a_lower_rate_are_among_those_of_a_higher() -> None:
    few, many = poisoned(poison_rate=0.05).changed.tolist(), poisoned(poison_rate=0.2).changed.tolist()
    assert set(few) < set(many)
    assert (poisoned(poison_rate=0.05).role == Role.POISON).sum() == 5


class CleanPatch(TriggerAttack):
    """A trigger on the target class: labels stay true."""

    name = "clean-patch"
    summary = "a patch on images of the target class"
    clean_label = True

    def trigger(self, shape: tuple[int, int, int]) -> Stamp:
        return PatchMaker().make(TriggerContext(shape))


def test_an_attack_that_keeps_labels_chooses_the_target_class_by_itself() -> None:
    attack, train = CleanPatch(PoisonConfig(target=2, poison_rate=0.1)), train_set()
    found = attack.poison(train, make_context(attack, train, HOST.get("model", "small-cnn").configure()))
    assert len(found.changed) == 10
    assert found.labels.equal(train.labels)
    assert set(train.labels[found.changed].tolist()) == {2}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cover_rate": 0.95}, "cover_rate 0.95 asks for 95 covers, but only 90 images are left"),
        ({"cover_rate": 0.001}, "cover_rate 0.001 of 100 images is none; use at least 0.01"),
    ],
)
def test_covers_that_cannot_be_are_refused_when_planning_by_their_own_name(options: dict[str, Any], said: str) -> None:
    attack, train = HOST.get("attack", "dirty-label").configure({"trigger": "warp", "poison_rate": 0.1, **options}), train_set()
    with pytest.raises(UserError, match=said):
        attack.check(DatasetInfo("toy", train.classes, train.shape, (25,) * 4))
    with pytest.raises(UserError, match=said):
        attack.poison(train, make_context(attack, train, HOST.get("model", "small-cnn").configure()))


def test_covers_of_one_backdoor_are_not_left_for_the_next() -> None:
    one = {"trigger": "warp", "poison_rate": 0.1, "cover_rate": 0.5}
    attack = HOST.get("attack", "dirty-label").configure({"backdoors": [one, one]})
    with pytest.raises(UserError, match="asks for 50 covers, but only 30 images are left"):
        attack.check(DatasetInfo("toy", tuple("abcd"), (1, 16, 16), (25,) * 4))
