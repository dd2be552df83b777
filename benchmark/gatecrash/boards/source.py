"""Which results are shown: those of a store or of a published board, all or those of one grid. Importing this does not import torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatecrash.boards.panel import Panel, arrange
from gatecrash.boards.spec import table_group
from gatecrash.boards.superseded import table_position
from gatecrash.contracts.recipe import PRESETS
from gatecrash.errors import UserError, did_you_mean
from gatecrash.host.host import Host
from gatecrash.host.loading import load_plugins
from gatecrash.planning.grid import is_grid_file, load_grid
from gatecrash.planning.planned import plan_grid
from gatecrash.records.plan import Plan
from gatecrash.records.result import Result
from gatecrash.records.store import Store, default_store

if TYPE_CHECKING:
    from gatecrash.boards.published import Boards


@dataclass(frozen=True)
class ResultGroup:
    """Results that can stand in one table: one dataset, model, recipe and hold-out."""

    title: str
    """Dataset, model and recipe, and the start of the dataset's fingerprint."""
    results: tuple[Result, ...]

    @cached_property
    def panel(self) -> Panel:
        return arrange(self.results)


@dataclass(frozen=True)
class ResultSource:
    """Where results are read from. Without `board` it is a store; `grid` keeps a part of it.

    `grid` is the name of a grid that was run (its cells of the last runs), or the path of a YAML file (exactly its cells).
    """

    store_path: Path | None = None
    board: str | None = None
    boards_path: Path | None = None
    grid: str | None = None
    plugin_paths: tuple[Path, ...] = ()

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
        if self.boards_path is not None and self.board is None:
            raise UserError("--boards needs the name of a BOARD")

    def results(self) -> list[Result]:
        """By attack, defense and seed; empty only for a store without results. Raises UserError, also for an unknown board or grid."""
        self.check()
        found = self.boards.results(self.board) if self.board is not None else list(self.store.results())
        if found and self.grid is not None:
            found = self._of_grid(found, self.grid)
        return sorted(self._with_traits(found), key=table_position)

    def groups(self) -> list[ResultGroup]:
        """The results by what can stand in one table, ordered by title. Raises UserError, also where there are none."""
        groups: dict[tuple[str, ...], list[Result]] = {}
        for result in self.results():
            groups.setdefault(table_group(result), []).append(result)
        if not groups:
            raise UserError(f"the store {self.store.root} has no results yet; run a grid first (gatecrash run quickstart)")
        titled = sorted((title_of(results[0]), group, results) for group, results in groups.items())
        return [ResultGroup(title, tuple(results)) for title, _, results in titled]

    def panel(self) -> Panel:
        """All results as one panel. Raises UserError where they cannot stand in one table."""
        groups = self.groups()
        if len(groups) > 1:
            grids = ", ".join(sorted({result.grid for group in groups for result in group.results}))
            raise UserError(f"the results are of several datasets, models or recipes; choose one with --grid ({grids})")
        return groups[0].panel

    def cells(self, plan: Plan) -> dict[str, Result | None]:
        """The store's results of the planned cells by key, in the plan's order; None for a cell without result."""
        found = {key: self.store.result(key) for key in plan.cells}
        filled = self._with_traits([result for result in found.values() if result is not None])
        return {**found, **{result.key: result for result in filled}}

    def _of_grid(self, results: Iterable[Result], grid: str) -> list[Result]:
        if is_grid_file(grid):
            keys = plan_grid(load_grid(grid), self.host).plan.cells
            found = [result for result in results if result.key in keys]
            hint = f"run `gatecrash run {grid}`"
        else:
            found = [result for result in results if result.grid == grid]
            hint = did_you_mean(grid, {result.grid for result in results})
        if not found:
            raise UserError(f"no results of a grid {grid!r}; {hint}")
        return found

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


def title_of(result: Result) -> str:
    """What tells groups of results apart, for a person."""
    return f"{result.dataset.name}, {result.model.name}, {_recipe_title(result.recipe)}, {result.dataset_fingerprint[:8]}"


def _recipe_title(recipe: dict[str, Any]) -> str:
    """The preset's name, or what tells the recipe apart."""
    for name, preset in PRESETS.items():
        if preset.model_dump(mode="json") == recipe:
            return name
    return f"{recipe.get('optimizer')} lr {recipe.get('lr')}, {recipe.get('epochs')} epochs"
