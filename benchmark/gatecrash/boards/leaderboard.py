"""Results -> Markdown, concise: the matrix, the attacks alone, the defenses. `gatecrash.boards.page` tells a published board whole."""

from __future__ import annotations

from collections.abc import Iterable

from gatecrash.boards.panel import Panel, panel
from gatecrash.boards.sections import attacks_alone, defense_ranking, lost_cells, matrix
from gatecrash.boards.spec import LIMITS, dataset_label
from gatecrash.boards.text import escape
from gatecrash.records.result import Result


def board(results: Iterable[Result], title: str) -> str:
    """The leaderboard of these results (one dataset, model and recipe) as Markdown."""
    arranged = panel(results)
    if not arranged.cells:
        return f"# {escape(title)}\n\nNo results yet.\n"
    lines = [f"# {escape(title)}", "", setting_line(arranged), "", how_to_read(arranged), "", matrix(arranged), ""]
    lines += ["## Attacks without defense", "", attacks_alone(arranged), ""]
    lines += ["## Defenses, averaged over the attacks that landed", "", defense_ranking(arranged, details=False), ""]
    lost = lost_cells(arranged, with_missing=False)
    if lost:
        lines += ["## Cells without scores", "", *lost, ""]
    return "\n".join(lines)


def setting_line(panel: Panel) -> str:
    first = panel.cells[0]
    seeds = ", ".join(map(str, panel.seeds))
    return (
        f"{escape(dataset_label(first))}, {escape(first.model.name)}, {first.recipe.get('epochs')} epochs; "
        f"{'seed' if len(panel.seeds) == 1 else 'seeds'} {seeds}."
    )


def how_to_read(panel: Panel) -> str:
    several = len(panel.seeds) > 1
    return (
        "Clean accuracy (ACC) / attack success rate (ASR) in %; higher ACC and lower ASR are better for the defense. "
        + ("The range is the 95% t interval over seeds" if several else "The range is the 95% Wilson interval over test images")
        + (f" (n = {len(panel.seeds)} unless given)." if several else ".")
    )


def caveats(panel: Panel) -> list[str]:
    """What keeps these numbers from being compared as one might: a single seed, a part of the dataset."""
    notes = []
    if len(panel.seeds) == 1:
        notes.append(
            "**One seed (n = 1).** How much the numbers vary from training to training is not known: intervals are Wilson intervals over "
            "test images, and defenses are listed by mean DER but not ranked."
        )
    limits = [(panel.cells[0].dataset.config.get(option), what) for option, what in LIMITS.items()]
    taken = [f"{limit:,} {what} images" for limit, what in limits if isinstance(limit, int)]
    if taken:
        notes.append(f"**A part of the dataset:** {' and '.join(taken)} of it, stratified by class. Compare within this board only.")
    return notes
