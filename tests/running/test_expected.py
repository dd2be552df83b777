"""What goes first: the longest, by what the store has measured."""

from __future__ import annotations

import heapq
from pathlib import Path
from typing import Any

import pytest

from gatecrash.host.loading import load_plugins
from gatecrash.planning.grid import parse_grid
from gatecrash.planning.planned import plan_grid
from gatecrash.records.plan import Cell, Plan
from gatecrash.records.timings import Timings, read_timings, save_timings
from gatecrash.running.expected import Expected
from gatecrash.running.run import run
from running.test_scheduling import Noting
from support.grids import SMALL_GRID

HOST = load_plugins([])
GTSRB = {"neural-cleanse": 707.0, "anp": 886.0, "activation-clustering": 1766.0}
"""Seconds of three cells on all of GTSRB, as one run measured them."""


def plan(**fields: Any) -> Plan:
    return plan_grid(parse_grid({**SMALL_GRID, **fields}), HOST).plan


def defended(made: Plan) -> dict[str, Cell]:
    """The cells of the attack, by defense."""
    return {cell.defense_title: cell for cell in made.cells.values() if cell.victim.attack.name == "badnets" and cell.baseline}


def makespan(seconds: list[float], workers: int = 2) -> float:
    """When the last task ends, if each starts as soon as a worker is free, in this order."""
    free = [0.0] * workers
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def test_the_longest_of_three_defenses_starts_first_even_where_nothing_was_measured() -> None:
    made = plan(defenses=["none", *GTSRB])
    cells, expected = defended(made), Expected(made, HOST, Timings())
    order = sorted(cells, key=lambda name: -expected.defense(cells[name]))
    assert order[0] == "activation-clustering", "it trains anew"
    assert makespan([GTSRB[name] for name in GTSRB]) == 2473  # as the grid has them; 2,526 with what lies between the tasks
    assert makespan([GTSRB[name] for name in order]) == 1766


def test_what_was_measured_is_expected_again() -> None:
    made = plan(defenses=["none", *GTSRB])
    cells, expected = defended(made), Expected(made, HOST, Timings())
    for name, seconds in GTSRB.items():
        assert expected.defended(cells[name], seconds), "an expectation that was a guess has moved"
        assert not expected.defended(cells[name], seconds * 1.01)
    assert {name: pytest.approx(expected.defense(cells[name]), rel=0.01) for name in cells} == GTSRB
    assert expected.longest_defense() == expected.defense(cells["activation-clustering"])


def test_on_another_model_a_defense_is_expected_to_take_as_many_times_its_victim() -> None:
    timings, made, other = Timings(), plan(defenses=["none", "anp"]), plan(defenses=["none", "anp"], model="lean")
    (cell,), (elsewhere,) = defended(made).values(), defended(other).values()
    known = Expected(made, HOST, timings)
    known.trained(cell.victim, 100.0)
    known.defended(cell, 130.0)
    expected = Expected(other, HOST, timings)
    assert expected.defense(elsewhere) == pytest.approx(1.3 * expected.victim(elsewhere.victim))
    expected.trained(elsewhere.victim, 1000.0)
    assert expected.defense(elsewhere) == pytest.approx(1300.0)
    assert known.defense(cell) == pytest.approx(130.0)


def test_a_run_keeps_its_times_and_the_next_one_starts_with_what_took_longest(tmp_path: Path) -> None:
    small = {**SMALL_GRID, "recipe": {"preset": "tiny", "epochs": 1}}
    defenses = ["none", "activation-pruning", {"fine-pruning": {"epochs": 1}}]
    first = run(parse_grid({**small, "defenses": defenses}), tmp_path, "serial")
    assert first.exit_code == 0
    timings = read_timings(tmp_path)
    (place,) = timings.places
    for kind, seconds in (("defend activation-pruning", 50.0), ("defend fine-pruning", 10.0)):
        timings.places[place][kind].seconds = seconds
    save_timings(tmp_path, timings)
    noting = Noting()
    run(parse_grid({**small, "defenses": defenses}), tmp_path, noting, seeds=[1])
    given = [title for title in noting.given if title.startswith("badnets \N{MULTIPLICATION SIGN}")]
    assert [title.split()[2] for title in given] == ["activation-pruning", "fine-pruning"]
    (tmp_path / "timings.json").write_text("{")
    assert run(parse_grid({**small, "defenses": defenses}), tmp_path, "serial").computed_cells == 0
    assert read_timings(tmp_path) == Timings()
