"""Tables as one CSV file in long form: a line for each number, and for each text that stands where a number could."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from gatecrash.boards.content import Content, Table

COLUMNS = ("board", "section", "table", "row", "column", "measure", "value", "low", "high", "text")
"""`text` is the field as people read it. Rates in `value`, `low` and `high` are fractions in [0, 1]; the limits are of a 95% interval."""


def to_csv(contents: Sequence[Content]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for content in contents:
        for section in content.sections:
            for table in section.tables():
                writer.writerows((content.title, section.heading, table.title, *line) for line in _lines(table))
    return out.getvalue().encode(errors="backslashreplace").decode()  # names that were not UTF-8


def _lines(table: Table) -> Iterator[tuple[str | float | None, ...]]:
    for row in table.rows:
        name = table.row_name(row)
        for column, field in zip(table.columns, row, strict=True):
            if column in table.row_names:
                continue
            shown = f"{field.text} ({field.note})" if field.note else field.text
            for number in field.numbers:
                yield name, column, number.measure, number.value, number.low, number.high, shown
            if shown and not field.numbers:
                yield name, column, "", None, None, None, shown
