"""The page of a published board: everything that is said of it, made from its results alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gatecrash.boards import sections
from gatecrash.boards.content import Block, Content, Folded, Picture, Section, paragraph
from gatecrash.boards.panel import Panel, arrange
from gatecrash.boards.tables.matrix import OUTDATED, accuracy_restored, matrix
from gatecrash.records.measures import MEASURES
from gatecrash.records.result import Result


def page(
    name: str, results: Iterable[Result], outdated: Mapping[str, str] | None = None, figures: Mapping[str, str] | None = None
) -> Content:
    """The board called `name`; cells whose keys are in `outdated`, with the reason, are marked.

    `figures` are paths of pictures by what they show.
    """
    panel = arrange(results)
    return Content(
        name,
        (
            _summary(panel, outdated or {}, figures or {}),
            sections.defenses(panel),
            sections.attacks(panel),
            sections.undefended(panel),
            *sections.harm(panel),
            *sections.backdoors(panel),
            *sections.retuned(panel),
            *sections.robustness(panel),
            *sections.detectors(panel),
            sections.benign(panel),
            sections.costs(panel),
            *sections.lost(panel),
            sections.reproduction(name, panel.cells[0]),
            sections.provenance(panel),
        ),
    )


def _summary(panel: Panel, outdated: Mapping[str, str], figures: Mapping[str, str]) -> Section:
    blocks: list[Block] = [paragraph(sections.setting_line(panel)), paragraph(sections.how_to_read(panel)), *sections.caveats(panel)]
    blocks += sections.noted(panel)
    reasons = sorted({outdated[cell.key] for cell in panel.cells if cell.key in outdated})
    if reasons:
        blocks.append(paragraph(f"{OUTDATED} measured with older versions than this checkout has ({'; '.join(reasons)})."))
    blocks.append(matrix(panel, ["acc", "asr"], outdated))
    blocks += [Picture(shows, path) for shows, path in figures.items()]
    restored = MEASURES["ra"]
    blocks.append(Folded(f"{restored.label}: {restored.title}", accuracy_restored(panel)))
    return Section("", tuple(blocks))
