"""The documents of this repository: code blocks, links and anchors, as a Markdown parser finds them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.token import Token

from support.paths import ROOT

PAGES = tuple(
    sorted(
        path.relative_to(ROOT).as_posix()
        for pattern in ("*.md", "docs/**/*.md", "plugins/*.md", "leaderboards/*.md")
        for path in ROOT.glob(pattern)
    )
)


@dataclass(frozen=True)
class Block:
    """A fenced code block."""

    language: str
    text: str


@cache
def _tokens(page: str) -> tuple[Token, ...]:
    parser = MarkdownIt("commonmark").enable("table")
    return tuple(parser.parse((ROOT / page).read_text(encoding="utf-8")))


def _inline(page: str) -> list[Token]:
    return [child for token in _tokens(page) for child in token.children or []]


def blocks(page: str) -> list[Block]:
    return [Block(token.info, token.content) for token in _tokens(page) if token.type == "fence"]


def code_blocks(page: str, language: str) -> list[str]:
    return [block.text for block in blocks(page) if block.language == language]


def code_block(page: str, words: str) -> str:
    """The one code block that has these words."""
    (found,) = [block.text for block in blocks(page) if words in block.text]
    return found


def code_spans(page: str) -> list[str]:
    """Code inside sentences and tables."""
    return [token.content for token in _inline(page) if token.type == "code_inline"]


def links(page: str) -> list[str]:
    """Targets of links and pictures."""
    targets = [token.attrGet("href") or token.attrGet("src") for token in _inline(page) if token.type in {"link_open", "image"}]
    return [str(target) for target in targets]


@cache
def anchors(page: str) -> frozenset[str]:
    """The anchors that GitHub gives the page's headings."""
    tokens = _tokens(page)
    headings = [tokens[index + 1] for index, token in enumerate(tokens) if token.type == "heading_open"]
    found: list[str] = []
    for heading in headings:
        text = "".join(child.content for child in heading.children or [] if child.type in {"text", "code_inline"})
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        repeated = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other) is not None for other in found)
        found.append(f"{slug}-{repeated}" if repeated else slug)
    return frozenset(found)
