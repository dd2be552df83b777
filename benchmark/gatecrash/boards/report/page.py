"""The report: sections of boards, a matrix for each measure, plots, and what is known of each cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gatecrash.boards import sections
from gatecrash.boards.content import Picture, Section, Table, paragraph
from gatecrash.boards.fields import label
from gatecrash.boards.panel import Panel
from gatecrash.boards.render.html import file_text, png_uri, render
from gatecrash.boards.report.cells import cell_details, shown
from gatecrash.boards.tables.matrix import matrix, matrix_field
from gatecrash.records.measures import MeasureName

MATRICES: tuple[MeasureName, ...] = ("asr", "acc", "ra", "der")
"""Measures that the matrix can show, the first at the start."""
BRIEF: tuple[MeasureName, ...] = ("acc", "asr")
"""Measures beside the name of a folded group of cells."""


@dataclass(frozen=True)
class IllustratedPanel:
    """A panel with its pictures."""

    title: str
    panel: Panel
    pictures: Path
    """The folder below which the cells' figures lie."""
    plots: Mapping[str, bytes]
    """PNG by what it shows."""
    notes: Sequence[str] = ()
    """What could not be drawn, and why."""


def report(title: str, panels: Sequence[IllustratedPanel]) -> str:
    """The page, as HTML."""
    parts = [_part(number, part) for number, part in enumerate(panels)]
    return render("report/report.html", title=title, script=file_text("report/report.js"), filters={"shown": shown}, parts=parts)


def _part(number: int, part: IllustratedPanel) -> dict[str, Any]:
    panel = part.panel

    def anchor(attack: str, defense: str) -> str:
        return f"s{number}-a{panel.attacks.index(attack)}-d{panel.defenses.index(defense)}"

    return {
        "id": f"s{number}",
        "title": part.title,
        "summary": Section("", (paragraph(sections.setting_line(panel)), *sections.caveats(panel), *sections.noted(panel))),
        "how_to_read": sections.how_to_read(panel),
        "matrices": {name: _matrix(panel, name, anchor) for name in MATRICES},
        "sections": [
            sections.defenses(panel),
            sections.attacks(panel),
            sections.undefended(panel),
            *sections.harm(panel),
            *sections.detectors(panel),
            sections.benign(panel),
            sections.costs(panel),
        ],
        "plots": [Picture(shows, png_uri(png)) for shows, png in part.plots.items()],
        "undrawn": list(part.notes),
        "groups": [_group(part, attack, defense, anchor(attack, defense)) for attack in panel.attacks for defense in panel.defenses],
        "provenance": sections.provenance(panel),
    }


def _matrix(panel: Panel, name: MeasureName, anchor: Callable[[str, str], str]) -> Table:
    """One measure; each field leads to its cells."""
    found = matrix(panel, [name], link=lambda attack, defense: f"#{anchor(attack, defense)}")
    return replace(found, title=label(name), note=paragraph(sections.meaning(name)))


def _group(part: IllustratedPanel, attack: str, defense: str, anchor: str) -> dict[str, Any]:
    """The cells of one field of the matrix."""
    fields = {name: matrix_field(part.panel, attack, defense, [name]) for name in BRIEF}
    first = fields[BRIEF[0]]
    brief = ", ".join(f"{label(name)} {field.text}" for name, field in fields.items() if field.numbers) or first.text
    return {
        "id": anchor,
        "attack": attack,
        "defense": defense,
        "brief": f"{brief} ({first.note})" if first.note else brief,
        "seeds": [cell_details(cell, part.pictures) for cell in part.panel.at(attack, defense)],
    }
