"""The checks of a defense as a grid runs it: the defend task, on a victim without a backdoor."""

from __future__ import annotations

from typing import Any

from gatecrash.contracts.defense import Defense
from gatecrash.contracts.detector import Rejecting
from gatecrash.contracts.portable import rebuild
from gatecrash.evaluation.exam import evaluate
from gatecrash.testing.check import require
from gatecrash.testing.defense_trial import trial
from gatecrash.testing.setting import setting

LARGEST_DROP = 0.2
"""Clean accuracy (absolute) that a defense may cost a benign victim before the check calls it broken."""


def benign_victim_survives(defense: Defense) -> str:
    """A victim without a backdoor, with a grid's recipe and hold-out, keeps most of its accuracy; the note gives what it lost."""
    shared = setting("grid")
    cell = trial(defense).cell("grid")
    after: Any = shared.benign if cell.spec is None else rebuild(cell.spec, cell.state)
    if cell.detector_spec is not None:
        after = Rejecting(after, rebuild(cell.detector_spec, cell.detector_state))  # type: ignore[arg-type]
    old, new = (evaluate(classifier, shared.test, device="cpu").acc or 0.0 for classifier in (shared.benign, after))
    require(
        old - new <= LARGEST_DROP,
        f"a benign victim to lose at most {LARGEST_DROP:.0%} accuracy (absolute)",
        f"ACC {old:.3f} before, {new:.3f} after",
        "watch the accuracy on the hold-out and stop in time; a purifier is applied to victims that may be benign",
    )
    return f"ACC {old:.3f} -> {new:.3f}"


def time_and_memory_are_reported(defense: Defense) -> str:
    """The defend task of a grid runs it and says what it cost."""
    cell = trial(defense).cell()
    require(
        cell.seconds > 0 and cell.peak_memory_mb > 0,
        "positive seconds and peak memory",
        f"{cell.seconds} s, {cell.peak_memory_mb} MB",
        "leave clocks and memory statistics of the process alone",
    )
    return f"{cell.seconds:.2f} s"
