"""Tables of boards inside another document: what stands between `<!-- board:NAME -->` and `<!-- /board -->` is generated."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from gatecrash.boards.content import Link, paragraph
from gatecrash.boards.panel import Panel
from gatecrash.boards.render.markdown import blocks_to_markdown
from gatecrash.boards.sections import setting_line
from gatecrash.boards.tables.matrix import matrix
from gatecrash.boards.tables.provenance import provenance_line

_PASSAGE = re.compile(r"(<!-- board:([a-z0-9._-]+) -->\n).*?(<!-- /board -->)", re.DOTALL)


def boards_named(text: str) -> list[str]:
    """Names of the boards that the document has a passage for."""
    return [match[2] for match in _PASSAGE.finditer(text)]


def filled(text: str, known: Collection[str], passage: Callable[[str], str]) -> str:
    """The document with the passages of `known` boards filled by `passage(name)`; passages of other boards stay as they are."""
    return _PASSAGE.sub(lambda match: f"{match[1]}{passage(match[2])}{match[3]}" if match[2] in known else match[0], text)


def passage(panel: Panel, outdated: Collection[str], link: str) -> str:
    """The board's matrix, and what it was measured with; `link` leads to the whole board."""
    table = matrix(panel, ["acc", "asr"], outdated)
    source = paragraph(f"{setting_line(panel)} {provenance_line(panel)} ", Link("The whole board", link), ".")
    return f"\n{blocks_to_markdown([table, source])}\n\n"
