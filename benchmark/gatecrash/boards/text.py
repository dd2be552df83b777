"""Cells of Markdown tables: numbers with their intervals, and text that no plugin can break a table with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from gatecrash.evaluation.intervals import Interval, t_interval

_MARKUP = "\\|`*_[]<>~$#"
NOTHING = ""


def escape(text: object) -> str:
    """Text as it reads, in one line: nothing in it is markup, HTML, the end of a table cell or an invisible character."""
    line = " ".join(str(text).split())
    shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)
    return "".join(_ENTITIES.get(character) or (f"\\{character}" if character in _MARKUP else character) for character in shown)


_ENTITIES = {"&": "&amp;", "<": "&lt;"}


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """A Markdown table of these rows, all with the same columns; the cells are Markdown already."""
    return tabulate([dict(row) for row in rows], headers="keys", tablefmt="pipe", disable_numparse=True)


def percent(interval: Interval) -> str:
    """`mean ± half-width` in percent; the mean alone without limits."""
    if interval.value is None:
        return NOTHING
    if interval.low is None or interval.high is None:
        return f"{100 * interval.value:.1f}"
    return f"{100 * interval.value:.1f} ± {100 * max(interval.value - interval.low, interval.high - interval.value):.1f}"


def spread(values: Sequence[float], single: Sequence[float] | None = None) -> str:
    """Mean and t interval of rates over seeds, in percent; for one value with the limits in `single`, if given."""
    if len(values) == 1 and single is not None:
        return f"{100 * values[0]:.1f} ± {100 * (single[1] - single[0]) / 2:.1f}"
    return percent(t_interval(list(values)))


def option_text(value: Any) -> str:
    """An option's value, short."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
