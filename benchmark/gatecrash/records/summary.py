"""What a run did."""

from __future__ import annotations

from dataclasses import dataclass, field

from gatecrash.records.plan import Plan
from gatecrash.records.result import Result


@dataclass
class Summary:
    """What a run did. `results` are those of the plan's cells that exist now, by key."""

    plan: Plan
    results: dict[str, Result] = field(default_factory=dict)
    computed_victims: int = 0
    computed_cells: int = 0
    failures: list[str] = field(default_factory=list)
    """One line per failed victim or cell."""
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """0: all cells ok or not applicable; 1: some failed; 130: interrupted."""
        if self.interrupted:
            return 130
        ended = [self.results[key].status for key in self.plan.cells if key in self.results]
        complete = len(ended) == len(self.plan.cells) and all(status in {"ok", "not-applicable"} for status in ended)
        return 0 if complete else 1
