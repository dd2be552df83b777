"""The concise board of results in a store. `gatecrash.boards.page` has all that a published board says."""

from __future__ import annotations

from gatecrash.boards import sections
from gatecrash.boards.content import Code, Content, Paragraph, Section, paragraph
from gatecrash.boards.panel import Panel
from gatecrash.boards.tables.matrix import matrix


def leaderboard(panel: Panel, title: str, *remarks: Paragraph) -> Content:
    """The board of these results; `remarks` follow its first table."""
    if not panel.cells:
        return Content(title, (Section("", (paragraph("No results yet."), *remarks)),))
    how_to_read = [paragraph(sections.setting_line(panel)), paragraph(sections.how_to_read(panel)), *sections.noted(panel)]
    return Content(
        title,
        (
            Section("", (*how_to_read, matrix(panel, ["acc", "asr"]), *sections.left_out(panel), *remarks)),
            sections.undefended(panel),
            *sections.harm(panel),
            *sections.backdoors(panel),
            *sections.retuned(panel),
            *sections.robustness(panel),
            sections.defenses(panel, details=False),
            *sections.lost(panel, with_missing=False),
        ),
    )


def missing_cells(missing: int, all_cells: int, grid: str | None) -> list[Paragraph]:
    """The remark on cells that have no result, if there are any; `grid` is what `gatecrash run` is given to compute them, if known."""
    if not missing:
        return []
    text = f"{missing} of {all_cells} cells have no result yet: run "
    return [paragraph(text, *((Code(f"gatecrash run {grid}"), ".") if grid is not None else ("the grid again.",)))]
