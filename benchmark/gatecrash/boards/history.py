"""The recorded runs of a store, and which of its results are those of the newest run of each grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from gatecrash.boards.spec import table_group
from gatecrash.records.result import Result
from gatecrash.records.runs import AskedCell, Run


@dataclass(frozen=True)
class History:
    """Runs, the oldest first."""

    runs: Sequence[Run]

    @cached_property
    def grids(self) -> frozenset[str]:
        return frozenset(run.grid for run in self.runs)

    @cached_property
    def run_of(self) -> dict[str, int]:
        """Number of the last run that asked for a cell, by key."""
        return {key: number for number, run in enumerate(self.runs) for key, *_ in run.cells}

    @cached_property
    def asked(self) -> dict[str, AskedCell]:
        """Every cell that a run asked for, by key."""
        return {cell.key: cell for run in self.runs for cell in run.asked()}

    def newest(self, grid: str) -> list[Run]:
        """The newest run of a grid. A partial one counts together with those of the same setting before it, back to one of the whole grid.

        A setting is a dataset, model, recipe and hold-out.
        """
        mine = [run for run in reversed(self.runs) if run.grid == grid]
        together = [run for run in mine if table_group(run) == table_group(mine[0])]
        whole = next((index for index, run in enumerate(together) if not run.partial), len(together))
        return together[whole::-1] if whole < len(together) else together[::-1]

    def of_newest(self, results: Iterable[Result], grid: str) -> list[Result]:
        """The results of a grid's newest run; of a grid that has no recorded run, or only partial ones, those of older versions too."""
        if grid not in self.grids:
            return [result for result in results if result.grid == grid]
        runs = self.newest(grid)
        keys = {key for run in runs for key, *_ in run.cells}
        unrecorded = table_group(runs[0]) if all(run.partial for run in runs) else None
        return [
            result
            for result in results
            if result.key in keys or (result.grid == grid and result.key not in self.run_of and table_group(result) == unrecorded)
        ]
