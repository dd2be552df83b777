"""Run published cells again, from nothing but what their results say, and compare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gatecrash.boards.outdated import outdated
from gatecrash.boards.spec import grid_of
from gatecrash.boards.superseded import table_position
from gatecrash.errors import UserError
from gatecrash.evaluation.intervals import prediction_interval
from gatecrash.host.host import Host
from gatecrash.planning.grid import parse_grid
from gatecrash.planning.planned import plan_grid
from gatecrash.records.measures import MeasureName
from gatecrash.records.provenance import Provenance
from gatecrash.records.result import Result
from gatecrash.records.store import Store
from gatecrash.running.display import Display
from gatecrash.running.options import RunOptions
from gatecrash.running.run import run_plan, serial

VerifyStatus = Literal["equal", "within", "differs", "outdated", "failed"]
COST = ("seconds_", "peak_memory_")
"""What the names of measures of a machine start with; these are not compared."""
JUDGED: tuple[MeasureName, ...] = ("acc", "asr")


@dataclass(frozen=True)
class Verified:
    """The outcome of one cell. `equal`: every digit is the same; `within`: rounded otherwise on another machine, inside the interval."""

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

    Where device, CPU, torch and threads are the same, every measure must be equal to the last digit. Elsewhere other rounding leads to
    another training, and ACC and ASR must lie in a 95% interval: over test images or, where `siblings` (other results of its board) have
    several seeds, the interval in which one more training is expected. Raises UserError where the dataset here is another one.
    """
    reason = outdated([result], host).get(result.key)
    if reason:
        return Verified(result, "outdated", reason)
    grid = parse_grid(grid_of([result]), f"the spec of {result.key[:8]}", overrides)
    prepare = plan_grid(grid, host)
    if prepare.plan.fingerprint != result.dataset_fingerprint:
        raise UserError(
            f"the dataset {result.dataset.name} here ({prepare.plan.fingerprint[:12]}) is not the one that was measured "
            f"({result.dataset_fingerprint[:12]}); name its folder with -o dataset.{result.dataset.name}.root=DIR"
        )
    if result.key not in prepare.plan.cells:
        return Verified(result, "outdated", "its spec has another key now: a default, a plugin file or the harness has changed")
    options = RunOptions(device=device, threads=result.provenance.threads or 1, precision=result.provenance.precision)
    summary = run_plan(prepare, store, serial, options, Display())
    if summary.interrupted:
        raise KeyboardInterrupt
    fresh = summary.results.get(result.key)
    if fresh is None or fresh.status != result.status:
        found = "no result" if fresh is None else f"{fresh.status}{f' ({fresh.error})' if fresh.error else ''}"
        return Verified(result, "failed", f"{found} instead of {result.status}")
    return compare(result, fresh, siblings)


def compare(stored: Result, fresh: Result, siblings: Sequence[Result] = ()) -> Verified:
    """Compare two measurements of one cell."""
    different = _different(stored, fresh)
    if not different:
        return Verified(stored, "equal")
    if _same_machine(stored.provenance, fresh.provenance):
        return Verified(stored, "differs", f"on the same kind of machine: {_first(different)}")
    outside = []
    for name in JUDGED:
        then, now = stored.measures.value(name), fresh.measures.value(name)
        if then is None and now is None:
            continue
        low, high = _limits(stored, name, siblings)
        if then is None or now is None or not low <= now <= high:
            outside.append(f"{name} {_shown(then)} -> {_shown(now)}, outside {_shown(low)} to {_shown(high)}")
    return Verified(stored, "differs", "; ".join(outside)) if outside else Verified(stored, "within", _first(different))


def _different(stored: Result, fresh: Result) -> dict[str, tuple[Any, Any]]:
    then, now = stored.measures.model_dump(), fresh.measures.model_dump()
    names = {name for name in (*then, *now) if not name.startswith(COST)}
    pairs = {name: (then.get(name), now.get(name)) for name in sorted(names)}
    pairs["weights of the victim"] = (stored.weights, fresh.weights)
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _same_machine(then: Provenance, now: Provenance) -> bool:
    """Whether every digit must be the same."""
    facts = [(one.device, one.threads, one.cpu, one.cpu_kind, one.packages.get("torch")) for one in (then, now)]
    return now.device == "cpu" and facts[0] == facts[1]


def _limits(stored: Result, name: MeasureName, siblings: Sequence[Result]) -> tuple[float, float]:
    value = stored.measures.value(name)
    low, high = stored.measures.limits(name) or (value or 0.0, value or 0.0)
    alike = [
        rate for one in siblings if table_position(one)[:2] == table_position(stored)[:2] and (rate := one.measures.value(name)) is not None
    ]
    over_seeds = prediction_interval(alike)
    if over_seeds.low is not None and over_seeds.high is not None:
        return min(low, over_seeds.low), max(high, over_seeds.high)
    return low, high


def _first(different: Mapping[str, tuple[Any, Any]]) -> str:
    scalars = {name: pair for name, pair in different.items() if all(isinstance(value, float | int | None) for value in pair)}
    name, (then, now) = next(iter((scalars or different).items()))
    return f"{name} {_shown(then)} -> {_shown(now)}" + (f" and {len(different) - 1} more" if len(different) > 1 else "")


def _shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)[:12]
