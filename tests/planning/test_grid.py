"""Grids: what a person writes, sweeps, and one line for whatever is wrong with it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatecrash.errors import UserError
from gatecrash.host.loading import load_plugins
from gatecrash.planning.grid import load_grid, parse_grid, shipped_grids
from gatecrash.planning.planned import plan_grid
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


def test_a_stage_of_a_chain_may_be_conditional() -> None:
    (stages,) = asked(defenses=[{"chain": ["neural-cleanse", {"fine-pruning": {"epochs": 2}, "when": "accused"}]}]).defenses
    assert [(part.name, part.when) for part in stages] == [("neural-cleanse", None), ("fine-pruning", "accused")]
    (swept, other) = asked(defenses=[{"chain": ["neural-cleanse", {"fine-pruning": {"epochs": [2, 3]}, "when": "accused"}]}]).defenses
    assert [chain[1].when for chain in (swept, other)] == ["accused"] * 2
    (bare,) = asked(defenses=[{"chain": ["neural-cleanse", {"fine-pruning": None, "when": "accused"}]}]).defenses
    assert (bare[1].when, bare[1].instance.config) == ("accused", asked(defenses=["fine-pruning"]).defenses[0][0].instance.config)


def clean_images(**fields: Any) -> list[list[Any]]:
    """By defense, what clean images its stages are given: None for the whole hold-out."""
    return [[stage.clean and (stage.clean.kind, stage.clean.per_class) for stage in chain] for chain in asked(**fields).defenses]


def test_a_grid_says_what_clean_images_its_defenses_are_given() -> None:
    assert clean_images(defenses=["fine-pruning"]) == [[None]]
    assert clean_images(defenses=["none", "fine-pruning"], clean_data=["reserved", "seen"]) == [[None], [None], [("seen", None)]]
    sizes = [{"kind": ["reserved", "seen"], "per_class": [1, 5]}]
    kinds = [[("reserved", 1)], [("reserved", 5)], [("seen", 1)], [("seen", 5)]]
    assert clean_images(defenses=["fine-pruning"], clean_data=sizes) == kinds
    chain = {"chain": ["activation-clustering", {"fine-pruning": {"epochs": 2}}]}
    assert clean_images(defenses=[{**chain, "clean": "seen"}, "fine-pruning"]) == [[None, ("seen", None)], [None]]
    assert clean_images(defenses=[{"fine-pruning": None, "clean": "reserved"}], clean_data=["seen"]) == [[None]]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"clean_data": ["sean"]}, "clean_data[0].kind: "),
        ({"clean_data": [{"kind": "seen", "per_clas": 3}]}, "clean_data[0].per_clas: unknown field; did you mean 'per_class'?"),
        ({"clean_data": [{"per_class": 0}]}, "clean_data[0].per_class: "),
        ({"defenses": [{"fine-pruning": {}, "clean": []}]}, "defenses[0].clean: is empty; leave it out, or write a kind"),
        ({"defenses": [{"fine-pruning": {}, "clean": [3]}]}, "defenses[0].clean[0]: write a kind, or {kind: seen, per_class: 10}"),
        ({"defenses": [{"activation-clustering": {}, "clean": "seen"}]}, "activation-clustering is given no clean images; leave it out"),
    ],
)
def test_clean_images_that_there_are_not_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        asked(**fields)


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
        ({"attacks": ["badnet"]}, "attacks[0]: unknown attack 'badnet'; did you mean 'badnets' or 'wanet'?"),
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
        (
            {"defenses": [{"chain": ["neural-cleanse", {"anp": {}, "when": "always"}]}]},
            "defenses[0].chain[1].when: 'always' is no condition; write when: accused",
        ),
        ({"defenses": [{"anp": {}, "when": "accused"}]}, "defenses[0]: write a name, or {name: {option: value}}"),
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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\nname: b", "line 2: the key 'name' stands twice"),
        ("recipe: {epochs: 1, lr: 0.1, epochs: 2}", "line 1: the key 'epochs' stands twice"),
        ("a: 00014", "line 1: '00014' is a number in another notation; write it in quotes if it is a text"),
        ("a: -010", "line 1: '010' is a number in another notation"),
        ("a: 1:30", "line 1: '1:30' is a number in another notation"),
        ("seeds: !!int ''", "line 1: '' is no whole number"),
        ("seeds: !!float x", "line 1: 'x' is no number"),
        ("seeds: !!bool x", "line 1: 'x' is no true or false"),
        ("seeds: !!timestamp x", "line 1: 'timestamp' is no kind of value that is used here"),
        ("seeds: !!set {a}", "line 1: 'set' is no kind of value that is used here"),
        ("seeds: " + "9" * 5000, "is no whole number, or too long for one"),
        ("seeds: " + "[" * 5000, "line 1: nested deeper than 30 levels"),
        (
            "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
            + "".join(f"{n}: &{n} [{', '.join([f'*{o}'] * 10)}]\n" for o, n in zip("abcde", "bcdef", strict=True)),
            "values",
        ),
        ("a: &a [1]\n" + "".join(f"{n}: &n{n} [*{'a' if n == 0 else f'n{n - 1}'}]\n" for n in range(100)), "30 levels"),
        ("a: &a [*a]", "holds more than"),
        ("<<: {a: 1}", "a key must be a plain name"),
        ("? [a]\n: b", "a key must be a plain name"),
        ('name: "\\uD800"', "half a character"),
        ('name: "\\UFFFFFFFF"', "out of range"),
        ("seeds: 2020-13-45", "seeds: Input should be a valid list (got '2020-13-45'); write whole numbers: [0, 1, 2]"),
    ],
)
def test_yaml_that_is_not_plain_is_refused_with_its_line(tmp_path: Any, text: str, said: str) -> None:
    file = tmp_path / "odd.yaml"
    defaults = "name: x\ndataset: digits\nmodel: lean\nattacks: [none]\ndefenses: [none]\n"
    file.write_text(text if "13-45" not in text else defaults + text)
    with pytest.raises(UserError) as error:
        load_grid(str(file))
    assert said in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(("override", "said"), [("2020-13-45", "valid list"), ("!!int ''", "no whole number"), ("[" * 3000, "30 levels")])
def test_an_override_is_read_as_strictly(override: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_grid("quickstart", {"seeds": override})


def test_anchors_may_be_used(tmp_path: Any) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text("name: x\ndataset: digits\nmodel: lean\nattacks: [none, badnets: &a {poison_rate: 0.1}, blend: *a]\ndefenses: [none]")
    assert [attack.instance.config.poison_rate for attack in resolve(load_grid(str(file)), HOST).attacks[1:]] == [0.1, 0.1]


MANY = [round(1 / number, 6) for number in range(1, 101)]
THOUSAND = [round(1 / number, 8) for number in range(1, 1001)]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"defenses": [{"chain": [{"fine-pruning": {"lr": MANY}}] * 5}]}, "10,000,000,000 defenses"),
        ({"attacks": [{"blend": {"alpha_train": THOUSAND, "alpha_test": THOUSAND}}]}, "1,000,000 attacks x 2 defenses"),
        ({"seeds": list(range(60_000))}, "a grid of 240,000 cells (2 attacks x 2 defenses x 60,000 seeds); use at most 200,000"),
        ({"defenses": [{"fine-pruning": {"lr": THOUSAND}}] * 120}, "120,000 defenses"),
    ],
)
def test_a_grid_without_end_is_refused_before_it_is_built(fields: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatecrash.planning.planned.prepare_dataset", lambda *_, **__: pytest.fail("decoded first"))
    plugin = HOST.get("attack", "blend")
    built: list[None] = []
    monkeypatch.setattr(type(plugin), "configure", lambda *_: built.append(None) or plugin.cls(plugin.cls.Config()))
    with pytest.raises(UserError) as error:
        plan_grid(parse_grid({**SMALL_GRID, **fields}), HOST)
    assert said in str(error.value)
    assert len(built) < 10


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"dataset": ["a", "b"]}, "grid: dataset: a grid has one dataset; write one grid for each"),
        ({"model": 3}, "grid: model: Input should be a valid string (got 3); write a name, or {name: {option: value}}"),
        ({"attacks": "badnets"}, "(got 'badnets'); for each attack write a name"),
        ({"model": "resnet50"}, "did you mean 'resnet20' or 'resnet18'? Or, if torchvision has it: {torchvision: {arch: resnet50}}"),
        ({"dataset": {"imagefolder": {"root": "a/" * 3000}}}, "dataset.imagefolder.root: 'a/a/"),
        ({"attacks": [{"blend": {"pattern": "given", "image": "a\0b"}}]}, "attacks[0].blend.image: 'a\\x00b': embedded null byte"),
        ({"attacks": ["x" * 5000]}, "unknown attack 'xxxx"),
        ({"recipe": {"epochs": 10**400}}, "recipe.epochs: Input should be less than or equal to 10000 (got a number of 1,329 bits)"),
    ],
)
def test_a_message_says_what_to_write(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        asked(**fields)
    assert said in str(error.value)
    assert len(str(error.value)) < 400


def test_a_misspelt_field_is_named_before_the_one_that_is_missing_for_it() -> None:
    fields = {("atacks" if name == "attacks" else name): value for name, value in SMALL_GRID.items()}
    with pytest.raises(UserError, match="grid: atacks: unknown field; did you mean 'attacks'"):
        parse_grid(fields)


def test_a_file_that_is_no_grid_is_refused_unread(tmp_path: Any) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "large.yaml").write_text("#" * 2**21)
    for name, said in (
        ("pipe.yaml", "it is not a regular file"),
        ("large.yaml", "it is larger than 1 MiB"),
        ("a" * 300 + ".yaml", "too long"),
    ):
        with pytest.raises(UserError, match=said):
            load_grid(str(tmp_path / name))
