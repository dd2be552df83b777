"""Trigger plugins: made from options, named by attacks, part of keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gatecrash import FloatTrigger, TriggerContext
from gatecrash.contracts.config import key_fields, nested_in
from gatecrash.host.loading import load_plugins
from gatecrash.planning.grid import parse_grid
from gatecrash.planning.resolve import resolve
from gatecrash_plugins.triggers.blend import BlendMaker
from gatecrash_plugins.triggers.patch import PatchMaker

HOST = load_plugins(installed=False)

SHADE = """
from pydantic import Field
from torch import Tensor
from gatecrash import FloatTrigger, Options, TriggerContext, TriggerMaker, hookimpl


class Darker(FloatTrigger):
    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def config(self):
        return {"by": self.by}

    def transform(self, images: Tensor) -> Tensor:
        return images * (1 - self.by)


class Shade(TriggerMaker):
    name = "shade"
    summary = "darkens the whole image"

    class Config(Options):
        by: float = Field(0.5, gt=0, lt=1, description="share of the light that is taken")

    def make(self, ctx: TriggerContext) -> Darker:
        return Darker(self.config.by)

    def make_cover(self, ctx: TriggerContext) -> Darker:
        return Darker(self.config.by / 2)


@hookimpl
def register_triggers(register):
    register(Shade)
"""


class Unchanged(FloatTrigger):
    def transform(self, images: Tensor) -> Tensor:
        return images


class Half(FloatTrigger):
    """A third of a grey level more: rounded down; two thirds: rounded up."""

    def transform(self, images: Tensor) -> Tensor:
        return images + torch.tensor([1 / 3, 2 / 3]).view(2, 1, 1) / 255


def test_a_float_trigger_rounds_and_never_truncates() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert Unchanged()(every).equal(every)
    pair = torch.full((1, 2, 1, 1), 100, dtype=torch.uint8)
    assert Half()(pair).flatten().tolist() == [100, 101]


def test_gradients_flow_through_transform() -> None:
    image = torch.full((1, 2, 1, 1), 0.5, requires_grad=True)
    Half().transform(image).sum().backward()
    assert image.grad is not None
    assert image.grad.flatten().tolist() == [1, 1]


def asked(attack: Any) -> list[Any]:
    grid = {"name": "g", "dataset": "digits", "model": "small-cnn", "recipe": "tiny", "attacks": [attack], "defenses": ["none"]}
    return list(resolve(parse_grid(grid), HOST).attacks)


def test_an_attack_takes_a_trigger_by_name_and_its_options_can_be_swept() -> None:
    found = asked({"dirty-label": {"trigger": ["blend", {"patch": {"size": [3, 5]}}]}})
    makers = [attack.instance.config.trigger for attack in found]
    assert makers == [BlendMaker(), PatchMaker(), PatchMaker(PatchMaker.Config(size=5))]
    assert [attack.identity[2] for attack in found] == [
        {"trigger": ["blend", 1, {}, None]},
        {},  # the default
        {"trigger": ["patch", 1, {"size": 5}, None]},
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"trigger": "pach"}, "attacks[0].dirty-label.trigger: unknown trigger 'pach'; did you mean 'patch'?"),
        ({"trigger": {"patch": {"size": 0}}}, "attacks[0].dirty-label.trigger.patch.size: Input should be greater than or equal to 1"),
        ({"trigger": {"patch": {"sise": 3}}}, "attacks[0].dirty-label.trigger.patch.sise: unknown field; did you mean 'size'?"),
        ({"trigger": 7}, "attacks[0].dirty-label.trigger: write a name, or {name: {option: value}}"),
        ({"backdoors": [{"trigger": "pach"}]}, "attacks[0].dirty-label.backdoors[0].trigger: unknown trigger 'pach'"),
        ({"backdoors": [{"trigger": {"patch": {"size": 0}}}]}, "attacks[0].dirty-label.backdoors[0].trigger: patch.size: Input should be"),
        ({"cover_rate": 0.1}, "the trigger patch has no covers; leave cover_rate at 0"),
        ({"backdoors": [{}], "target": 3}, "target is given beside backdoors; give it to each of the backdoors"),
        ({"clean_label": True, "goal": "all-to-all"}, "clean_label is for goal all-to-one only, not all-to-all"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(options: dict[str, Any], said: str) -> None:
    with pytest.raises(Exception, match=r".") as error:
        asked({"dirty-label": options})
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_options_are_written_as_a_grid_has_them_and_read_back() -> None:
    plugin = HOST.get("attack", "dirty-label")
    config = plugin.configure({"backdoors": [{"trigger": {"patch": {"place": "top-left"}}}, {"trigger": "blend", "target": 1}]}).config
    again = plugin.configure(config.model_dump(mode="json")).config
    assert again == config
    assert key_fields(again) == {
        "backdoors": [{"trigger": ["patch", 1, {"place": "top-left"}, None]}, {"target": 1, "trigger": ["blend", 1, {}, None]}]
    }
    assert [maker.name for maker in nested_in(config)] == ["patch", "patch", "blend"]


def test_the_code_of_a_trigger_file_enters_the_keys_of_attacks_that_name_it(tmp_path: Path) -> None:
    file = tmp_path / "shade.py"
    identities = []
    for source in (SHADE, SHADE.replace("1 - self.by", "1 - self.by / 2")):
        file.write_text(source)
        host = load_plugins([file], installed=False)
        config = host.get("attack", "dirty-label").configure({"trigger": "shade"}).config
        identities.append(key_fields(config)["trigger"])
        assert ("trigger", "shade") in host.named_by("attack", "dirty-label", {"trigger": "shade"})
    assert identities[0][:3] == identities[1][:3] == ["shade", 1, {}]
    assert identities[0][3] != identities[1][3]


@pytest.mark.parametrize("executor", ["serial", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_trigger_file_works_in_a_grid_with_covers(gatecrash: Callable[..., Any], tmp_path: Path, executor: str) -> None:
    import yaml

    (tmp_path / "shade.py").write_text(SHADE)
    attack = {"dirty-label": {"trigger": {"shade": {"by": 0.6}}, "poison_rate": 0.1, "cover_rate": 0.05}}
    grid = {"name": "g", "dataset": "digits", "model": "small-cnn", "recipe": "tiny", "attacks": [attack], "defenses": ["none"]}
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(grid))
    options = ["--plugins", tmp_path / "shade.py", "--store", tmp_path / "s", "--executor", executor, "-q"]
    assert gatecrash("run", tmp_path / "g.yaml", *options).code == 0
    rows = json.loads(gatecrash("results", "--store", tmp_path / "s", "--format", "json").out)
    (row,) = (row for row in rows if row["attack"] == "dirty-label")
    assert row["attack_config"]["trigger"] == {"shade": {"by": 0.6}}
    assert row["contents"]["attack trigger.shade version"] == "1"
    assert row["status"] == "ok"


def test_triggers_are_listed_and_shown(gatecrash: Callable[..., Any]) -> None:
    assert "patch" in gatecrash("list", "triggers").out
    shown = gatecrash("show", "patch").out
    for text in ("(trigger, version 1)", "MadryLab", "add_pattern_bd", "white | checkerboard |"):
        assert text in shown


def test_the_shipped_triggers_are_what_the_attacks_of_their_papers_stamp() -> None:
    ctx = TriggerContext((1, 16, 16))
    image = torch.full((1, 1, 16, 16), 7, dtype=torch.uint8)
    assert int((PatchMaker().make(ctx)(image) != image).sum()) == 9
    assert int((BlendMaker().make(ctx)(image) != image).sum()) > 200
