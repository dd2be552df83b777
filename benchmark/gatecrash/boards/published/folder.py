"""The folder of published boards: their names, results and pictures."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from gatecrash.errors import UserError, did_you_mean
from gatecrash.records.result import Result

FIGURES = {
    "heatmap": "ASR, ACC and DER of every attack under every defense",
    "triggers": "Each attack's trigger: clean, triggered, difference",
}
"""What a board's pictures show, by kind."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,80}")


HERE = Path("leaderboards")
"""The folder of boards that is written to if none is named."""


def default_boards(*, to_write: bool = False) -> Path:
    """`leaderboards/` here or, only to read from, that of the checkout this package is installed from. Raises UserError for neither."""
    for folder in (HERE,) if to_write else (HERE, Path(__file__).parents[4] / "leaderboards"):
        if folder.is_dir():
            return folder
    raise UserError("no folder leaderboards/ here; name one with --boards DIR")


def is_board_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


@dataclass(frozen=True)
class Boards:
    """A folder of published boards."""

    root: Path

    def names(self) -> list[str]:
        return sorted(folder.name for folder in (self.root / "results").glob("*") if any(folder.glob("*.json")))

    def folder(self, name: str) -> Path:
        """Where the board's results lie, and below which their pictures do. Raises UserError for what cannot be a board's name."""
        if not is_board_name(name):
            raise UserError(f"no board {name!r} in {self.root}; {did_you_mean(name, self.names())}")
        return self.root / "results" / name

    def results(self, name: str) -> list[Result]:
        """Raises UserError for an unknown board, and for a file that is damaged or was changed by hand."""
        # By the parts of the name: as text, `neural-cleanse-filter.0` comes before `neural-cleanse.0`.
        files = sorted(self.folder(name).glob("*.json"), key=lambda file: file.name.split("."))
        if not files:
            raise UserError(f"no board {name!r} in {self.root}; {did_you_mean(name, self.names())}")
        return [read_result(file) for file in files]

    def digest(self, name: str) -> str:
        """A hash of all results of the board, which its pictures carry to say what they were made from."""
        text = "\n".join(result.to_text() for result in self.results(name))
        return hashlib.sha256(text.encode()).hexdigest()

    def figure(self, name: str, kind: str) -> Path:
        """Where a board's picture of this kind lies; the page shows it if it is there."""
        return self.root / "figures" / f"{name}-{kind}.png"

    def figures(self, name: str, linked: str = "") -> dict[str, str]:
        """Paths of the board's pictures, relative to the folder, by what they show: those that exist or that the page `linked` shows."""
        paths = {shows: f"figures/{self.figure(name, kind).name}" for kind, shows in FIGURES.items()}
        return {shows: path for shows, path in paths.items() if (self.root / path).is_file() or f"]({path})" in linked}


def read_result(file: Path) -> Result:
    """A result from its JSON file. Raises UserError."""
    try:
        return Result.from_text(file.read_bytes())
    except UserError as error:
        raise UserError(f"{file} {error}") from None
    except (OSError, ValueError, ValidationError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
        raise UserError(f"{file} is no sound result ({reason}); publish it again") from None
