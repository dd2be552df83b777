"""ACC and ASR along a defense's trajectory, or over the values of an option that was swept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from gatecrash.boards.panel import Panel
from gatecrash.boards.plots.style import drawing, look, short
from gatecrash.boards.statistics import over_seeds
from gatecrash.errors import UserError, did_you_mean
from gatecrash.records.measures import MEASURES
from gatecrash.records.plan import NONE
from gatecrash.records.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


CurveMeasure = Literal["acc", "asr"]
DRAWN: tuple[CurveMeasure, ...] = ("acc", "asr")


@dataclass(frozen=True)
class CurvePoint:
    """One point of a line; `low` and `high` limit the interval over seeds, if there is one. `chosen` marks the defense's choice."""

    x: Any
    value: float
    low: float | None = None
    high: float | None = None
    chosen: bool = False


Lines = dict[str, list[list[CurvePoint]]]
"""Lines by label; several lines of one label (one for each seed) have one colour and marker."""


def curve(panel: Panel, defense: str, x: str | None = None) -> Figure:
    """The curve of the defense called `defense` (all its variants together) over `x`.

    `x` is a parameter of its trajectory (scored by the evaluation, never seen by the defense; one line per seed, the defense's own choice
    ringed) or an option in which its cells, or their attacks, differ (means and 95% intervals over seeds). By default an option that was
    swept, else the trajectory's first parameter. Raises UserError with what there is.
    """
    cells = [cell for cell in panel.cells if cell.defense_name == defense and cell.status == "ok"]
    if not cells:
        raise UserError(
            f"no finished cell of a defense {defense!r}; {did_you_mean(defense, {c.defense_name for c in panel.cells} - {NONE})}"
        )
    swept, steps = _swept(cells), _parameters(cells)
    known = [*swept, *(name for name in steps if name not in swept)]
    if x is None:
        if not known:
            raise UserError(f"{defense} has no trajectory and no option was swept; write a list of values in the grid")
        x = known[0]
    elif x not in known:
        raise UserError(f"--x {x}: {defense} has no such option or parameter that varies; {did_you_mean(x, known)}")
    with drawing() as figure_class:
        figure = figure_class(figsize=(10.4, 4.2), layout="constrained")
        for axis, measure in zip(figure.subplots(1, 2), DRAWN, strict=True):
            lines = _sweep(cells, x, measure) if x in swept else _trajectories(panel, cells, x, measure)
            _draw(axis, lines)
            axis.set_xlabel(short(x))
            axis.set_ylabel(f"{MEASURES[measure].title}, %")
            axis.set_ylim(-4, 104)
            axis.grid(alpha=0.3)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", frameon=False)
        ringed = any(step.params.get("chosen") for cell in cells for step in cell.trajectory)
        lines_are = "one line per seed" + ("; ringed: what the defense chose" if ringed else "")
        how = "means and 95% intervals over seeds" if x in swept else lines_are
        figure.suptitle(f"{short(defense)}: {how}", fontsize=10)
    return figure


def _swept(cells: Sequence[Result]) -> list[str]:
    """Options in which the cells differ: of the defense first, then of the attacks (compared within one attack)."""
    differing: dict[str, None] = {}
    for part in ("defense", "attack"):
        seen: dict[tuple[str, str], set[str]] = {}
        for cell in cells:
            config = cell.defense_config if part == "defense" else cell.attack.config
            for option, value in config.items():
                seen.setdefault((cell.attack.name, option), set()).add(repr(value))
        differing |= {option: None for (_, option), values in seen.items() if len(values) > 1}
    return list(differing)


def _parameters(cells: Sequence[Result]) -> list[str]:
    """Parameters that change along the trajectories, without the mark `chosen`."""
    seen: dict[str, set[str]] = {}
    for cell in cells:
        for step in cell.trajectory:
            for name, value in step.params.items():
                seen.setdefault(name, set()).add(repr(value))
    varying = [name for name, values in seen.items() if len(values) > 1 and name != "chosen"]
    return sorted(varying, key=lambda name: (not _steady(cells, name), -len(seen[name]), name))


def _steady(cells: Sequence[Result], name: str) -> bool:
    """Whether the parameter only grows, or only shrinks, along every trajectory."""
    lines: list[list[Any]] = [[step.params.get(name) for step in cell.trajectory] for cell in cells if cell.trajectory]
    if not all(isinstance(value, int | float) for line in lines for value in line):
        return False
    return all(line in (sorted(line), sorted(line, reverse=True)) for line in lines)


def _trajectories(panel: Panel, cells: Sequence[Result], x: str, measure: CurveMeasure) -> Lines:
    lines: Lines = {}
    for cell in cells:
        points = [
            CurvePoint(step.params[x], 100 * value, chosen=bool(step.params.get("chosen")))
            for step in cell.trajectory
            if x in step.params and (value := step.value(measure)) is not None
        ]
        label = panel.attack_of[cell.key] + panel.defense_of[cell.key].removeprefix(cell.defense_name)
        lines.setdefault(label, []).append(points)  # without points too, so that colours are those of the other figure
    return lines


def _sweep(cells: Sequence[Result], x: str, measure: CurveMeasure) -> Lines:
    """A line for each combination of everything else in which the cells differ."""
    groups: dict[str, dict[str, tuple[Any, list[Result]]]] = {}
    others = [option for option in _swept(cells) if option != x]
    for cell in cells:
        options = cell.attack.config | cell.defense_config
        if x in options:
            rest = ", ".join(f"{option}={options[option]}" for option in others if option in options)
            members = groups.setdefault(f"{cell.attack.name}{f' ({rest})' if rest else ''}", {})
            members.setdefault(repr(options[x]), (options[x], []))[1].append(cell)
    lines: Lines = {}
    for label, members in groups.items():
        points = []
        for value, same in members.values():
            mean = over_seeds(same, measure)
            if mean.value is not None:
                low, high = (None if limit is None else 100 * limit for limit in (mean.low, mean.high))
                points.append(CurvePoint(value, 100 * mean.value, low, high))
        lines[label] = [_in_order(points)]
    return lines


def _in_order(points: list[CurvePoint]) -> list[CurvePoint]:
    numbers = all(isinstance(point.x, int | float) for point in points)
    ordered = sorted(points, key=lambda point: point.x) if numbers else sorted(points, key=lambda point: str(point.x))
    return ordered if numbers else [CurvePoint(str(point.x), *list(vars(point).values())[1:]) for point in ordered]


def _draw(axis: Any, lines: Lines) -> None:
    for index, (label, several) in enumerate(lines.items()):
        style = look(index)
        for number, points in enumerate(several):
            xs, ys = [point.x for point in points], [point.value for point in points]
            bars = None
            if any(point.low is not None for point in points):
                bars = [
                    [point.value - (point.value if point.low is None else point.low) for point in points],
                    [(point.value if point.high is None else point.high) - point.value for point in points],
                ]
            name = short(label) if number == 0 else None
            axis.errorbar(xs, ys, yerr=bars, label=name, markersize=4, linewidth=1.2, capsize=2, elinewidth=1, **style)
            ringed = [point for point in points if point.chosen]
            if ringed:
                axis.scatter(
                    [point.x for point in ringed],
                    [point.value for point in ringed],
                    s=110,
                    facecolors="none",
                    edgecolors=style["color"],
                    zorder=3,
                )
