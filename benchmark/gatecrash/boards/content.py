"""What a board says, in no format yet: sections of paragraphs, tables, lists and commands.

All text here is plain. `gatecrash.boards.render` turns it into Markdown, HTML or CSV and does all the escaping.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

FieldKind = Literal["text", "rate", "number", "count", "mark"]


@dataclass(frozen=True)
class Quantity:
    """A value with the limits of its 95% interval, if it has one. Rates are fractions in [0, 1]."""

    value: float
    low: float | None = None
    high: float | None = None
    measure: str = ""
    """What is measured, where the column does not say so."""


@dataclass(frozen=True)
class Field:
    """One field of a table. A `mark` stands where there is no number: why it is missing, or that there is no rank."""

    text: str = ""
    kind: FieldKind = "text"
    numbers: tuple[Quantity, ...] = ()
    """The numbers that the text shows, unrounded."""
    note: str = ""
    """A remark on this field, shown in parentheses."""
    link: str = ""


@dataclass(frozen=True)
class Strong:
    text: str


@dataclass(frozen=True)
class Code:
    text: str


@dataclass(frozen=True)
class Link:
    text: str
    target: str


@dataclass(frozen=True)
class Paragraph:
    spans: tuple[str | Strong | Code | Link, ...]
    caveat: bool = False
    """Whether it warns of a limit of the numbers."""


def paragraph(*spans: str | Strong | Code | Link, caveat: bool = False) -> Paragraph:
    return Paragraph(spans, caveat)


@dataclass(frozen=True)
class Table:
    columns: tuple[str, ...]
    rows: tuple[tuple[Field, ...], ...]
    """As many fields in each as there are columns."""
    title: str = ""
    row_names: tuple[str, ...] = ()
    """The columns that say what a row is about."""
    note: Paragraph | None = None
    empty: str = ""
    """What is said instead of a table without rows."""

    def row_name(self, row: tuple[Field, ...]) -> str:
        return ", ".join(field.text for column, field in zip(self.columns, row, strict=True) if column in self.row_names)


@dataclass(frozen=True)
class Listing:
    items: tuple[str, ...]


@dataclass(frozen=True)
class Commands:
    """Commands for a shell, one a line."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    shows: str
    source: str
    """A path or a data URI."""


@dataclass(frozen=True)
class Folded:
    """A table that a reader unfolds."""

    summary: str
    table: Table


Block = Paragraph | Table | Listing | Commands | Picture | Folded


@dataclass(frozen=True)
class Section:
    heading: str
    """Empty for the first section of a board."""
    blocks: tuple[Block, ...]

    def tables(self) -> Iterator[Table]:
        for block in self.blocks:
            if isinstance(block, Folded):
                yield block.table
            elif isinstance(block, Table):
                yield block


@dataclass(frozen=True)
class Content:
    """A board as a whole."""

    title: str
    sections: tuple[Section, ...]
