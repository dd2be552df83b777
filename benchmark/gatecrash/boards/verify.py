"""Run published cells again, from nothing but what their results say, and compare."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gatecrash.boards.judging import COST, outside
from gatecrash.boards.outdated import outdated
from gatecrash.boards.recount import recount
from gatecrash.boards.spec import grid_of
from gatecrash.boards.superseded import table_position
from gatecrash.errors import OutOfReach, UserError
from gatecrash.host.host import Host
from gatecrash.planning.grid import parse_grid
from gatecrash.planning.planned import PlannedGrid, plan_grid
from gatecrash.records.provenance import Provenance
from gatecrash.records.result import Result
from gatecrash.records.store import Store
from gatecrash.running.display import Display
from gatecrash.running.options import RunOptions
from gatecrash.running.run import run_plan, serial

OTHER_SEEDS = 4
"""How many more seeds are run here, at most, where one leaves a doubt."""
VerifyStatus = Literal["equal", "within", "differs", "outdated", "failed"]


@dataclass(frozen=True)
class Verified:
    """The outcome of one cell. `equal`: every digit is the same; `within`: rounded otherwise on another machine, every measure inside its
    limits."""

    result: Result
    outcome: VerifyStatus
    detail: str = ""

    @property
    def good(self) -> bool:
        return self.outcome in {"equal", "within"}


def sample(results: Iterable[Result], size: int | None) -> list[Result]:
    """Finished cells to verify: all, or the first `size` by key. Keys are hashes, so this is a fixed random sample."""
    finished = sorted((result for result in results if result.status in {"ok", "not-applicable"}), key=lambda result: result.key)
    return finished if size is None else finished[:size]


def verify(
    result: Result,
    store: Store,
    host: Host,
    *,
    siblings: Sequence[Result] = (),
    overrides: Mapping[str, str] | None = None,
    device: str | None = None,
) -> Verified:
    """Compute the cell again in `store` and compare.

    A result whose measures do not follow from its own counts is refused before anything runs. Where device, CPU, torch and threads are the
    same, every measure must be equal to the last digit. Elsewhere each must lie within the limits that the measurement made here sets:
    over its test images or, where `siblings` (other results of its board) name several seeds, those seeds are run here, too, and it must
    lie where one more training is expected. Raises UserError where the dataset here is another one.
    """
    contradiction = recount([result, *siblings]).get(result.key)
    if contradiction:
        return Verified(result, "differs", contradiction)
    reason = outdated([result], host).get(result.key)
    if reason:
        return Verified(result, "outdated", reason)
    try:
        planned = _planned(result, host, overrides)
    except OutOfReach as error:  # the whole reason of a cell that is not applicable
        same = (result.status, result.error) == ("not-applicable", str(error))
        return Verified(result, "equal") if same else Verified(result, "differs", str(error))
    if result.key not in planned.plan.cells:
        return Verified(result, "differs", "all versions agree, but its spec has another key here: it was changed, or a file that it names")
    fresh = _measured(result, planned, store, device)
    if fresh is None or fresh.status != result.status:
        found = "no result" if fresh is None else f"{fresh.status}{f' ({fresh.error})' if fresh.error else ''}"
        return Verified(result, "failed", f"{found} instead of {result.status}")

    def other_seeds() -> list[Result]:
        same = [one for one in siblings if table_position(one)[:2] == table_position(result)[:2] and one.seed != result.seed]
        measured = [_measured(one, _planned(one, host, overrides), store, device) for one in same[:OTHER_SEEDS]]
        return [one for one in measured if one is not None and one.status == "ok"]

    return compare(result, fresh, other_seeds)


def _planned(result: Result, host: Host, overrides: Mapping[str, str] | None) -> PlannedGrid:
    """The grid of this cell alone. Raises UserError where the dataset here is another one."""
    planned = plan_grid(parse_grid(grid_of([result]), f"the spec of {result.key[:8]}", overrides), host)
    if planned.plan.fingerprint != result.dataset_fingerprint:
        raise UserError(
            f"the dataset {result.dataset.name} here ({planned.plan.fingerprint[:12]}) is not the one that was measured "
            f"({result.dataset_fingerprint[:12]}); name its folder with -o dataset.{result.dataset.name}.root=DIR"
        )
    return planned


def _measured(result: Result, planned: PlannedGrid, store: Store, device: str | None) -> Result | None:
    """The cell as it comes out here; None where it does not."""
    options = RunOptions(device=device, threads=result.provenance.threads or 1, precision=result.provenance.precision)
    summary = run_plan(planned, store, serial, options, Display())
    if summary.interrupted:
        raise KeyboardInterrupt
    return summary.results.get(result.key)


def compare(stored: Result, fresh: Result, other_seeds: Callable[[], Sequence[Result]] = tuple) -> Verified:
    """Compare two measurements of one cell; `other_seeds` makes more of them here, where the first leaves a doubt."""
    if stored.measures.leak is None:
        fresh = _without_leak(fresh)
    different = _different(stored, fresh)
    if not different:
        return Verified(stored, "equal")
    if _same_machine(stored.provenance, fresh.provenance):
        return Verified(stored, "differs", f"on the same kind of machine: {_first(different)}")
    faults = outside(stored, fresh)
    if faults:
        seeds = other_seeds()
        faults = outside(stored, fresh, seeds) if seeds else faults
    return Verified(stored, "differs", "; ".join(faults)) if faults else Verified(stored, "within", _first(different))


def _without_leak(result: Result) -> Result:
    """The result as versions wrote it that did not count leak."""
    measures, steps = result.measures, result.trajectory
    held = {name: scores.without_leak() for name in ("scores", "floor_scores") if (scores := getattr(measures, name)) is not None}
    return result.model_copy(
        update={
            "measures": measures.model_copy(update={**held, **({"leak": None} if measures.leak is not None else {})}),
            "trajectory": [
                step.model_copy(update={"scores": step.scores.without_leak()}) if step.scores is not None else step for step in steps
            ],
        }
    )


def _different(stored: Result, fresh: Result) -> dict[str, tuple[Any, Any]]:
    then, now = stored.measures.model_dump(), fresh.measures.model_dump()
    names = {name for name in (*then, *now) if not name.startswith(COST)}
    pairs = {name: (then.get(name), now.get(name)) for name in sorted(names)}
    pairs["trajectory"] = ([step.model_dump() for step in stored.trajectory], [step.model_dump() for step in fresh.trajectory])
    pairs["weights of the victim"] = (stored.weights, fresh.weights)
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _same_machine(then: Provenance, now: Provenance) -> bool:
    """Whether every digit must be the same."""
    facts = [(one.device, one.threads, one.cpu, one.cpu_kind, one.packages.get("torch")) for one in (then, now)]
    return now.device == "cpu" and facts[0] == facts[1]


def _first(different: Mapping[str, tuple[Any, Any]]) -> str:
    scalars = {name: pair for name, pair in different.items() if all(isinstance(value, float | int | None) for value in pair)}
    name, (then, now) = next(iter((scalars or different).items()))
    return f"{name} {_shown(then)} -> {_shown(now)}" + (f" and {len(different) - 1} more" if len(different) > 1 else "")


def _shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)[:12]
