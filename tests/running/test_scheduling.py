"""Which task runs when, and what a display is told of it: seen by an executor that notes what it is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gatecrash.planning.grid import Grid, parse_grid
from gatecrash.records.result import Result
from gatecrash.records.store import Store
from gatecrash.running.display import Display
from gatecrash.running.options import RunOptions
from gatecrash.running.run import run, serial
from gatecrash.running.tasks.protocol import Executor, Failure, Finished, Task
from support.grids import SMALL_GRID


def grid(**fields: Any) -> Grid:
    return parse_grid({**SMALL_GRID, "model": {"small-cnn": {"width": 4}}, "recipe": {"preset": "tiny", "epochs": 2}, **fields})


class Noting:
    """The serial executor with room for several tasks; works on the last or the first of those it holds."""

    def __init__(self, capacity: int = 1, last_first: bool = False, before: Callable[[Task], None] | None = None) -> None:
        self.capacity, self._last_first, self._before = capacity, last_first, before
        self.given: list[str] = []
        self._held: list[Task] = []

    def __call__(self, *arguments: Any) -> Executor:
        self._serial = serial(*arguments)
        return self

    def submit(self, task: Task) -> None:
        self._held.append(task)
        self.given.append(task.title)
        assert len(self._held) <= self.capacity

    def next_finished(self, timeout: float) -> Finished | None:
        if not self._held:
            return None
        task = self._held.pop(-1 if self._last_first else 0)
        if self._before is not None:
            self._before(task)
        self._serial.submit(task)
        return self._serial.next_finished(timeout)

    def cancel(self, task_id: str) -> None:
        self._held = [task for task in self._held if task.id != task_id]

    def close(self) -> None:
        self._serial.close()


class Told(Display):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def run_started(self, plan: Any, victims: int, cells: int) -> None:
        self.events.append(("run", len(plan.cells), victims, cells))

    def task_started(self, task_id: str, title: str) -> None:
        self.events.append(("started", title))

    def task_ended(self, task_id: str, title: str, failure: str | None, seconds: float) -> None:
        assert seconds > 0
        self.events.append(("ended", title, failure))

    def victim_ended(self, failed: bool) -> None:
        self.events.append(("victim", failed))

    def cell_ended(self, result: Result) -> None:
        self.events.append(("cell", result.attack.name, result.defense_name, result.status))


def test_victims_come_first_and_what_is_finished_is_scored_at_once(tmp_path: Path) -> None:
    noting = Noting()
    assert run(grid(), tmp_path / "s", noting).exit_code == 0
    assert noting.given == [
        "train none (seed 0)",
        "evaluate none × none (seed 0)",
        "train badnets (seed 0)",
        "evaluate badnets × none (seed 0)",
        "none × fine-pruning (seed 0)",
        "evaluate none × fine-pruning (seed 0)",
        "badnets × fine-pruning (seed 0)",
        "evaluate badnets × fine-pruning (seed 0)",
    ]


def test_the_executor_is_kept_full_and_never_given_more_than_it_holds(tmp_path: Path) -> None:
    noting = Noting(capacity=3)
    assert run(grid(seeds=[0, 1]), tmp_path / "s", noting).exit_code == 0
    assert noting.given[:3] == ["train none (seed 0)", "train none (seed 1)", "train badnets (seed 0)"]


def test_an_attack_is_scored_only_after_the_benign_victim_that_gives_its_floor(tmp_path: Path) -> None:
    noting = Noting(capacity=8, last_first=True)
    summary = run(grid(), tmp_path / "s", noting)
    assert summary.exit_code == 0
    assert noting.given[:2] == ["train none (seed 0)", "train badnets (seed 0)"]
    assert all(result.measures.asr_floor is not None for result in summary.results.values() if result.attack.name == "badnets")


def test_the_numbers_do_not_depend_on_the_order_of_work(tmp_path: Path) -> None:
    one = run(grid(), tmp_path / "a", Noting())
    other = run(grid(), tmp_path / "b", Noting(capacity=8, last_first=True))
    assert {key: result.measures.scores for key, result in one.results.items()} == {
        key: result.measures.scores for key, result in other.results.items()
    }


def test_a_display_is_told_of_every_task_victim_and_cell(tmp_path: Path) -> None:
    told = Told()
    run(grid(attacks=["none"]), tmp_path / "s", Noting(), display=told)
    assert told.events == [
        ("run", 2, 1, 2),
        ("started", "train none (seed 0)"),
        ("ended", "victim none (seed 0)", None),
        ("victim", False),
        ("started", "evaluate none × none (seed 0)"),
        ("ended", "none × none (seed 0)", None),
        ("cell", "none", "none", "ok"),
        ("started", "none × fine-pruning (seed 0)"),
        ("ended", "none × fine-pruning (seed 0)", None),
        ("started", "evaluate none × fine-pruning (seed 0)"),
        ("ended", "none × fine-pruning (seed 0)", None),
        ("cell", "none", "fine-pruning", "ok"),
    ]


def test_a_defense_whose_cell_is_lost_while_it_runs_is_stopped_and_said_to_have_ended(tmp_path: Path) -> None:
    """The cell without defense fails while the defense that is compared with it runs."""

    class Failing(Noting):
        def next_finished(self, timeout: float) -> Finished | None:
            for task in self._held:
                if task.title == "evaluate none × none (seed 0)" and len(self._held) > 1:
                    self._held.remove(task)
                    return Finished(task.id, failure=Failure("error", "out of luck"))
            return super().next_finished(timeout)

        def cancel(self, task_id: str) -> None:
            cancelled.append(task_id)
            super().cancel(task_id)

    cancelled: list[str] = []
    told, failing = Told(), Failing(capacity=8)
    summary = run(grid(attacks=["none"]), tmp_path / "s", failing, display=told)
    assert {result.status for result in summary.results.values()} == {"failed"}
    assert failing.given[-1] == "none × fine-pruning (seed 0)"
    assert failing._held == []
    assert cancelled == [f"defend:{key}" for key, result in summary.results.items() if result.defense_name == "fine-pruning"]
    started, ended = ([event for event in told.events if event[0] == kind] for kind in ("started", "ended"))
    assert len(started) == len(ended) == 3
    assert ("ended", "none × fine-pruning (seed 0)", None) in ended


def test_what_another_driver_finishes_meanwhile_is_taken_over(tmp_path: Path) -> None:
    """While this driver trains its first victim, another one computes the whole grid for two other seeds."""
    told = Told()

    def other(task: Task) -> None:
        if not finished:
            finished.append(run(grid(seeds=[1, 2]), tmp_path / "s", "serial"))

    finished: list[Any] = []
    summary = run(grid(seeds=[0, 1, 2]), tmp_path / "s", Noting(before=other), display=told)
    assert finished[0].exit_code == summary.exit_code == 0
    assert (summary.computed_victims, summary.computed_cells) == (2, 4)
    assert len(summary.results) == len(list(Store(tmp_path / "s").results())) == 12
    assert sum(event[0] == "cell" for event in told.events) == 12
    assert sum(event[0] == "victim" for event in told.events) == 6


def test_what_was_taken_over_is_free_for_other_drivers_while_this_one_goes_on(tmp_path: Path) -> None:
    """A driver that plans the same seed would otherwise wait for the end of this run."""
    store, finished, held = Store(tmp_path / "s"), [], {}

    def look(task: Task) -> None:
        if not finished:
            finished.append(run(grid(attacks=["none"], seeds=[1]), store.root, "serial"))
        keys = [*finished[0].plan.victims, *finished[0].plan.cells]
        held[task.title] = [key for key in keys if not store.claim(key)]
        for key in keys:
            store.release(key)

    summary = run(grid(attacks=["none"], seeds=[0, 1]), store.root, Noting(before=look))
    assert (summary.computed_victims, summary.computed_cells) == (1, 2)
    assert list(held)[-1] == "evaluate none × fine-pruning (seed 0)"
    assert not any(held.values())


def test_an_attack_that_starts_from_the_benign_victim_is_given_it(tmp_path: Path) -> None:
    given: dict[str, Any] = {}
    noting = Noting(before=lambda task: given.update({task.title: task.arguments.get("benign")}))
    summary = run(grid(attacks=["none", "clean-label"], defenses=["none"]), tmp_path / "s", noting)
    benign = next(victim.key for victim in summary.plan.victims.values() if victim.attack.name == "none")
    assert summary.exit_code == 0
    assert given["train none (seed 0)"] is None
    assert given["train clean-label (seed 0)"].key == f"victim:{benign}"


def test_an_attack_that_needs_the_benign_victim_is_lost_with_it(tmp_path: Path) -> None:
    """A recipe that diverges: the benign victim fails, so the attack that starts from it never runs, and each cell says why."""
    told = Told()
    noting = Noting()
    diverging = {"preset": "tiny", "epochs": 10, "lr": 100.0, "weight_decay": 1.0, "schedule": "constant"}
    made = grid(attacks=["none", "clean-label"], recipe=diverging)
    summary = run(made, tmp_path / "s", noting, display=told)
    assert summary.exit_code == 1
    assert noting.given == ["train none (seed 0)"]
    assert {result.status for result in summary.results.values()} == {"victim-failed"}
    assert len(summary.results) == 4
    assert [event for event in told.events if event[0] == "victim"] == [("victim", True), ("victim", True)]
    for result in summary.results.values():
        assert ("benign victim failed: " in (result.error or "")) == (result.attack.name != "none"), result.error


def test_the_cells_of_an_attack_say_that_the_benign_victim_failed_that_gives_their_floor(tmp_path: Path) -> None:
    """The attack's own victim is sound. Its cells end with the benign one, whose loss is not called theirs."""

    class Failing(Noting):
        def next_finished(self, timeout: float) -> Finished | None:
            for task in self._held:
                if task.title == "train none (seed 0)" and len(self._held) == 1:
                    self._held.remove(task)
                    return Finished(task.id, failure=Failure("error", "the loss is nan"))
            return super().next_finished(timeout)

    summary = run(grid(), tmp_path / "s", Failing(capacity=8, last_first=True))
    assert summary.computed_victims == 1
    errors = {(result.attack.name, result.defense_name): result.error for result in summary.results.values()}
    assert errors == {
        ("none", "none"): "the loss is nan",
        ("none", "fine-pruning"): "the loss is nan",
        ("badnets", "none"): "its benign victim failed: the loss is nan",
        ("badnets", "fine-pruning"): "its benign victim failed: the loss is nan",
    }


@pytest.mark.parametrize(("rerun", "victims", "cells"), [(None, 0, 0), ("cells", 0, 4), ("all", 2, 4)])
def test_rerun_says_what_is_computed_again(tmp_path: Path, rerun: Any, victims: int, cells: int) -> None:
    run(grid(), tmp_path / "s", Noting())
    summary = run(grid(), tmp_path / "s", Noting(), options=RunOptions(rerun=rerun))
    assert (summary.computed_victims, summary.computed_cells) == (victims, cells)
    assert summary.exit_code == 0


def test_locks_are_given_back(tmp_path: Path) -> None:
    run(grid(), tmp_path / "s", Noting())
    assert list((tmp_path / "s" / "locks").iterdir()) == []
