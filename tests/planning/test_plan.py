"""Keys: what changes a result changes its key, and nothing else does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gatecrash.cli.options import parse_only
from gatecrash.errors import UserError
from gatecrash.host.loading import load_plugins
from gatecrash.planning.grid import parse_grid
from gatecrash.planning.planned import plan_grid
from gatecrash.records.plan import Plan
from support.grids import SMALL_GRID
from support.plugin_files import attack_file

HOST = load_plugins(installed=False)


def planned(host: Any = HOST, only: Any = None, seeds: Any = None, **fields: Any) -> Plan:
    return plan_grid(parse_grid({**SMALL_GRID, **fields}), host, only=only, seeds=seeds).plan


def by_title(plan: Plan) -> dict[str, str]:
    return {cell.title: cell.key for cell in plan.cells.values()}


def victims(plan: Plan) -> set[str]:
    return set(plan.victims)


def test_a_attacks_and_d_defenses_and_s_seeds_cost_a_times_s_trainings() -> None:
    plan = planned(seeds=[0, 1, 2], attacks=["none", "badnets", {"badnets": {"size": 2}}], defenses=["none", "fine-pruning"])
    assert len(plan.victims) == 3 * 3
    assert len(plan.cells) == 3 * 2 * 3


def test_none_is_a_row_and_a_column_of_every_grid() -> None:
    plan = planned(attacks=["badnets"], defenses=["fine-pruning"])
    assert [cell.title for cell in plan.cells.values()] == [
        "none × none (seed 0)",
        "none × fine-pruning (seed 0)",
        "badnets × none (seed 0)",
        "badnets × fine-pruning (seed 0)",
    ]


def test_keys_are_reproducible_and_independent_of_name_and_order() -> None:
    plan = planned()
    assert by_title(planned()) == by_title(plan)
    other = planned(name="other", attacks=["badnets", "none"], defenses=list(reversed(SMALL_GRID["defenses"])), seeds=[1, 0])
    assert by_title(plan).items() <= by_title(other).items()


@pytest.mark.parametrize(
    "fields",
    [
        {"dataset": {"digits": {"limit": 150, "limit_test": 60}}},
        {"model": {"small-cnn": {"width": 8}}},
        {"recipe": {"preset": "tiny", "epochs": 5}},
        {"holdout": {"fraction": 0.1}},
        {"seeds": [1]},
        {"attacks": ["none", {"badnets": {"size": 2}}]},
    ],
)
def test_what_changes_the_victim_changes_its_key(fields: dict[str, Any]) -> None:
    before, after = planned(), planned(**fields)
    changed = victims(before) - victims(after)
    assert changed == (
        {key for key, victim in before.victims.items() if victim.attack.name == "badnets"} if "attacks" in fields else victims(before)
    )


def test_a_defenses_option_changes_its_cells_only() -> None:
    before, after = planned(), planned(defenses=["none", {"fine-pruning": {"epochs": 2}}])
    assert victims(before) == victims(after)
    assert {cell.title for cell in before.cells.values() if cell.key not in after.cells} == {
        "none × fine-pruning (seed 0)",
        "badnets × fine-pruning (seed 0)",
    }


def test_writing_a_default_out_changes_nothing() -> None:
    assert by_title(planned(attacks=["none", {"badnets": {"size": 3, "alpha": 1.0}}])) == by_title(planned())


def test_a_new_version_of_a_plugin_changes_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    before = planned()
    monkeypatch.setattr(HOST.get("attack", "badnets").cls, "version", 99)
    after = planned()
    assert {victim.attack.name for key, victim in before.victims.items() if key not in after.victims} == {"badnets"}


def test_a_plugin_files_content_is_part_of_its_keys(write: Any) -> None:
    file = write("mine.py", attack_file())
    before = planned(load_plugins([file]), attacks=["mine"])
    file.write_text(file.read_text() + "\n# edited\n")
    after = planned(load_plugins([file]), attacks=["mine"])
    assert len(victims(before) & victims(after)) == 1  # the benign one


def test_an_image_file_enters_by_content_not_by_name(tmp_path: Path) -> None:
    from PIL import Image

    first, second, third = (tmp_path / name for name in ("first.png", "second.png", "third.png"))
    Image.new("L", (3, 3), 255).save(first)
    second.write_bytes(first.read_bytes())
    Image.new("L", (3, 3), 10).save(third)

    def key(path: Path) -> set[str]:
        return victims(planned(attacks=[{"badnets": {"pattern": "given", "image": str(path)}}]))

    assert key(first) == key(second) != key(third)


def test_only_keeps_what_was_asked_and_what_it_depends_on() -> None:
    plan = planned(seeds=[0, 1], only=parse_only(("attack=badnets", "defense=fine-pruning")))
    assert [cell.title for key, cell in plan.cells.items() if key in plan.selected] == [
        "badnets × fine-pruning (seed 0)",
        "badnets × fine-pruning (seed 1)",
    ]
    assert {cell.title for cell in plan.cells.values()} == {
        "badnets × none (seed 0)",
        "badnets × none (seed 1)",
        "badnets × fine-pruning (seed 0)",
        "badnets × fine-pruning (seed 1)",
    }
    assert len(plan.victims) == 4  # the benign ones too: they give the floor


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"attacks": [{"badnets": {"target": 10}}]}, "target class 10 does not exist; the dataset has classes 0 to 9"),
        ({"attacks": [{"badnets": {"poison_rate": 1e-4}}]}, "poison_rate 0.0001 of .* images is none; use at least"),
        ({"attacks": [{"badnets": {"poison_rate": 0.99}}]}, "can be poisoned; use at most 0.9"),
        ({"attacks": [{"badnets": {"size": 17}}]}, "a 17x17 patch at bottom-right with inset 0 does not fit"),
        ({"model": "lean", "dataset": {"imagefolder": {"root": "/nonexistent"}}}, "/nonexistent"),
        ({"defenses": [{"chain": ["none", "fine-pruning"]}]}, "'none' is no stage of a chain"),
        (
            {"defenses": [{"chain": [{"fine-pruning": {}, "when": "accused"}]}]},
            "fine-pruning runs when the model is accused, but no stage before it gives a verdict; put a defense that gives one in front",
        ),
        ({"defenses": [{"chain": ["goodnet", "fine-pruning"]}]}, "goodnet gives a rejecting classifier, which fine-pruning cannot take"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        planned(**fields)
    assert "\n" not in str(error.value)


def test_a_condition_is_part_of_the_key_and_of_the_name() -> None:
    always, accused = ["neural-cleanse", "fine-pruning"], ["neural-cleanse", {"fine-pruning": {}, "when": "accused"}]
    both = by_title(planned(defenses=[{"chain": always}, {"chain": accused}]))
    assert both["badnets × neural-cleanse + fine-pruning (seed 0)"] == alone(always)
    assert both["badnets × neural-cleanse + fine-pruning (fine-pruning when=accused) (seed 0)"] == alone(accused) != alone(always)


def alone(chain: list[Any]) -> str:
    """The key of this defense in a grid of its own."""
    return by_title(planned(defenses=[{"chain": chain}]))["badnets × neural-cleanse + fine-pruning (seed 0)"]


def test_a_chain_stays_open_to_repairs_behind_a_detector_of_inputs() -> None:
    assert planned(defenses=[{"chain": ["strip", "fine-pruning"]}]).cells


def test_a_filter_for_something_that_the_grid_has_not_is_refused() -> None:
    with pytest.raises(UserError, match="the grid has no such attack; it has badnets, none"):
        planned(only={"attack": {"blend"}})
    with pytest.raises(UserError, match="write attack=NAME"):
        parse_only(("badnets",))


def test_planning_code_imports_neither_torch_nor_ray() -> None:
    code = "import sys, gatecrash.planning.plan, gatecrash.planning.grid, "
    code += "gatecrash.records.store, gatecrash.records.result, gatecrash.datasets.preparation; "
    code += "sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
