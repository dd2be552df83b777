"""ACC and ASR along a defense's trajectory, or over the values of an option that was swept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from gatecrash.boards.panel import Panel
from gatecrash.boards.plots.style import LEGEND, drawing, head, legend, legend_size, look, wrapped
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


@dataclass(frozen=True)
class Line:
    """`points` by seed, or one list over all seeds: all of one colour and marker."""

    label: str
    points: list[list[CurvePoint]]


POISON_RATE = "poison_rate"
"""An option of attacks that goes through orders of magnitude."""


def curve(panel: Panel, defense: str, x: str | None = None) -> Figure:
    """The curve of the defense called `defense` (all its variants together) over `x`.

    `x` is a parameter of its trajectory (scored by the evaluation, never seen by the defense; one line per seed, the defense's own choice
    ringed) or an option in which its cells, or their attacks, differ (means and 95% intervals over seeds). By default an option that was
    swept, else the trajectory's first parameter. Raises UserError with what there is.
    """
    cells = _finished(panel, defense)
    swept = _swept(cells)
    x = _abscissa(defense, x, list(dict.fromkeys([*swept, *_parameters(cells)])))
    lines = {measure: _sweep(cells, x, measure) if x in swept else _trajectories(panel, cells, x, measure) for measure in DRAWN}
    how = _how(panel, None if x in swept else cells)
    with drawing() as figure_class:
        names = [wrapped(line.label, LEGEND) for line in lines[DRAWN[0]]]
        width, height = legend_size(names)
        figure = figure_class(figsize=(8.6 + width, max(4.4, 1.2 + height)), layout="constrained")
        axes = figure.subplots(1, 2)
        for axis, measure in zip(axes, DRAWN, strict=True):
            _draw(axis, lines[measure])
            declared = MEASURES[measure]
            axis.set_xlabel(wrapped(x, LEGEND))
            axis.set_ylabel(f"{declared.title}, % ({declared.direction})")
            axis.set_ylim(-4, 104)
            axis.grid(alpha=0.3)
            if x.removeprefix("attack.") == POISON_RATE:
                _rates(axis, lines[measure])
        handles, _ = axes[0].get_legend_handles_labels()
        legend(axes[-1], handles, names)
        whose = "Victims without a defense" if defense == NONE else defense
        head(figure, panel, f"{whose}: {how}" if how else whose)
    return figure


def rates(panel: Panel, defense: str = NONE) -> Figure:
    """The curve over the poisoned share of the training set, of the victims as they are or under a defense. Raises UserError."""
    names = [name for name in _swept(_finished(panel, defense)) if name.removeprefix("attack.") == POISON_RATE]
    if not names:
        raise UserError("no attack has several poison rates here; run a grid that has, such as `gatecrash run ladder`")
    return curve(panel, defense, names[0])


def _finished(panel: Panel, defense: str) -> list[Result]:
    """The defense's cells in the panel's order. Raises UserError where there are none."""
    ordered = (cell for attack in panel.attacks for label in panel.defenses for cell in panel.at(attack, label))
    cells = [cell for cell in ordered if cell.defense_name == defense and cell.status == "ok"]
    if not cells:
        known = {cell.defense_name for cell in panel.cells} - {NONE}
        raise UserError(f"no finished cell of a defense {defense!r}; {did_you_mean(defense, known)}")
    return cells


def _abscissa(defense: str, asked: str | None, known: Sequence[str]) -> str:
    """What the x axis shows, of what varies. Raises UserError where that is nothing, or not what is asked for."""
    if not known:
        raise UserError(f"{defense} has no trajectory and no option was swept; write a list of values in the grid")
    if asked is not None and asked not in known:
        raise UserError(f"--x {asked}: {defense} has no such option or parameter that varies; {did_you_mean(asked, known)}")
    return asked or known[0]


def _how(panel: Panel, trajectories: Sequence[Result] | None) -> str:
    """What a line is."""
    several = len(panel.seeds) > 1
    if trajectories is None:
        return "means and 95% intervals over seeds" if several else ""
    ringed = any(step.params.get("chosen") for cell in trajectories for step in cell.trajectory)
    return "; ".join(["one line per seed"] * several + ["ringed: what the defense chose"] * ringed)


def _rates(axis: Any, lines: Sequence[Line]) -> None:
    """A logarithmic axis of shares, written in percent; zero has a place of its own at its left end."""
    rates = sorted({float(point.x) for line in lines for points in line.points for point in points})
    positive = [rate for rate in rates if rate > 0]
    if positive:
        axis.set_xscale("symlog", linthresh=positive[0], linscale=0.5) if rates[0] <= 0 else axis.set_xscale("log")
        axis.set_xticks(rates, [f"{100 * rate:g}" for rate in rates])
        axis.set_xticks([], minor=True)
        axis.set_xlim(-positive[0] / 2 if rates[0] <= 0 else positive[0] / 1.5, 1.5 * positive[-1])
    axis.set_xlabel("poisoned share of the training set, %")


def _swept(cells: Sequence[Result]) -> list[str]:
    """Options in which the cells differ: of the defense first, then of the attacks (compared within one attack)."""
    options, seen = _options(cells), dict[tuple[str, str], set[str]]()
    for cell in cells:
        for option, value in options[cell.key].items():
            seen.setdefault((cell.attack.name, option), set()).add(_exactly(value))
    differing = dict.fromkeys(option for (_, option), values in seen.items() if len(values) > 1)
    of_defenses = {option for option in differing if any(option.removeprefix("defense.") in cell.defense_config for cell in cells)}
    return sorted(differing, key=lambda option: option not in of_defenses)


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


def _trajectories(panel: Panel, cells: Sequence[Result], x: str, measure: CurveMeasure) -> list[Line]:
    lines: dict[str, Line] = {}
    for cell in cells:
        points = [
            CurvePoint(step.params[x], 100 * value, chosen=bool(step.params.get("chosen")))
            for step in cell.trajectory
            if x in step.params and (value := step.value(measure)) is not None
        ]
        label = panel.attack_of[cell.key] + panel.defense_of[cell.key].removeprefix(cell.defense_name)
        lines.setdefault(label, Line(label, [])).points.append(points)  # without points too: colours are those of the other figure
    return list(lines.values())


def _sweep(cells: Sequence[Result], x: str, measure: CurveMeasure) -> list[Line]:
    """A line for each attack and combination of all other options in which the cells differ."""
    groups: dict[tuple[str, ...], list[Result]] = {}
    all_options = _options(cells)
    others = [option for option in _swept(cells) if option != x]
    for cell in cells:
        options = all_options[cell.key]
        if x in options:
            groups.setdefault((cell.attack.name, *(_exactly(options.get(option)) for option in others)), []).append(cell)
    lines = []
    for key, members in groups.items():
        namesakes = [other for other in groups if other[0] == key[0]]
        varying = [option for place, option in enumerate(others, 1) if len({other[place] for other in namesakes}) > 1]
        points = _points([(all_options[cell.key][x], cell) for cell in members], measure)
        rest = ", ".join(f"{option}={all_options[members[0].key].get(option)}" for option in varying)
        lines.append(Line(f"{key[0]} ({rest})" if rest else key[0], [_in_order(points)]))
    return lines


def _points(members: Sequence[tuple[Any, Result]], measure: CurveMeasure) -> list[CurvePoint]:
    """A point for each value, over the seeds that have it."""
    by_value: dict[str, tuple[Any, list[Result]]] = {}
    for value, cell in members:
        by_value.setdefault(_exactly(value), (value, []))[1].append(cell)
    means = [(value, over_seeds(cells, measure)) for value, cells in by_value.values()]
    return [CurvePoint(value, 100 * mean.value, _percent(mean.low), _percent(mean.high)) for value, mean in means if mean.value is not None]


def _percent(rate: float | None) -> float | None:
    return None if rate is None else 100 * rate


def _options(cells: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """By key of the cell, the options of its defense and of its attack; `attack.NAME` and `defense.NAME` where both kinds have a NAME."""
    both = {name for cell in cells for name in cell.attack.config} & {name for cell in cells for name in cell.defense_config}

    def named(kind: str, config: dict[str, Any]) -> dict[str, Any]:
        return {f"{kind}.{name}" if name in both else name: value for name, value in config.items()}

    return {cell.key: named("defense", cell.defense_config) | named("attack", cell.attack.config) for cell in cells}


def _exactly(value: Any) -> str:
    """An option's value as its identity, unlike what is shown of it."""
    return json.dumps(value, sort_keys=True, default=repr)


def _in_order(points: list[CurvePoint]) -> list[CurvePoint]:
    numbers = all(isinstance(point.x, int | float) for point in points)
    ordered = sorted(points, key=lambda point: point.x) if numbers else sorted(points, key=lambda point: str(point.x))
    return ordered if numbers else [replace(point, x=wrapped(point.x, LEGEND)) for point in ordered]


def _draw(axis: Any, lines: Sequence[Line]) -> None:
    for index, line in enumerate(lines):
        style = look(index)
        for number, points in enumerate(line.points):
            xs, ys = [point.x for point in points], [point.value for point in points]
            bars = None
            if any(point.low is not None for point in points):
                bars = [
                    [point.value - (point.value if point.low is None else point.low) for point in points],
                    [(point.value if point.high is None else point.high) - point.value for point in points],
                ]
            name = wrapped(line.label, LEGEND) if number == 0 else None
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
