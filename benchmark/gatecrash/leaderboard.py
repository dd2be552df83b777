"""Results -> Markdown, concise: the matrix, the attacks alone, the defenses. `gatecrash.boards.page` tells a published board whole."""

from __future__ import annotations

from collections.abc import Iterable

from gatecrash.boards.panel import Panel, panel
from gatecrash.boards.sections import attacks_alone, defense_ranking, lost_cells, matrix
from gatecrash.boards.text import escape
from gatecrash.results import Result


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
    return f"{escape(first.dataset.name)}, {escape(first.model.name)}, {first.recipe.get('epochs')} epochs; seeds {seeds}."


def how_to_read(panel: Panel) -> str:
    several = len(panel.seeds) > 1
    return (
        "Clean accuracy (ACC) / attack success rate (ASR) in %; higher ACC and lower ASR are better for the defense. "
        + ("The range is the 95% t interval over seeds" if several else "One seed: the range is the Wilson interval over test images")
        + f" (n = {len(panel.seeds)} unless given)."
    )
