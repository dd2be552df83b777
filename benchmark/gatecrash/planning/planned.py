"""From a grid to its plan: resolve the plugins, prepare the dataset, compute the keys."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from gatecrash.contracts.dataset import Progress
from gatecrash.datasets.description import described
from gatecrash.datasets.holdout import HoldoutConfig
from gatecrash.datasets.preparation import PreparedDataset, prepare_dataset
from gatecrash.host.host import Host
from gatecrash.planning.grid import Grid
from gatecrash.planning.plan import chosen_seeds, make_plan
from gatecrash.planning.references import with_datasets
from gatecrash.planning.resolve import resolve
from gatecrash.records.plan import Plan


@dataclass(frozen=True)
class PlannedGrid:
    """A plan with what is needed to run it. All that can be checked before running has been checked."""

    plan: Plan
    prepared: PreparedDataset
    host: Host
    datasets: Mapping[str, PreparedDataset] = field(default_factory=dict)
    """The second data sets that options name, by fingerprint."""

    @property
    def dataset_line(self) -> str:
        """Name and sizes of the dataset."""
        return f"{self.prepared.name}: {described(self.prepared, HoldoutConfig.model_validate(self.plan.holdout))}"


def plan_grid(
    grid: Grid,
    host: Host,
    *,
    only: Mapping[str, Collection[str]] | None = None,
    seeds: Iterable[int] | None = None,
    progress: Progress | None = None,
) -> PlannedGrid:
    """Resolve the grid, decode its datasets unless they are cached, and plan. Raises UserError; writes nothing but the dataset cache."""
    resolved = resolve(grid, host)
    seeds = chosen_seeds(resolved, seeds)  # a grid of too many cells is refused before images are decoded
    prepared = prepare_dataset(resolved.dataset.instance, progress=progress)
    resolved = with_datasets(resolved, prepared, host, progress)
    plan = make_plan(resolved, prepared, host, only=only, seeds=seeds)
    named = itertools.chain(resolved.attacks, *resolved.defenses)
    return PlannedGrid(plan, prepared, host, {found.fingerprint: found for plugin in named for found in plugin.datasets.values()})
