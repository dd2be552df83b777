"""What a run takes as there already."""

from __future__ import annotations

from pathlib import Path

from gatecrash.host.loading import load_plugins
from gatecrash.planning.planned import plan_grid
from gatecrash.records.store import Store
from gatecrash.running.display import Display
from gatecrash.running.ledger import Ledger
from gatecrash.running.options import RunOptions
from gatecrash.running.run import run
from support.small_runs import small


def test_a_run_that_makes_everything_again_makes_each_victim_once(tmp_path: Path) -> None:
    """The stored victim of an earlier run does not count; the one that this run made does, whoever asks for it again."""
    grid = small(attacks=["none"], defenses=["none"])
    run(grid, tmp_path)
    planned, store = plan_grid(grid, load_plugins()), Store(tmp_path)
    (victim,) = planned.plan.victims.values()
    stored = store.victim(victim.key)
    assert stored is not None
    ledger = Ledger(planned, store, RunOptions(rerun="all"), Display())
    assert not ledger.has_victim(victim.key)
    ledger.victim_made(victim, stored)
    assert ledger.has_victim(victim.key)
