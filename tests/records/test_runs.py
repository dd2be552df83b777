"""Runs of a store: what each asked for, in which order, and that damage costs no more than the damaged file."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatecrash.errors import UserError
from gatecrash.host.loading import load_plugins
from gatecrash.planning.planned import plan_grid
from gatecrash.records.runs import Run, save_run, stored_runs
from support.small_runs import small

PLAN = plan_grid(small(), load_plugins(installed=False)).plan


def test_a_run_tells_the_cells_of_its_plan(tmp_path: Path) -> None:
    save_run(tmp_path, Run.of(PLAN, partial=True))
    (run,) = stored_runs(tmp_path)
    assert (run.grid, run.partial, run.dataset_fingerprint) == ("small", True, PLAN.fingerprint)
    asked = {cell.key: (cell.attack, cell.defense, cell.seed) for cell in run.asked()}
    assert asked == {key: (cell.victim.attack, cell.defense, cell.victim.seed) for key, cell in PLAN.cells.items()}


def test_runs_are_in_the_order_of_their_dates_and_damaged_ones_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = Run.of(PLAN)
    for day in (3, 1, 2):
        save_run(tmp_path, run.model_copy(update={"date": f"2026-01-0{day}T00:00:00.000000+00:00"}))
    sorted((tmp_path / "runs").iterdir())[1].write_text("{}")
    assert [run.date[9] for run in stored_runs(tmp_path)] == ["1", "3"]
    assert "is damaged" in caplog.text


def test_a_store_of_an_older_version_has_no_runs_and_a_newer_ones_are_refused(tmp_path: Path) -> None:
    assert stored_runs(tmp_path) == []
    save_run(tmp_path, Run.of(PLAN).model_copy(update={"schema_version": 99}))
    with pytest.raises(UserError, match="newer Gatecrash"):
        stored_runs(tmp_path)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write .*choose another store"):
        save_run(tmp_path, Run.of(PLAN))
