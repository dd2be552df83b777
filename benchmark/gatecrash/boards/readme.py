"""Tables of boards inside another document: what stands between `<!-- board:NAME -->` and `<!-- /board -->` is generated."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from gatecrash.boards.leaderboard import setting_line
from gatecrash.boards.page import provenance_line
from gatecrash.boards.panel import Panel
from gatecrash.boards.sections import matrix_by_defense

_PASSAGE = re.compile(r"(<!-- board:([a-z0-9._-]+) -->\n).*?(<!-- /board -->)", re.DOTALL)


def boards_named(text: str) -> list[str]:
    """Names of the boards that the document has a passage for."""
    return [found[2] for found in _PASSAGE.finditer(text)]


def filled(text: str, known: Collection[str], passage: Callable[[str], str]) -> str:
    """The document with the passages of `known` boards filled by `passage(name)`; those of boards that are not there yet stay."""
    return _PASSAGE.sub(lambda found: f"{found[1]}{passage(found[2])}{found[3]}" if found[2] in known else found[0], text)


def passage(panel: Panel, outdated: Collection[str], link: str) -> str:
    """The board's matrix, a row for each defense, and where it comes from; `link` leads to the whole board."""
    return f"\n{matrix_by_defense(panel, outdated)}\n\n{setting_line(panel)} {provenance_line(panel)} [The whole board]({link}).\n\n"
