"""Which grid was run when, and which cells it asked for: a file below `runs/` of the store for each run.

A run is recorded when it starts, so that an interrupted one counts too. Stores of older versions have no runs.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from gatecrash.errors import UserError
from gatecrash.records.files import write
from gatecrash.records.plan import Plan
from gatecrash.records.sealed import sealed, unsealed
from gatecrash.records.stage import Stage

SCHEMA = 1
log = logging.getLogger("gatecrash")


@dataclass(frozen=True)
class AskedCell:
    """A cell that a run asked for."""

    key: str
    attack: Stage
    defense: tuple[Stage, ...]
    seed: int


class Run(BaseModel):
    """One run of a grid. Fields that a `Result` has too mean the same."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: int = SCHEMA
    grid: str
    date: str
    partial: bool
    """Whether attacks, defenses or seeds were chosen for this run: it then adds to the runs before it."""
    dataset: Stage
    dataset_fingerprint: str
    holdout: dict[str, Any]
    model: Stage
    recipe: dict[str, Any]
    evaluation: dict[str, Any] = Field(default_factory=dict)
    attacks: list[Stage]
    defenses: list[list[Stage]]
    cells: list[tuple[str, int, int, int]]
    """Key, index of the attack, index of the defense, seed."""

    @classmethod
    def of(cls, plan: Plan, *, partial: bool = False) -> Self:
        """The run of this plan that starts now."""
        attacks = {id(cell.victim.attack): cell.victim.attack for cell in plan.cells.values()}  # all cells of one share its object
        defenses = {id(cell.defense): cell.defense for cell in plan.cells.values()}
        row_of, column_of = ({name: index for index, name in enumerate(names)} for names in (attacks, defenses))
        return cls(
            grid=plan.grid,
            date=datetime.now(UTC).isoformat(timespec="microseconds"),
            partial=partial,
            dataset=plan.dataset,
            dataset_fingerprint=plan.fingerprint,
            holdout=plan.holdout,
            model=plan.model,
            recipe=plan.recipe,
            evaluation=plan.evaluation,
            attacks=list(attacks.values()),
            defenses=[list(stages) for stages in defenses.values()],
            cells=[
                (key, row_of[id(cell.victim.attack)], column_of[id(cell.defense)], cell.victim.seed) for key, cell in plan.cells.items()
            ],
        )

    def asked(self) -> list[AskedCell]:
        """Its cells, in the grid's order."""
        chains = [tuple(stages) for stages in self.defenses]
        return [AskedCell(key, self.attacks[attack], chains[defense], seed) for key, attack, defense, seed in self.cells]


def save_run(root: Path, run: Run) -> None:
    """Record the run in the store at `root`. Raises UserError where that cannot be written."""
    text = sealed(run.model_dump(mode="json"))
    stamp = datetime.fromisoformat(run.date).strftime("%Y%m%dT%H%M%S.%f")
    path = root / "runs" / f"{stamp}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"
    try:
        write(path, text.encode())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose another store with --store") from None


def stored_runs(root: Path) -> list[Run]:
    """The recorded runs of the store at `root`, the oldest first, without damaged ones, which are named in a warning. Raises UserError."""
    runs = [run for path in sorted((root / "runs").glob("*.json")) if (run := _read(path)) is not None]
    return sorted(runs, key=lambda run: run.date)


def _read(path: Path) -> Run | None:
    try:
        return Run.model_validate(unsealed(path.read_bytes(), SCHEMA))
    except UserError as error:
        raise UserError(f"{path} {error}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; mend its permissions, or choose another --store") from None
    except ValueError as error:  # pydantic's errors are ValueErrors
        log.warning("%s is damaged (%s) and is left out; run its grid again", path, " ".join(str(error).split())[:200])
        return None
