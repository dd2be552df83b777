"""Markdown: nothing in a text is markup but what its span says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tabulate import tabulate

from gatecrash.boards.content import Block, Code, Commands, Content, Field, Folded, Link, Listing, Paragraph, Picture, Strong, Table

_MARKUP = re.compile(r"\\(?! )|[|`*_\[\]<>~$#&]")
"""Characters that may be markup; a backslash before a space is none."""
_ENTITIES = {"&": "&amp;", "<": "&lt;"}


def to_markdown(contents: Sequence[Content]) -> str:
    return "\n".join("\n\n".join(_content(content)) + "\n" for content in contents)


def blocks_to_markdown(blocks: Sequence[Block]) -> str:
    """Blocks without the board around them."""
    return "\n\n".join(part for block in blocks for part in _block(block))


def escape(text: str) -> str:
    """Text as it reads, in one line: nothing in it is markup, HTML, the end of a table's field or an invisible character."""
    return _escape(text.strip())


def _escape(text: str) -> str:
    return _MARKUP.sub(lambda found: _ENTITIES.get(found[0], f"\\{found[0]}"), _one_line(text))


def _one_line(text: str) -> str:
    line = re.sub(r"\s+", " ", text)
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)


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
            yield ("> " if block.caveat else "") + "".join(map(_span, block.spans))
        case Table():
            if block.title:
                yield f"**{escape(block.title)}**"
            if block.note:
                yield from _block(block.note)
            yield _table(block)
        case Listing():
            yield "\n".join(f"- {escape(item)}" for item in block.items)
        case Commands():
            yield "\n".join(["```console", *(f"$ {_one_line(line)}" for line in block.lines), "```"])
        case Picture():
            yield f"![{escape(block.shows)}]({block.source})"
        case Folded():
            yield f"<details><summary>{escape(block.summary)}</summary>"
            yield _table(block.table)
            yield "</details>"


def _span(span: str | Strong | Code | Link) -> str:
    match span:
        case Strong(text):
            return f"**{escape(text)}**"
        case Code(text):
            return f"`{_one_line(text).replace('`', '')}`"
        case Link(text, target):
            return f"[{escape(text)}]({target})"
    return _escape(span)


def _table(table: Table) -> str:
    if not table.rows:
        return escape(table.empty)
    rows = [[_field(field) for field in row] for row in table.rows]
    return tabulate(rows, headers=[escape(column) for column in table.columns], tablefmt="pipe", disable_numparse=True)


def _field(field: Field) -> str:
    plain = field.text if field.kind == "rate" else escape(field.text)  # of numbers and brackets: read in terminals too
    text = f"[{escape(field.text)}]({field.link})" if field.link else plain
    return f"{text} ({escape(field.note)})" if field.note else text
