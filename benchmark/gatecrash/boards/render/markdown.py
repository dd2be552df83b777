"""Markdown: nothing in a text is markup but what its span says."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

from tabulate import tabulate

from gatecrash.boards.content import Block, Code, Commands, Content, Field, Folded, Link, Listing, Paragraph, Picture, Strong, Table
from gatecrash.boards.render.plain import plain, target

_MARKUP = re.compile(r"\\(?! )|[|`*_\[\]<>~$#&]|(?<=:)/(?=/)|(?<=www)\.", re.IGNORECASE)
"""Characters that may be markup or make a link of a bare address; a backslash before a space is none."""
_AT_START = re.compile(r"^(\s*)(?:([-+=])|(\d+)([.)]))")
"""What makes an item or a heading of a line that begins with it."""
_ENTITIES = {"&": "&amp;", "<": "&lt;"}


def to_markdown(contents: Sequence[Content]) -> str:
    return "\n".join("\n\n".join(_content(content)) + "\n" for content in contents)


def blocks_to_markdown(blocks: Sequence[Block]) -> str:
    """Blocks without the board around them."""
    return "\n\n".join(part for block in blocks for part in _block(block))


def escape(text: str) -> str:
    """Text as it reads, in one line: nothing in it is markup, HTML, the end of a table's field or an invisible character."""
    return _escape(plain(text).strip())


def _escape(text: str) -> str:
    return _MARKUP.sub(lambda found: _ENTITIES.get(found[0], f"\\{found[0]}"), plain(text))


def _line(markdown: str) -> str:
    """A line whose beginning is text."""
    return _AT_START.sub(lambda found: f"{found[1]}{found[3] or ''}\\{found[2] or found[4]}", markdown)


def _content(content: Content) -> Iterator[str]:
    yield f"# {escape(content.title)}"
    for section in content.sections:
        if section.heading:
            yield f"## {escape(section.heading)}"
        for block in section.blocks:
            yield from _block(block)


def _block(block: Block) -> Iterator[str]:
    """Parts that an empty line keeps apart."""
    match block:
        case Paragraph():
            yield ("> " if block.caveat else "") + _line("".join(map(_span, block.spans)))
        case Table():
            if block.title:
                yield f"**{escape(block.title)}**"
            if block.note:
                yield from _block(block.note)
            yield _table(block)
        case Listing():
            yield "\n".join(f"- {_line(escape(item))}" for item in block.items)
        case Commands():
            yield "\n".join(["```console", *(f"$ {plain(line)}" for line in block.lines), "```"])
        case Picture():
            yield f"![{escape(block.shows)}]({target(block.source)})"
        case Folded():
            yield f"<details><summary>{html.escape(plain(block.summary), quote=False)}</summary>"
            yield _table(block.table)
            yield "</details>"


def _span(span: str | Strong | Code | Link) -> str:
    match span:
        case Strong(text):
            return f"**{escape(text)}**"
        case Code(text):
            return _code(plain(text).strip())
        case Link(text, address):
            return f"[{escape(text)}]({target(address)})"
    return _escape(span)


def _code(text: str) -> str:
    """Between more backticks than the text has in a row."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    gap = " " if "`" in text else ""
    return f"{fence}{gap}{text}{gap}{fence}" if text else ""


def _table(table: Table) -> str:
    if not table.rows:
        return _line(escape(table.empty))
    rows = [[_field(field) for field in row] for row in table.rows]
    return tabulate(rows, headers=[escape(column) for column in table.columns], tablefmt="pipe", disable_numparse=True)


def _field(field: Field) -> str:
    plain = field.text if field.kind == "rate" else escape(field.text)  # of numbers and brackets: read in terminals too
    text = f"[{escape(field.text)}]({target(field.link)})" if field.link else plain
    return f"{text} ({escape(field.note)})" if field.note else text
