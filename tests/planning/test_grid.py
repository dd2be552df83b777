"""Grids: what a person writes, sweeps, and one line for whatever is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatecrash.errors import UserError
from gatecrash.host.loading import load_plugins
from gatecrash.planning.grid import load_grid, parse_grid, shipped_grids
from gatecrash.planning.resolve import resolve
from support.grids import SMALL_GRID

HOST = load_plugins(installed=False)


def asked(**fields: Any) -> Any:
    return resolve(parse_grid({**SMALL_GRID, **fields}), HOST)


def names(stages: Any) -> list[str]:
    return [choice.name for choice in stages]


def test_every_shipped_grid_parses_and_resolves() -> None:
    assert "quickstart" in shipped_grids()
    for name in shipped_grids():
        resolve(load_grid(name), HOST)


def test_a_list_where_a_scalar_is_expected_is_a_sweep() -> None:
    resolved = asked(attacks=[{"badnets": {"poison_rate": [0.01, 0.05], "size": [2, 3]}}])
    configs = [(choice.instance.config.poison_rate, choice.instance.config.size) for choice in resolved.attacks]
    assert configs == [(0.01, 2), (0.01, 3), (0.05, 2), (0.05, 3)]


def test_a_chain_is_one_defense_of_several_stages_and_sweeps_too() -> None:
    resolved = asked(defenses=["none", {"chain": [{"fine-pruning": {"epochs": [1, 2]}}, "fine-pruning"]}])
    assert [names(stages) for stages in resolved.defenses] == [["none"], ["fine-pruning"] * 2, ["fine-pruning"] * 2]
    assert [stages[0].instance.config.epochs for stages in resolved.defenses[1:]] == [1, 2]


def test_a_recipe_is_a_preset_or_fields_on_top_of_one() -> None:
    assert asked(recipe="tiny").recipe.epochs == asked(recipe={"preset": "tiny"}).recipe.epochs
    assert asked(recipe={"preset": "tiny", "epochs": 3}).recipe.epochs == 3
    assert asked(recipe={}).recipe.epochs == 100


def test_overrides_reach_nested_fields_and_bare_plugin_names() -> None:
    data = {**SMALL_GRID, "dataset": "digits", "recipe": "tiny"}
    grid = parse_grid(data, overrides={"recipe.epochs": "7", "dataset.digits.limit": "50", "seeds": "[3, 4]"})
    resolved = resolve(grid, HOST)
    assert (resolved.recipe.epochs, resolved.dataset.instance.config.limit, grid.seeds) == (7, 50, [3, 4])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"attacks": ["badnet"]}, "attacks[0]: unknown attack 'badnet'; did you mean 'badnets'?"),
        ({"defenses": ["none", "finepruning"]}, "defenses[1]: unknown defense 'finepruning'; did you mean 'fine-pruning'"),
        ({"dataset": "digit"}, "dataset: unknown dataset 'digit'; did you mean 'digits'?"),
        ({"model": "resnet-18"}, "model: unknown model 'resnet-18'; did you mean"),
        ({"recipe": "fst"}, "unknown recipe 'fst'; did you mean 'fast'?"),
        ({"recipe": {"epoch": 3}}, "recipe.epoch: unknown field; did you mean 'epochs'?"),
        ({"recipe": {"epochs": 0}}, "recipe.epochs: Input should be greater than or equal to 1 (got 0)"),
        ({"attacks": [{"badnets": {"rate": 0.1}}]}, "attacks[0].badnets.rate: unknown field; did you mean 'poison_rate'?"),
        ({"attacks": [{"badnets": {"poison_rate": 2}}]}, "attacks[0].badnets.poison_rate: Input should be less than or equal to 1 (got 2)"),
        ({"attacks": [{"badnets": {"poison_rate": "much"}}]}, "attacks[0].badnets.poison_rate: Input should be a valid number"),
        ({"attacks": [{"badnets": {"goal": "one-to-one"}}]}, "attacks[0].badnets: goal one-to-one needs a source class"),
        ({"attacks": [{"badnets": {"size": []}}]}, "attacks[0].badnets.size: an empty sweep"),
        ({"attacks": []}, "attacks: List should have at least 1 item"),
        ({"defenses": []}, "defenses: List should have at least 1 item"),
        ({"attacks": [{"badnets": 3}]}, "attacks[0].badnets: options must be a mapping"),
        ({"attacks": [{"a": {}, "b": {}}]}, "attacks[0]: write a name, or {name: {option: value}}"),
        ({"defenses": [{"chain": []}]}, "defenses[0].chain: needs a list of defenses"),
        ({"defenses": [{"chain": ["none", "nonsense"]}]}, "defenses[0].chain[1]: unknown defense 'nonsense'"),
        ({"seeds": []}, "seeds: List should have at least 1 item"),
        ({"seeds": ["x"]}, "seeds[0]: Input should be a valid integer"),
        ({"seeds": [-1]}, "seeds: seeds must lie in [0, 2**63)"),
        ({"atacks": []}, "atacks: unknown field; did you mean 'attacks'?"),
        ({"holdout": {"fraction": 2}}, "holdout.fraction: Input should be less than or equal to 0.5"),
        ({"dataset": {"digits": {"limit": [10, 20]}}}, "dataset: a grid has one dataset"),
        ({"recipe": {"\n": None}}, "recipe. : unknown field; known: epochs"),
        ({"name": "../evil"}, "name: String should match pattern"),
    ],
)
def test_what_is_wrong_is_named_with_its_path(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        asked(**fields)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(UserError, match="mine: model: is missing"):
        parse_grid({key: value for key, value in SMALL_GRID.items() if key != "model"}, "mine")


def test_an_unknown_grid_gets_the_close_matches_and_a_missing_file_its_path() -> None:
    with pytest.raises(UserError, match="no grid file or shipped grid 'quickstar'; did you mean 'quickstart'"):
        load_grid("quickstar")
    with pytest.raises(UserError, match=r"cannot read grid nowhere/my\.yaml: No such file"):
        load_grid("nowhere/my.yaml")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | st.text(max_size=8) | st.sampled_from(["badnets", "none", "digits"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=6) | st.sampled_from(["badnets", "chain", "sweep", "preset", "epochs"]), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = st.sampled_from([*SMALL_GRID, "holdout", "seeds", "nonsense"])


def refusal(parse: Callable[[], Any]) -> str:
    """What a person is told; anything but a UserError is a traceback and fails the test."""
    try:
        resolve(parse(), HOST)
    except UserError as error:
        return str(error)
    return ""


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(FIELDS, VALUES, max_size=4))
def test_no_mapping_gives_a_traceback(fields: dict[str, Any]) -> None:
    assert "\n" not in refusal(lambda: parse_grid({**SMALL_GRID, **fields}))


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_no_yaml_value_gives_a_traceback(value: Any) -> None:
    assert "\n" not in refusal(lambda: parse_grid(value))


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60) | st.text("{}[]:-&*!|>'\"%@ \n\tabc0", max_size=40))
def test_no_text_gives_a_traceback(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    file.write_text(text, encoding="utf-8", errors="replace")
    assert "\n" not in refusal(lambda: load_grid(str(file)))


def test_yaml_cannot_run_code(tmp_path: Any) -> None:
    file = tmp_path / "evil.yaml"
    file.write_text("name: !!python/object/apply:os.system ['exit 1']")
    with pytest.raises(UserError, match="not valid YAML at line 1"):
        load_grid(str(file))


def test_a_round_trip_through_yaml_changes_nothing() -> None:
    grid = parse_grid(dict(SMALL_GRID))
    assert parse_grid(yaml.safe_load(yaml.safe_dump(grid.model_dump(mode="json")))) == grid
