"""Which results are shown: those of a store or of a published board, all or those of one grid. Importing this does not import torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatecrash.boards.history import History
from gatecrash.boards.panel import Panel, arrange
from gatecrash.boards.spec import table_group
from gatecrash.boards.superseded import table_position
from gatecrash.contracts.recipe import PRESETS
from gatecrash.errors import UserError, did_you_mean
from gatecrash.host.host import Host
from gatecrash.host.loading import load_plugins
from gatecrash.planning.grid import is_grid_file, load_grid, shipped_grids
from gatecrash.planning.planned import plan_grid
from gatecrash.records.labels import labels
from gatecrash.records.plan import Plan
from gatecrash.records.result import Result
from gatecrash.records.runs import AskedCell, Run, stored_runs
from gatecrash.records.stage import Stage
from gatecrash.records.store import Store, default_store

if TYPE_CHECKING:
    from gatecrash.boards.published import Boards


@dataclass(frozen=True)
class ResultGroup:
    """Results that can stand in one table: one dataset, model, recipe and hold-out."""

    title: str
    """Dataset, model and recipe, and the start of the dataset's fingerprint; unique among the groups of one source."""
    results: tuple[Result, ...]
    asked: tuple[AskedCell, ...] = ()
    """Cells that the shown runs asked for, with or without results."""
    run_of: Mapping[str, int] = field(default_factory=dict)
    """Number of the last run that asked for a cell, by key."""

    @cached_property
    def panel(self) -> Panel:
        return arrange(self.results, self.asked, self.run_of)

    @property
    def missing(self) -> int:
        """How many of the cells that were asked for have no result."""
        return len({cell.key for cell in self.asked} - {result.key for result in self.results})


@dataclass(frozen=True)
class ResultSource:
    """Where results are read from: a store or, with `board`, a published board. Of a store these are the results of

    - the newest run of every grid, and all of grids whose runs were not recorded;
    - with `grid`, the newest run of the grid of that name or, for a YAML file and a shipped grid that was not run, exactly its cells;
    - with `all_runs`, earlier runs too.
    """

    store_path: Path | None = None
    board: str | None = None
    boards_path: Path | None = None
    grid: str | None = None
    plugin_paths: tuple[Path, ...] = ()
    all_runs: bool = False

    @cached_property
    def store(self) -> Store:
        """By default $GATECRASH_STORE, else ./gatecrash-store. Raises UserError where there is none."""
        root = self.store_path if self.store_path is not None else default_store()
        if not root.exists():
            raise UserError(f"no store at {root}; run a grid first (gatecrash run quickstart), or choose another with --store")
        store = Store(root)
        store.check()
        if not (root / "store.json").exists() and next((root / "results").glob("*/*.json"), None) is not None:
            # read as a store, its files would all count as damaged
            raise UserError(f"{root} is a folder of published boards, not a store; name a board of it with --boards {root}")
        return store

    @cached_property
    def boards(self) -> Boards:
        """The folder of published boards, by default leaderboards/. Raises UserError where there is none."""
        from gatecrash.boards.published import Boards, default_boards

        return Boards(self.boards_path if self.boards_path is not None else default_boards())

    @cached_property
    def host(self) -> Host:
        return load_plugins(self.plugin_paths)

    @property
    def pictures(self) -> Path:
        """The folder below which the results' pictures lie."""
        return self.store.root if self.board is None else self.boards.folder(self.board)

    def check(self) -> None:
        """Raise UserError for options that exclude or need each other."""
        if self.board is not None and (self.store_path is not None or self.grid is not None):
            raise UserError("a board is a published one; leave --store and --grid out")
        if self.board is not None and self.all_runs:
            raise UserError("a board has no runs; leave --all-runs out")
        if self.boards_path is not None and self.board is None:
            raise UserError("--boards needs the name of a BOARD")

    def results(self) -> list[Result]:
        """By attack, defense and seed; empty only for a store without results. Raises UserError, also for an unknown board or grid."""
        return self._selected[0]

    @property
    def runs(self) -> list[Run]:
        """The runs whose results these are, the oldest first; those that were recorded, or the one of the YAML file."""
        return self._selected[1]

    @property
    def hidden(self) -> int:
        """How many results of the store, or of the grid of that name, are left out because they are of earlier runs."""
        if self.board is not None or self.all_runs or "_selected" not in vars(self):
            return 0
        shown = {result.key for result in self._selected[0]}
        among = [result for result in self._all if self.grid is None or result.grid == self.grid]
        return sum(result.key not in shown for result in among)

    def groups(self) -> list[ResultGroup]:
        """The results by what can stand in one table, ordered by title. Raises UserError, also where there are none."""
        groups: dict[tuple[str, ...], list[Result]] = {}
        for result in self.results():
            groups.setdefault(table_group(result), []).append(result)
        if not groups:
            raise UserError(f"the store {self.store.root} has no results yet; run a grid first (gatecrash run quickstart)")
        asked = {group: [cell for run in self.runs if table_group(run) == group for cell in run.asked()] for group in groups}
        run_of = {} if self.board is not None else self._history.run_of
        titles = dict(zip(groups, titles_of([results[0] for results in groups.values()]), strict=True))
        return [
            ResultGroup(titles[group], tuple(groups[group]), tuple(asked[group]), run_of)
            for group in sorted(groups, key=titles.__getitem__)
        ]

    def panel(self) -> Panel:
        """All results as one panel. Raises UserError where they cannot stand in one table."""
        groups = self.groups()
        if len(groups) > 1:
            grids = ", ".join(sorted({result.grid for group in groups for result in group.results}))
            raise UserError(
                f"the results are of several datasets, models or recipes; choose one with --grid ({grids}), "
                "which may be the YAML file of a grid too"
            )
        return groups[0].panel

    def cells(self, plan: Plan) -> dict[str, Result | None]:
        """The store's results of the planned cells by key, in the plan's order; None for a cell without result."""
        found = {key: self.store.result(key) for key in plan.cells}
        filled = self._with_traits([result for result in found.values() if result is not None])
        return {**found, **{result.key: result for result in filled}}

    @cached_property
    def planned(self) -> Run | None:
        """What the grid asks for, if it is a YAML file or a shipped grid without a recorded run; else None."""
        named = self.grid is not None and (is_grid_file(self.grid) or (self.grid in shipped_grids() and self.grid not in self._known_grids))
        return Run.of(plan_grid(load_grid(str(self.grid)), self.host).plan) if named else None

    @cached_property
    def _all(self) -> list[Result]:
        """Of the store; what files held is filled in where only the run that asked for a cell says so."""
        return [_with_content(result, self._history.asked.get(result.key)) for result in self.store.results()]

    @cached_property
    def _history(self) -> History:
        return History(stored_runs(self.store.root))

    @property
    def _known_grids(self) -> set[str]:
        return {result.grid for result in self._all} | self._history.grids

    @cached_property
    def _selected(self) -> tuple[list[Result], list[Run]]:
        """Results, and the runs that asked for them."""
        self.check()
        if self.board is not None:
            found, runs = self.boards.results(self.board), list[Run]()
        elif not self._all:
            found, runs = [], []
        else:
            found, runs = self._of_store() if self.grid is None else self._of_grid(self.grid)
        return sorted(self._with_traits(found), key=lambda result: (table_position(result), result.key)), runs

    def _of_store(self) -> tuple[list[Result], list[Run]]:
        if self.all_runs:
            return self._all, list(self._history.runs)
        keys = {result.key for grid in self._known_grids for result in self._history.of_newest(self._all, grid)}
        runs = [run for grid in sorted(self._history.grids) for run in self._history.newest(grid)]
        return [result for result in self._all if result.key in keys], runs

    def _of_grid(self, grid: str) -> tuple[list[Result], list[Run]]:
        if self.planned is not None:
            keys, runs = {cell.key for cell in self.planned.asked()}, [self.planned]
            hint = f"run `gatecrash run {grid}`"
        elif self.all_runs:
            runs = [run for run in self._history.runs if run.grid == grid]
            keys = {cell.key for run in runs for cell in run.asked()} | {result.key for result in self._all if result.grid == grid}
            hint = did_you_mean(grid, self._known_grids)
        else:
            runs = self._history.newest(grid) if grid in self._history.grids else []
            keys = {result.key for result in self._history.of_newest(self._all, grid)}
            hint = did_you_mean(grid, self._known_grids)
        found = [result for result in self._all if result.key in keys]
        if not found:
            raise UserError(f"no results of a grid {grid!r}; {hint}")
        return found, runs

    def _with_traits(self, results: list[Result]) -> list[Result]:
        """Access class and `gives` filled in for results of versions that did not record them: only these need the plugins."""
        if all(result.gives is not None for result in results):
            return results
        from gatecrash.boards.outdated import with_traits

        return with_traits(results, self.host)


