"""What a run keeps in memory for its next tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatecrash.host.loading import load_plugins
from gatecrash.planning.grid import parse_grid
from gatecrash.planning.planned import plan_grid
from gatecrash.records.store import Store
from gatecrash.records.victim import StoredVictim
from gatecrash.running.inputs import VICTIMS, Inputs
from gatecrash.running.options import RunOptions
from gatecrash.running.run import run
from support.grids import SMALL_GRID


def test_a_victim_is_read_once_while_it_is_among_the_last_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = parse_grid({**SMALL_GRID, "defenses": ["none"], "seeds": [0, 1, 2]})
    run(grid, tmp_path)
    read: list[str] = []
    from_store = Store.victim

    def counted(self: Store, key: str) -> StoredVictim | None:
        read.append(key)
        return from_store(self, key)

    monkeypatch.setattr(Store, "victim", counted)
    planned = plan_grid(grid, load_plugins())
    inputs, keys = Inputs(planned, Store(tmp_path), RunOptions()), list(planned.plan.victims)
    assert len(keys) == VICTIMS + 2
    for key in (*keys[:VICTIMS], keys[0], keys[VICTIMS], keys[0], keys[1]):  # the second is the one that was not used for longest
        assert inputs.victim(key) is not None
    assert read == [*keys[:VICTIMS], keys[VICTIMS], keys[1]]


def test_a_victim_that_is_not_there_is_looked_for_again(tmp_path: Path) -> None:
    planned = plan_grid(parse_grid(SMALL_GRID), load_plugins())
    inputs, key = Inputs(planned, Store(tmp_path / "empty"), RunOptions()), next(iter(planned.plan.victims))
    assert inputs.victim(key) is None
    run(parse_grid({**SMALL_GRID, "attacks": ["none"], "defenses": ["none"]}), tmp_path / "empty")
    assert inputs.victim(key) is not None
