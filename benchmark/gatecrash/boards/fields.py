"""Fields of tables: how numbers of results are summed up and written. What a measure is called and counted in is in its declaration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from gatecrash.boards.content import Field, Paragraph, Quantity, Table
from gatecrash.boards.statistics import over_seeds
from gatecrash.boards.text import percent
from gatecrash.evaluation.intervals import Interval
from gatecrash.records.measures import MEASURES, MeasureName
from gatecrash.records.result import Result

NO_RANK = Field("–", "mark")


def label(name: MeasureName) -> str:
    """A measure as the title of a column."""
    return MEASURES[name].label


def text(value: object, note: str = "") -> Field:
    return Field(str(value), note=note)


def rate(interval: Interval) -> Field:
    """`mean [low, high]` in percent; empty without a value."""
    return Field(percent(interval), "rate", _numbers(interval))


def ratio(interval: Interval) -> Field:
    """A value with its limits as a note; empty without a value."""
    if interval.value is None:
        return Field(kind="number")
    limits = "" if interval.low is None or interval.high is None else f"{interval.low:.3f} to {interval.high:.3f}"
    return Field(f"{interval.value:.3f}", "number", _numbers(interval), limits)


def rank(value: int | None) -> Field:
    return NO_RANK if value is None else Field(str(value), "number", (Quantity(value),))


def count(values: Iterable[bool | None], of: str = "") -> Field:
    """`2 of 3`: how many of the values that are given are true. As a number, their share."""
    given = [value for value in values if value is not None]
    return share(sum(given), len(given), of) if given else Field(kind="count")


def share(part: int, whole: int, of: str = "") -> Field:
    """`2 of 3`, or with `of`, `2 of 3 defenses`."""
    return Field(f"{part} of {whole}{f' {of}' if of else ''}", "count", (Quantity(part / whole),))


def summary(cells: Iterable[Result], name: MeasureName) -> Field:
    """A measure of several cells in one field: rates with the interval over seeds, mean seconds, the highest peak memory."""
    cells, unit = list(cells), MEASURES[name].unit
    if unit == "rate":
        return rate(over_seeds(cells, name))
    if unit == "ratio":
        return ratio(over_seeds(cells, name))
    values = [value for cell in cells if (value := cell.measures.value(name)) is not None]
    if not values:
        return Field(kind="number")
    found = max(values) if unit == "MB" else sum(values) / len(values)
    return Field(f"{found:,.0f}" if unit == "MB" else f"{found:.1f}", "number", (Quantity(found),))


def measured(cells: Sequence[Result], name: MeasureName) -> Field:
    """A rate or a ratio of one attack under one defense: over seeds; of a single seed over images, where the measure has an interval."""
    having = [cell for cell in cells if cell.measures.value(name) is not None]
    limits = having[0].measures.limits(name) if len(having) == 1 else None
    value = having[0].measures.value(name) if having else None
    write = ratio if MEASURES[name].unit == "ratio" else rate
    found = write(over_seeds(having, name) if value is None or limits is None else Interval(value, *limits))
    return replace(found, numbers=tuple(replace(number, measure=label(name)) for number in found.numbers))


def table(
    rows: Sequence[Mapping[str, Field]], row_names: tuple[str, ...], title: str = "", note: Paragraph | None = None, empty: str = ""
) -> Table:
    """A table of rows by column title, all with the same columns."""
    columns = tuple(rows[0]) if rows else ()
    return Table(columns, tuple(tuple(row[column] for column in columns) for row in rows), title, row_names, note, empty)


def _numbers(interval: Interval) -> tuple[Quantity, ...]:
    return () if interval.value is None else (Quantity(interval.value, interval.low, interval.high),)
