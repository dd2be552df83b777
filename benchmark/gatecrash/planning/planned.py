"""A grid on its dataset: resolved, decoded, planned."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from gatecrash.contracts.dataset import Progress
from gatecrash.datasets.preparation import PreparedDataset, prepare_dataset
from gatecrash.host.host import Host
from gatecrash.planning.grid import Grid
from gatecrash.planning.plan import make_plan
from gatecrash.planning.resolve import resolve
from gatecrash.records.plan import Plan


@dataclass(frozen=True)
class PlannedGrid:
    """A grid that has been checked whole: nothing in it can be wrong any more, as far as can be known before running."""

    plan: Plan
    prepared: PreparedDataset
    host: Host


def plan_grid(
    grid: Grid,
    host: Host,
    *,
    only: Mapping[str, Collection[str]] | None = None,
    seeds: Iterable[int] | None = None,
    progress: Progress | None = None,
) -> PlannedGrid:
    """Resolve the grid, decode its dataset unless that is cached, and plan. Raises UserError; writes nothing but the dataset cache."""
    resolved = resolve(grid, host)
    prepared = prepare_dataset(resolved.dataset.instance, progress=progress)
    return PlannedGrid(make_plan(resolved, prepared, host, only=only, seeds=seeds), prepared, host)
