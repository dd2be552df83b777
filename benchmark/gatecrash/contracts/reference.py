"""Where a method was published."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reference:
    """A publication: shown by `gatecrash show` and in the generated plugin docs."""

    paper: str
    year: int
    url: str

    def __str__(self) -> str:
        return f"{self.paper} ({self.year}), {self.url}"
