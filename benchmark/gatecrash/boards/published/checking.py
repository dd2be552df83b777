"""Whether published boards agree with their results.

Being older than what is installed is no fault: the numbers are what they were. It is told, and the marks of older cells, which depend on
the checkout, do not count where a page is compared with its results.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gatecrash.boards.outdated import outdated
from gatecrash.boards.pictures import picture_source
from gatecrash.boards.published.comparable import refuse_mixtures
from gatecrash.boards.published.folder import FIGURES, Boards
from gatecrash.boards.published.generated import board_files, index_files, readme_files, text_of
from gatecrash.boards.published.publishing import unnamed_files
from gatecrash.boards.recount import recount
from gatecrash.boards.tables.matrix import OUTDATED
from gatecrash.errors import UserError
from gatecrash.host.host import Host
from gatecrash.records.result import Result


@dataclass(frozen=True)
class Checked:
    """A line for everything that is wrong, and for everything that is only older than what is installed here."""

    faults: list[str]
    older: list[str]


def check(boards: Boards, names: Iterable[str], host: Host) -> Checked:
    """Faults are generated files that differ from the results, mixtures, pictures that are missing, of other results or of none."""
    names = list(names)
    faults = [fault for name in names for fault in _board_faults(boards, name, host)]
    known = {boards.figure(name, kind) for name in boards.names() for kind in FIGURES}
    faults += [f"figures/{path.name} belongs to no board; remove it" for path in sorted(set((boards.root / "figures").glob("*")) - known)]
    faults += [
        f"{path.name} differs from the boards; run `gatecrash leaderboard --board NAME` with any board's name"
        for path in _different(index_files(boards))
    ]
    faults += [
        f"the table of a board in ../{path.name} differs; run `gatecrash leaderboard --board NAME` with its name"
        for path in _different(readme_files(boards, host))
    ]
    return Checked(faults, [line for name in names for line in _older(name, boards.results(name), host)])


def _older(name: str, results: Sequence[Result], host: Host) -> Iterator[str]:
    for reason, count in sorted(Counter(outdated(results, host).values()).items()):
        yield f"{name}: {count} {'cell is' if count == 1 else 'cells are'} older ({reason})"


def _board_faults(boards: Boards, name: str, host: Host) -> Iterator[str]:
    results = boards.results(name)
    shown = text_of(boards.root / f"{name}.md") or ""
    for path in _different(board_files(boards, name, host, linked=shown)):
        yield f"{path.name} differs from its results; run `gatecrash leaderboard --board {name}`"
    yield from _picture_faults(boards, name, results, shown)
    try:
        refuse_mixtures(results)
    except UserError as error:
        yield f"{name}: {error}"
    for key, fault in recount(results).items():
        yield f"{name}: the result {key[:8]} contradicts itself: {fault}; run and publish it again"


def _picture_faults(boards: Boards, name: str, results: Sequence[Result], shown: str) -> Iterator[str]:
    folder = boards.folder(name)
    kept = {folder / path for result in results for path in result.figures.values()}
    drawn = {boards.root / path for path in boards.figures(name, shown).values()}
    for path in sorted(kept | drawn):
        if not path.is_file():
            yield f"{name}: the picture {path.relative_to(boards.root).as_posix()} is missing; publish again"
    digest = boards.digest(name)
    for path in sorted(drawn):
        if path.is_file() and picture_source(path) != digest:
            yield f"{name}: the picture {path.name} was not made from these results; publish again"
    for path in sorted(unnamed_files(folder, kept)):
        if path.suffix != ".json":
            yield f"{name}: {path.relative_to(boards.root).as_posix()} belongs to no result; remove it"


def _different(files: Mapping[Path, str]) -> list[Path]:
    """Those that do not hold the text that they must hold."""
    return [path for path, text in files.items() if _without_marks(text_of(path)) != _without_marks(text)]


def _without_marks(text: str | None) -> str | None:
    """Without the marks of older cells, the line that explains them, and the width of columns, which depends on them."""
    if text is None:
        return None
    lines = [line for line in text.splitlines() if not line.startswith(OUTDATED)]
    return re.sub(r"\n\n+", "\n\n", "\n".join(re.sub(r" +|-{3,}", " ", line.replace(OUTDATED, "")) for line in lines))
