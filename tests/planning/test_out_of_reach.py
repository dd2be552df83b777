"""Poison rates that a dataset cannot give: one of several makes cells not applicable, one that stands alone is a wrong request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from gatecrash.boards.spec import grid_of
from gatecrash.boards.verify import verify
from gatecrash.cli import group
from gatecrash.errors import UserError
from gatecrash.host.loading import load_plugins
from gatecrash.planning.grid import load_grid, parse_grid
from gatecrash.planning.planned import plan_grid
from gatecrash.planning.resolve import resolve
from gatecrash.records.plan import Plan
from gatecrash.records.store import Store
from gatecrash.running.run import run
from support.boards import leaderboard_text
from support.grids import SMALL_GRID
from support.small_runs import small

HOST = load_plugins(installed=False)
ATTACKS = [{"badnets": {"poison_rate": [0.0001, 0.05, 0.99]}}]
"""Of 150 images: none, eight, and more than there are of other classes than the target's."""


def planned(attacks: list[Any], **fields: Any) -> Plan:
    return plan_grid(parse_grid({**SMALL_GRID, "attacks": attacks, **fields}), HOST).plan


def reasons(plan: Plan) -> dict[str, str]:
    return {victim.title: victim.out_of_reach for victim in plan.victims.values() if victim.out_of_reach}


def test_a_rate_among_others_is_out_of_reach_with_its_reason():
    plan = planned(ATTACKS)
    found = reasons(plan)
    assert set(found) == {"badnets (poison_rate=0.0001)", "badnets (poison_rate=0.99)"}
    assert "is none; use at least" in found["badnets (poison_rate=0.0001)"]
    assert "can be poisoned; use at most" in found["badnets (poison_rate=0.99)"]
    assert [note for note in plan.notes if note.endswith("(not applicable)")] == [f"{reason} (not applicable)" for reason in found.values()]


def test_the_keys_of_the_others_are_those_of_a_grid_without_it():
    alone = planned([{"badnets": {"poison_rate": 0.05}}])
    assert alone.cells.keys() < planned(ATTACKS).cells.keys()
    assert not any(alone.cells[key].victim.out_of_reach for key in alone.cells)


def test_more_than_the_class_of_a_clean_label_attack_holds():
    plan = planned(["none", {"clean-label": {"poison_rate": [0.02, 0.5]}}, "badnets"])
    assert list(reasons(plan)) == ["clean-label (poison_rate=0.5)"]


@pytest.mark.parametrize(
    ("attacks", "message"),
    [
        ([{"badnets": {"poison_rate": 0.99}}], "can be poisoned; use at most"),
        ([{"badnets": {"poison_rate": [0.98, 0.99]}}], "can be poisoned; use at most"),
        ([{"badnets": {"poison_rate": 0.99}}, "blend"], "badnets: poison_rate 0.99"),  # another attack's rate does not excuse it
        ([{"badnets": {"poison_rate": [0.05, 1.5]}}], "less than or equal to 1"),
        ([{"badnets": {"poison_rates": [0.05, 0.1]}}], "did you mean"),
        ([{"badnets": {"poison_rate": 0.05, "target": [0, 77]}}], "77"),
    ],
)
def test_what_can_be_no_part_of_a_ladder_is_refused(attacks: list[Any], message: str):
    with pytest.raises(UserError, match=message):
        planned(attacks)


def test_such_cells_are_not_applicable_and_cost_nothing(tmp_path: Path):
    grid = small(attacks=ATTACKS, recipe={**SMALL_GRID["recipe"], "epochs": 1}, defenses=["none", "activation-clustering"])
    first = run(grid, tmp_path)
    assert (first.exit_code, first.computed_victims) == (0, 2)
    lost = [result for result in first.results.values() if result.attack.config.get("poison_rate") in {0.0001, 0.99}]
    assert {result.status for result in lost} == {"not-applicable"}
    assert all("poison_rate" in (result.error or "") for result in lost)
    assert len(lost) == 4
    assert (run(grid, tmp_path).computed_cells, len(list(Store(tmp_path).results()))) == (0, len(first.results))
    text = leaderboard_text(list(first.results.values())).replace("\\_", "_")
    assert "badnets (poison_rate=0.99) × none, seed 0: not-applicable: badnets: poison_rate 0.99 asks for" in text
    alone = lost[-1]
    with pytest.raises(UserError, match="poison_rate"):  # a published cell is checked by itself
        plan_grid(parse_grid(grid_of([alone])), HOST)
    assert verify(alone, Store(tmp_path / "other"), HOST).outcome == "equal"
    assert verify(alone.model_copy(update={"error": "no reason"}), Store(tmp_path / "other"), HOST).outcome == "differs"


def test_a_run_of_the_command_line_ends_well_and_draws_the_curve(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    grid = {**SMALL_GRID, "recipe": {**SMALL_GRID["recipe"], "epochs": 1}, "defenses": ["none"]}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump({**grid, "attacks": [{"badnets": {"poison_rate": [0.01, 0.1, 0.99]}}]}))

    def gatecrash(*words: str) -> None:
        group.main([*words, "--store", str(tmp_path / "store")], prog_name="gatecrash", standalone_mode=False)

    gatecrash("run", str(tmp_path / "grid.yaml"), "--executor", "serial")
    capsys.readouterr()
    gatecrash("results", "--format", "json")
    assert [record["status"] for record in json.loads(capsys.readouterr().out)].count("not-applicable") == 1
    gatecrash("plot", "rates", "--output", str(tmp_path / "rates.png"))
    assert (tmp_path / "rates.png").stat().st_size > 10_000


def test_the_ladder_goes_from_a_thousandth_to_a_tenth():
    rates: dict[str, list[float]] = {}
    for attack in resolve(load_grid("ladder"), HOST).attacks:
        rates.setdefault(attack.name, []).append(getattr(attack.instance.config, "poison_rate", 0.0))
    assert rates.pop("none") == [0.0]
    assert all(values == [0.001, 0.005, 0.01, 0.05, 0.1] for values in rates.values())
    assert {"badnets", "blend", "clean-label"} <= rates.keys()
