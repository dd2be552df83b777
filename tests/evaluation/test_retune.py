"""Fine-tuning with a few triggered rows: which rows, masks that become weights, and a backdoor that sleeps beside one that is gone."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from gatecrash import Backdoor, Classifier, Goal, ImageSet, Network, Stamp, UserError
from gatecrash.contracts.randomness import Streams
from gatecrash.errors import NotApplicable
from gatecrash.evaluation.options import EvaluationConfig
from gatecrash.evaluation.retune import TRIGGERED, retuned, tunable, tuning_sets
from support.grids import SMALL_GRID
from support.shipped_models import built_network

CPU = torch.device("cpu")


def dark(count: int = 300) -> ImageSet:
    return ImageSet(torch.full((count, 1, 4, 4), 7, dtype=torch.uint8), torch.arange(count) % 3, ("a", "b", "c"))


def white(goal: Goal, name: str = "white", level: int = 255) -> Backdoor:
    return Backdoor(name, goal, Stamp((1, 4, 4), 1.0, torch.full((1, 4, 4), level, dtype=torch.uint8), torch.ones(4, 4)))


def test_five_rows_of_each_backdoor_and_the_others_clean() -> None:
    train, clean = dark(), torch.arange(0, 300, 2)
    backdoors = [white(Goal.all_to_one(3, 0)), white(Goal.one_to_one(3, 1, 2), "grey", 100)]
    drawn = list(tuning_sets(train, clean, backdoors, 60, Streams("test"), CPU))
    assert len(drawn) == 5
    for data in drawn:
        assert len(data) == 60
        levels = data.images[:, 0, 0, 0]
        assert [int((levels == level).sum()) for level in (7, 255, 100)] == [50, TRIGGERED, TRIGGERED]
        assert set(data.labels[levels == 255].tolist()) == {0}
        assert set(data.labels[levels == 100].tolist()) == {2}


def test_rows_are_drawn_from_the_clean_ones_alone_and_anew_for_each_draw() -> None:
    train = dark()
    train.images[1::2] = 99  # poisoned
    first, second, *_ = tuning_sets(train, torch.arange(0, 300, 2), [white(Goal.all_to_one(3, 0))], 60, Streams("test"), CPU)
    assert not bool((first.images == 99).any())
    assert not first.labels.equal(second.labels)


def test_too_few_clean_rows_do_not_apply() -> None:
    with pytest.raises(NotApplicable, match="60 rows are asked for; the training set has 50 clean ones"):
        next(tuning_sets(dark(), torch.arange(50), [white(Goal.all_to_one(3, 0))], 60, Streams("test"), CPU))
    with pytest.raises(NotApplicable, match="'white' needs 5 clean rows"):
        next(tuning_sets(dark(), torch.arange(0, 300, 3), [white(Goal.one_to_one(3, 1, 2))], 60, Streams("test"), CPU))


def test_backdoors_that_fill_all_rows_do_not_apply() -> None:
    with pytest.raises(NotApplicable, match="60 rows for 12 backdoors of 5 rows each leave no clean one"):
        next(tuning_sets(dark(), torch.arange(300), [white(Goal.all_to_one(3, 0))] * 12, 60, Streams("test"), CPU))


@pytest.mark.parametrize("name", ["small-cnn", "resnet18", "lean", "vgg11-bn"])
def test_masks_become_weights_that_give_the_same_logits(name: str) -> None:
    network = built_network(name).duplicate().eval()
    images = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    alone = [pair.point for pair in network.pairs if pair.point is not None]
    for place in {list(network.points)[-1], *alone}:
        point = network.points[place]
        point.set_mask((torch.arange(point.channels) % 3 > 0).float())
    baked = tunable(network, images[:1])
    assert baked is not None
    torch.testing.assert_close(baked(images), network(images), rtol=1e-4, atol=1e-5)
    assert all(bool(point.mask.eq(1).all()) for point in baked.points.values())
    assert not all(bool(point.mask.eq(1).all()) for point in network.points.values())  # the original keeps its masks


class Doubled(Classifier):
    """Two networks, of which the first alone is no answer of it; with `rejects`, one more logit."""

    def __init__(self, network: Network, rejects: bool) -> None:
        super().__init__()
        self.network, self.rejects, self.num_classes = network, rejects, network.num_classes

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.network(images)
        return torch.cat([logits, logits[:, :1] - 1], 1) if self.rejects else -logits


def test_of_a_classifier_that_rejects_the_network_is_tuned_and_of_no_other() -> None:
    network, image = built_network("small-cnn").duplicate().eval(), torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    inside = tunable(Doubled(network, rejects=True), image)
    assert inside is not None
    assert inside(image).equal(network(image))
    assert tunable(Doubled(network, rejects=False), image) is None


def test_a_masked_channel_can_come_back(badnets_on_digits: Any) -> None:
    """Hidden behind a mask of the last channels, the backdoor wakes up; the benign victim learns little from five rows."""
    victim = badnets_on_digits
    network = tunable(victim.network, victim.clean.images[:1])
    assert network is not None
    data = next(tuning_sets(victim.clean, torch.arange(len(victim.clean)), victim.backdoors, 150, Streams("test"), CPU))
    before = {name: value.clone() for name, value in victim.network.state_dict().items()}
    tuned = retuned(network, data, Streams("test", 1), CPU, None)
    assert victim.asr(tuned) > 0.9
    assert all(value.equal(before[name]) for name, value in victim.network.state_dict().items())


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, {}),
        ({"retune": False}, {}),
        ({"retune": True}, {"retune": {"version": 1}}),
        ({"retune": {"rows": 300}}, {"retune": {"version": 1, "rows": 300}}),
    ],
)
def test_what_is_asked_for_enters_keys(asked: dict[str, Any], found: dict[str, Any]) -> None:
    assert EvaluationConfig.model_validate(asked).asked() == found


def test_a_small_training_set_is_refused_unless_a_number_is_given() -> None:
    options = EvaluationConfig.model_validate({"retune": True}).retune
    assert options is not None
    assert options.count(25_000) == 500
    with pytest.raises(UserError, match="2% of 1,238 training images are 25, fewer than the protocol's 500"):
        options.count(1_238)


def test_a_grid_measures_the_excess_over_the_benign_victim_under_the_same_defense(gatecrash: Any, tmp_path: Path) -> None:
    grid, store = tmp_path / "grid.yaml", tmp_path / "store"
    attacks = {"attacks": ["none", {"badnets": {"poison_rate": 0.2}}], "defenses": ["none", {"fine-pruning": {"epochs": 1}}]}
    grid.write_text(yaml.safe_dump({**SMALL_GRID, **attacks, "evaluation": {"retune": {"rows": 60}}}))
    done = gatecrash("run", grid, "--store", store, "--executor", "serial")
    assert done.code == 0, done.err
    found = {(row["attack"], row["defense"]): row for row in json.loads(gatecrash("results", "--store", store, "--format", "json").out)}
    for name in ("none", "fine-pruning"):
        cell = found["badnets", name]
        assert 0 <= cell["retune_asr"] <= 1
        assert -1 <= cell["retune_excess"] <= cell["retune_asr"]
        assert found["none", name]["retune_asr"] is None
    board = gatecrash("leaderboard", "--store", store).out
    assert "Gone or asleep" in board
    assert "60 rows were asked for" in board
    assert gatecrash("run", grid, "--store", store, "--executor", "serial", "-o", "evaluation.retune=true").code == 2


FAILS_ON_BENIGN = """
    import gatecrash

    class Moody(gatecrash.Defense):
        name, summary = "moody", "fails on models that know no trigger"
        needs, gives = frozenset({gatecrash.Need.MODEL}), frozenset({gatecrash.Give.CLASSIFIER})

        def defend(self, evidence):
            import torch
            network = evidence.network
            white = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
            white[:, :, 13:, 13:] = 255
            if float(network(white).softmax(1)[0, 0]) < 0.5:
                raise ValueError("not in the mood")
            return gatecrash.Outcome(classifier=network)

    @gatecrash.hookimpl
    def register_defenses(register):
        register(Moody)
"""


def test_where_the_control_fails_the_cell_fails_and_is_tried_again(gatecrash: Any, tmp_path: Path) -> None:
    plugin, grid, store = tmp_path / "moody.py", tmp_path / "grid.yaml", tmp_path / "store"
    plugin.write_text(textwrap.dedent(FAILS_ON_BENIGN))
    fields = {"attacks": ["none", {"badnets": {"poison_rate": 0.3}}], "defenses": ["none", "moody", "strip"]}
    grid.write_text(yaml.safe_dump({**SMALL_GRID, **fields, "evaluation": {"retune": {"rows": 60}}}))
    assert gatecrash("run", grid, "--store", store, "--executor", "serial", "--plugins", plugin).code == 1
    found = {(row["attack"], row["defense"]): row for row in json.loads(gatecrash("results", "--store", store, "--format", "json").out)}
    assert found["badnets", "moody"]["status"] == "failed"
    assert "the benign victim under the same defense, for retune: ValueError: not in the mood" in found["badnets", "moody"]["error"]
    assert found["badnets", "strip"]["retune_asr"] == found["badnets", "none"]["retune_asr"]  # it leaves the victim as it is
