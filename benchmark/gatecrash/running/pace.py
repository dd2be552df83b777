"""How long a run still takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Pace:
    """Time left, from what victims and defenses took so far; evaluations are too short to count."""

    victims: int = 0
    cells: int = 0
    """What is still to be done, running tasks included."""
    _seconds: dict[str, float] = field(default_factory=dict)
    _counts: Counter[str] = field(default_factory=Counter)

    def ended(self, task_id: str, seconds: float) -> None:
        kind = task_id.partition(":")[0]
        self._counts[kind] += 1
        self._seconds[kind] = self._seconds.get(kind, 0.0) + seconds

    def seconds_left(self, running: Mapping[str, float]) -> float | None:
        """`running` are the seconds that the tasks under way have taken so far; None before anything has ended."""
        victim, defense = self._mean("implant"), self._mean("defend")
        if victim is None and defense is None:
            return None
        victim = 4 * (defense or 0.0) if victim is None else victim  # as the scheduler guesses
        defense = victim / 4 if defense is None else defense
        work = self.victims * victim + self.cells * defense
        for task_id, spent in running.items():
            work -= min(spent, victim if task_id.startswith("implant:") else defense)
        return max(work, 0.0) / max(len(running), 1)

    def _mean(self, kind: str) -> float | None:
        return self._seconds[kind] / self._counts[kind] if self._counts[kind] else None
