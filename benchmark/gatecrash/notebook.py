"""What a notebook needs beside `gatecrash.run`: results as a table, and victims to look at.

import gatecrash

summary = gatecrash.run("quickstart", store="my-store")
table = gatecrash.results("my-store")
victim = gatecrash.load_victim("my-store", attack="badnets", seed=0)
triggered = victim.backdoors[0].trigger(images)    # uint8 [N, C, H, W]
classes = victim.classifier(triggered).argmax(1)
cell = gatecrash.load_cell("my-store", attack="badnets", defense="activation-clustering", seed=0)
rows = cell.suspects.nonzero()
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gatecrash.boards.source import ResultSource, flat_records, plain
from gatecrash.contracts.backdoor import Backdoor
from gatecrash.contracts.classifier import Classifier
from gatecrash.contracts.detector import InputDetector, Rejecting
from gatecrash.contracts.portable import rebuild
from gatecrash.errors import UserError
from gatecrash.host.loading import load_plugins
from gatecrash.records.plan import NONE
from gatecrash.records.result import Result
from gatecrash.records.store import Store
from gatecrash.records.victim import VictimRecord
from gatecrash.running.tasks.stored import backdoors_of, classifier_of, rebuilt_classifier

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor


@dataclass(frozen=True)
class LoadedVictim:
    """A stored victim to work with, as `gatecrash.load_victim` returns it."""

    key: str
    classifier: Classifier
    """On the CPU, in eval mode."""
    backdoors: Sequence[Backdoor]
    """What was planted, each with its goal and its trigger; empty for a benign victim."""
    record: VictimRecord
    """How it was trained: losses, seconds, device, share of poisoned rows."""


@dataclass(frozen=True)
class LoadedCell:
    """A stored cell to work with, as `gatecrash.load_cell` returns it."""

    result: Result
    """What was asked, what was measured, where it ran; `result.victim_key` names its victim."""
    classifier: Classifier | None
    """What the defense handed back, on the CPU, in eval mode: kept by `gatecrash run GRID --keep-models`, else None. The victim's where the
    defense, if any, hands no classifier back."""
    suspects: Tensor | None
    """bool [N], by row of the training set (without the hold-out): what the defense takes for poisoned; None where it names no rows."""
    suspicion: Tensor | None
    """float64 [N], by row of the training set, higher is more suspect; None where the defense gives no scores."""
    detector: InputDetector | None = None
    """What scores the inputs of the deployed classifier, on the CPU: kept as the classifier is, which then is a `gatecrash.Rejecting`."""


def results(store: str | Path | Store | None = None, *, grid: str | Path | None = None) -> pd.DataFrame:
    """One flat row per cell, with the columns of `gatecrash results`; rates are fractions in [0, 1], missing where none applies.

    Options (`attack_config`, `recipe`, …) are JSON with sorted names, to group by; `json.loads` gives them as mappings.

    `store` is a store or its folder (by default $GATECRASH_STORE, else ./gatecrash-store), or the folder of a published board's results,
    such as leaderboards/results/digits. Of a store these are the cells of the newest run of every grid or, with `grid`, of the grid of that
    name, or those of a YAML file. Raises UserError for a store or grid that does not exist. A store without results gives an empty table.
    """
    import pandas as pd

    folder = _folder(store)
    if folder is not None and _is_board(folder):
        source = ResultSource(board=folder.name, boards_path=folder.parent.parent, grid=_text(grid))
    else:
        source = ResultSource(folder, grid=_text(grid))
    return pd.DataFrame([plain(record) for record in flat_records(source.results())])


def load_victim(
    store: str | Path | Store | None = None,
    key: str | None = None,
    *,
    attack: str | None = None,
    seed: int | None = None,
    grid: str | Path | None = None,
    plugins: Iterable[str | Path] = (),
) -> LoadedVictim:
    """The stored victim with this key (its own, or that of one of its cells), or the only one of this attack, seed and grid.

    `attack` is a name; `none` is the benign victim. `plugins` are the files or folders that define classes of the victim, as for
    `--plugins`. Raises UserError where no victim fits, or more than one.
    """
    paths = tuple(Path(path) for path in plugins)
    load_plugins(paths)  # a stored victim names their classes
    source = ResultSource(_folder(store), grid=_text(grid), plugin_paths=paths)
    if key is None:
        key = _only_key(source.results(), attack, seed)
    elif (cell := source.store.result(key)) is not None:
        key = cell.victim_key
    stored = source.store.victim(key)
    if stored is None:
        raise UserError(f"the store {source.store.root} has no victim {key}; run its grid again")
    return LoadedVictim(key, classifier_of(stored), tuple(backdoors_of(stored)), stored.record)


def load_cell(
    store: str | Path | Store | None = None,
    key: str | None = None,
    *,
    attack: str | None = None,
    defense: str | None = None,
    seed: int | None = None,
    grid: str | Path | None = None,
    plugins: Iterable[str | Path] = (),
) -> LoadedCell:
    """The stored cell with this key, or the only one of this attack, defense, seed and grid, with what its defense produced.

    `defense` is a name as in `gatecrash results`: a chain's stages are joined by ` + `. `plugins` as for `load_victim`. Raises UserError
    where no cell fits, or more than one, where the cell failed, and where its files are damaged or gone.
    """
    paths = tuple(Path(path) for path in plugins)
    load_plugins(paths)
    source = ResultSource(_folder(store), grid=_text(grid), plugin_paths=paths)
    result = source.store.result(key) if key is not None else _only_cell(source.results(), attack, defense, seed)
    if result is None:
        raise UserError(f"the store {source.store.root} has no cell {key}; run its grid again")
    if result.status != "ok":
        raise UserError(f"the cell {_named(result)} is {result.status} ({result.error}), so there is nothing to load")
    produced = source.store.produced(result)
    classifier = None
    if produced.classifier is not None:
        classifier = rebuilt_classifier(produced.classifier, produced.state)
    elif _leaves_the_victim(result) or produced.detector is not None:
        classifier = load_victim(source.store, result.victim_key, plugins=paths).classifier
    detector = None if produced.detector is None else rebuild(produced.detector, produced.detector_state)
    if classifier is not None and isinstance(detector, InputDetector):
        return LoadedCell(result, Rejecting(classifier, detector).eval(), produced.suspects, produced.suspicion, detector)
    return LoadedCell(result, classifier, produced.suspects, produced.suspicion)


def _leaves_the_victim(result: Result) -> bool:
    """Whether the defense, if any, hands no classifier back, nor anything that stands before one."""
    gives = set(result.gives or ()) & {"classifier", "reject", "detector"}
    return result.defense_name == NONE or (result.gives is not None and not gives)


def _only_cell(results: Sequence[Result], attack: str | None, defense: str | None, seed: int | None) -> Result:
    asked = (attack, defense, seed)
    fitting = [
        result
        for result in results
        if all(wanted in {None, known} for wanted, known in zip(asked, (result.attack.name, result.defense_name, result.seed), strict=True))
    ]
    if len(fitting) == 1:
        return fitting[0]
    named = "; ".join(sorted(f"{_named(result)}: {result.key}" for result in fitting or results))
    if fitting:
        raise UserError(f"{len(fitting)} cells fit; name one by attack, defense, seed and grid, or by its key: {named}")
    raise UserError(f"no cell fits; there are: {named}" if results else "the store has no results yet; run a grid first")


def _named(result: Result) -> str:
    return f"{result.attack.name} × {result.defense_name} (seed {result.seed}, grid {result.grid})"


def _only_key(results: Sequence[Result], attack: str | None, seed: int | None) -> str:
    known = {result.victim_key: f"{result.attack.name} (seed {result.seed}, grid {result.grid}): {result.victim_key}" for result in results}
    fitting = {result.victim_key for result in results if attack in {None, result.attack.name} and seed in {None, result.seed}}
    if len(fitting) == 1:
        return fitting.pop()
    named = "; ".join(sorted(text for key, text in known.items() if not fitting or key in fitting))
    if fitting:
        raise UserError(f"{len(fitting)} victims fit; name one by attack, seed and grid, or by its key: {named}")
    raise UserError(f"no victim fits; there are: {named}" if known else "the store has no results yet; run a grid first")


def _folder(store: str | Path | Store | None) -> Path | None:
    return store.root if isinstance(store, Store) else None if store is None else Path(store)


def _text(grid: str | Path | None) -> str | None:
    return None if grid is None else str(grid)


def _is_board(folder: Path) -> bool:
    """Whether JSON files of results lie in the folder itself, as those of a published board do."""
    return not (folder / "store.json").exists() and next(folder.glob("*.json"), None) is not None
