"""Modules without pickle: spec and tensors out, the same module back."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gatecrash
from gatecrash import ContractError, Portable
from gatecrash.contracts.portable import loaded_class, rebuild, spec_of, state_of
from gatecrash.host.loading import load_plugins
from support.paths import FIXTURES

FIXTURE = FIXTURES / "store-schema-1"


class Scale(Portable):
    def __init__(self, size: int, by: float = 1.0) -> None:
        super().__init__()
        self.size, self.by = size, by
        self.weight = nn.Parameter(torch.arange(float(size)))
        self.register_buffer("count", torch.tensor(3))

    def config(self) -> dict[str, Any]:
        return {"size": self.size, "by": self.by}

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight * self.by


class Chain(Portable):
    """Holds Portables in a list and in a mapping."""

    def __init__(self, steps: list[Portable], named: dict[str, Any]) -> None:
        super().__init__()
        self.steps, self.named = nn.ModuleList(steps), nn.ModuleDict({name: value for name, value in named.items() if name != "note"})
        self.note = named["note"]

    def config(self) -> dict[str, Any]:
        return {"steps": list(self.steps), "named": {**self.named, "note": self.note}}

    def forward(self, x: Tensor) -> Tensor:
        for step in (*self.steps, *self.named.values()):
            x = step(x)
        return x


class Outer:
    class Inner(Scale):
        pass


class Wrong(Portable):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def config(self) -> dict[str, Any]:
        return {"value": self.value}


def through_json(module: Portable) -> Portable:
    return rebuild(json.loads(json.dumps(spec_of(module))), state_of(module))


def test_a_module_comes_back_with_its_tensors_in_eval_mode() -> None:
    module = Scale(3, by=2.0)
    module.weight.data[0] = 7
    back = through_json(module)
    assert isinstance(back, Scale)
    assert (back.by, back.weight.tolist(), int(back.count)) == (2.0, [7, 1, 2], 3)
    assert not back.training


def test_the_spec_names_the_class_and_holds_no_tensor() -> None:
    assert spec_of(Scale(3)) == {"class": f"{__name__}:Scale", "config": {"size": 3, "by": 1.0}}
    assert spec_of(Outer.Inner(2))["class"] == f"{__name__}:Outer.Inner"
    assert isinstance(through_json(Outer.Inner(2)), Outer.Inner)


def test_portables_inside_portables_come_back_at_any_depth() -> None:
    module = Chain([Scale(3), Chain([Scale(3, by=2.0)], {"note": [1, None]})], {"a": Scale(3), "note": {"deep": True}})
    back = through_json(module)
    x = torch.ones(3)
    assert torch.equal(back(x), module(x))
    assert isinstance(back, Chain)
    assert isinstance(back.steps[1], Chain)
    assert (back.note, back.steps[1].note) == ({"deep": True}, [1, None])


@pytest.mark.parametrize("value", [torch.ones(2), {1, 2}, object(), nn.Linear(1, 1), [b"bytes"], {"x": 1j}])
def test_a_config_that_is_not_json_is_a_contract_error(value: Any) -> None:
    with pytest.raises(ContractError, match="only JSON values and Portables can be stored"):
        spec_of(Wrong(value))


def test_tensors_are_copies_with_storage_of_their_own() -> None:
    module = Scale(3)
    state = state_of(module)
    state["weight"][0] = 99
    assert module.weight.tolist() == [0, 1, 2]
    assert not state["weight"].requires_grad


def test_reading_data_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "this", raising=False)
    with pytest.raises(ContractError, match="this:Zen is needed to read this file, but no plugin 'this' is loaded"):
        rebuild({"class": "this:Zen", "config": {}}, {})
    assert "this" not in sys.modules


@pytest.mark.parametrize(
    "reference", ["os:system", "builtins:eval", "torch.nn:Linear", f"{__name__}:Missing", f"{__name__}:Scale.config", "os:"]
)
def test_only_portable_classes_are_built_from_data(reference: str) -> None:
    with pytest.raises(ContractError, match="is not a Portable class"):
        rebuild({"class": reference, "config": {}}, {})


def test_tensors_that_do_not_fit_are_a_contract_error() -> None:
    for state in ({}, {"weight": torch.ones(4), "count": torch.tensor(1)}, {**state_of(Scale(3)), "more": torch.ones(1)}):
        with pytest.raises(ContractError, match=f"{__name__}:Scale"):
            rebuild(spec_of(Scale(3)), state)


def test_the_host_may_resolve_classes_itself() -> None:
    asked: list[str] = []

    def resolve(reference: str) -> type:
        asked.append(reference)
        return Scale

    assert isinstance(rebuild({"class": "moved.away:Old", "config": {"size": 3}}, state_of(Scale(3)), resolve), Scale)
    assert asked == ["moved.away:Old"]


@pytest.mark.parametrize("training", [True, False])
def test_a_duplicate_is_independent_and_in_the_same_mode(training: bool) -> None:
    module = Scale(3).train(training)
    copy = module.duplicate()
    copy.weight.data.zero_()
    assert module.weight.tolist() == [0, 1, 2]
    assert copy.training is training


def test_a_class_that_does_not_rebuild_as_itself_is_a_contract_error() -> None:
    class Local(Scale):
        pass

    with pytest.raises(ContractError, match="Local"):
        Local(2).duplicate()


def test_the_harness_own_classes_are_stored_under_their_public_names() -> None:
    """So that a module of the harness can move without a stored file becoming unreadable."""
    stamp = gatecrash.Stamp((1, 4, 4), 0.5, mask=torch.eye(4))
    spec = spec_of(stamp)
    assert spec["class"] == "gatecrash:Stamp"
    again = rebuild(spec, state_of(stamp))
    images = torch.full((1, 1, 4, 4), 200, dtype=torch.uint8)
    assert again(images).equal(stamp(images))


@pytest.mark.parametrize("older", ["gatecrash.triggers:Stamp", "gatecrash:Stamp"])
def test_names_of_modules_in_older_files_are_understood(older: str) -> None:
    stamp = gatecrash.Stamp((1, 4, 4), 0.5, mask=torch.eye(4))
    assert isinstance(rebuild({**spec_of(stamp), "class": older}, state_of(stamp)), gatecrash.Stamp)


def test_the_victim_of_an_older_store_is_rebuilt() -> None:
    record = json.loads(next(FIXTURE.glob("victims/*/*/record.json")).read_text())
    assert record["classifier"]["class"] == "gatecrash.classifier:Network"
    assert loaded_class(record["classifier"]["class"]) is gatecrash.Network
    assert loaded_class(record["backdoors"][0]["trigger"]["class"]) is gatecrash.Stamp


def test_triggers_of_clean_label_victims_are_read_where_they_lie_now() -> None:
    load_plugins(installed=False)
    spec = {"class": "gatecrash_plugins.attacks.clean_label:Contrast", "config": {"shape": [1, 2, 2], "amplitude": 1.0}}
    trigger = rebuild(spec, {"signs": torch.tensor([[[1.0, -1.0], [0.0, 0.0]]])})
    assert trigger(torch.full((1, 1, 2, 2), 9, dtype=torch.uint8)).flatten().tolist() == [255, 0, 9, 9]
