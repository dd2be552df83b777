"""The concise board of results in a store. `gatecrash.boards.page` has all that a published board says."""

from __future__ import annotations

from collections.abc import Iterable

from gatecrash.boards import sections
from gatecrash.boards.content import Code, Content, Paragraph, Section, paragraph
from gatecrash.boards.panel import arrange
from gatecrash.boards.tables.matrix import matrix
from gatecrash.records.result import Result


def leaderboard(results: Iterable[Result], title: str, *remarks: Paragraph) -> Content:
    """The board of these results, of one dataset, model and recipe; `remarks` follow its first table."""
    panel = arrange(results)
    if not panel.cells:
        return Content(title, (Section("", (paragraph("No results yet."), *remarks)),))
    how_to_read = [paragraph(sections.setting_line(panel)), paragraph(sections.how_to_read(panel)), *sections.noted(panel)]
    return Content(
        title,
        (
            Section("", (*how_to_read, matrix(panel, ["acc", "asr"]), *sections.left_out(panel), *remarks)),
            sections.undefended(panel),
            sections.defenses(panel, details=False),
            *sections.lost(panel, with_missing=False),
        ),
    )


def missing_cells(missing: int, all_cells: int, grid: str) -> list[Paragraph]:
    """The remark on cells of a grid that have no result, if there are any."""
    text = f"{missing} of {all_cells} cells have no result yet: run "
    return [paragraph(text, Code(f"gatecrash run {grid}"), ".")] if missing else []