def flat_records(results: Iterable[Result]) -> Iterator[dict[str, Any]]:
    """One flat record per result, by dataset, model, attack, defense, seed and key."""
    order = ("dataset", "model", "attack", "defense", "seed", "key")
    yield from sorted((result.flat() for result in results), key=lambda record: tuple(record[name] for name in order))


def plain(record: Mapping[str, Any], *, lists: bool = False) -> dict[str, Any]:
    """A flat record with options as JSON of sorted names, the same text for the same options; with `lists`, lists as JSON too."""
    kinds = (dict, list) if lists else (dict,)
    return {name: json.dumps(value, sort_keys=True) if isinstance(value, kinds) else value for name, value in record.items()}


def titles_of(results: Sequence[Result]) -> list[str]:
    """Titles of groups of results, one of each group: dataset, model, recipe, fingerprint, and what else tells groups apart."""
    titles = [
        ", ".join((result.dataset.name, result.model.name, _recipe_title(result.recipe), result.dataset_fingerprint[:8]))
        for result in results
    ]
    settings = [
        Stage(name=title, config={"model": result.model.config, "recipe": result.recipe, "hold-out": result.holdout, **_evaluation(result)})
        for title, result in zip(titles, results, strict=True)
    ]
    return labels([(setting,) for setting in settings])


def _evaluation(result: Result) -> dict[str, Any]:
    return {"evaluation": ", ".join(result.evaluation)} if result.evaluation else {}


def _recipe_title(recipe: dict[str, Any]) -> str:
    """The preset's name, or the main options."""
    for name, preset in PRESETS.items():
        if preset.model_dump(mode="json") == recipe:
            return name
    return f"{recipe.get('optimizer')} lr {recipe.get('lr')}, {recipe.get('epochs')} epochs"


def _with_content(result: Result, asked: AskedCell | None) -> Result:
    """Versions that recorded no runs did not record what files held either."""
    if asked is None or result.attack.content or any(stage.content for stage in result.defense):
        return result
    return result.model_copy(update={"attack": asked.attack, "defense": list(asked.defense)})
