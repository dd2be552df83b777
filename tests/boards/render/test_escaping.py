"""Whatever YAML, plugins, options and data sets say is text: the markup of a board is the same whatever it says."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gatecrash.boards.content import Code, Commands, Content, Field, Folded, Link, Listing, Picture, Section, Strong, Table, paragraph
from gatecrash.boards.render import FORMATS
from gatecrash.boards.render.html import to_html
from gatecrash.boards.render.markdown import to_markdown
from gatecrash.boards.render.plain import plain, readable, target

HOSTILE = [
    "\\\r",
    "&=",
    "![](http://gatecrash.invalid/x.png)",
    "<img src=x onerror=alert(1)>",
    "a|b",
    "`code`",
    "``` \n# x",
    "</details><script>1</script>",
    "\" onload='x",
    "- item",
    "1. item",
    "+ item",
    "===",
    "&lt;b&gt;",
    "[a](b)",
    "\\",
    "\\`",
    "\\|",
    "a\r\n| b | c |\n\n> d",
    "\udc80\udcff",
    "\u202eevil\x1b[31m\x00",
    "{{ 7 * 7 }}{% raw %}",
    "*b* _i_ ~~s~~ $m$ #h",
    "javascript:alert(1)",
]
"""What has been tried."""
texts = st.one_of(
    st.sampled_from(HOSTILE),
    st.lists(st.sampled_from([*HOSTILE, *"<>|`*_[]!()~$#&\\\n\t -+=1.:/\"'"]), min_size=1, max_size=6).map("".join),
    st.text(st.characters(), min_size=1),
).map(lambda text: f"x{text}x" if not plain(text).strip() else text)
"""Not empty: what says nothing has no markup."""


def everywhere(text: str) -> Content:
    """A board that has the text at every place where a text can be."""
    field = Field(text, note=text)
    other = "b" if text != "b" else "c"  # columns have names of their own
    table = Table((text, other), ((field, Field(text, link=text)),), text, (text,), paragraph(text, Code(text)))
    spans = paragraph(text, Strong(text), " and ", Code(text), " and ", Link(text, text))
    blocks = (
        spans,
        table,
        Table(("a",), (), empty=text),
        Listing((text, text)),
        Commands((text,)),
        Picture(text, text),
        Folded(text, table),
    )
    return Content(text, (Section(text, blocks), Section(text, (paragraph(text, caveat=True), paragraph(Strong(text))))))


class Tags(HTMLParser):
    """The tags of a page with the names of their attributes, in order, and what it shows and links to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, ...]] = []
        self.urls: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, *(name for name, _ in attrs)))
        self.urls += [value or "" for name, value in attrs if name in {"href", "src"}]

    def handle_endtag(self, tag: str) -> None:
        self.tags.append((f"/{tag}",))

    def handle_comment(self, data: str) -> None:
        self.tags.append(("comment",))


def markup(markdown: str) -> list[list[str]]:
    """What is markup in each line: no character after a backslash, and nothing in a code span or in commands."""
    found = []
    for line in markdown.split("\n"):
        if line.startswith("$ "):
            found.append(["command"])
            continue
        if line.startswith("<"):  # raw HTML, in which nothing else is markup
            found.append(re.findall(r"<[/a-z]*>?", line))
            continue
        line = re.sub(r"(?<!\\)((?:\\\\)*)(`+)(?!`)(.*?)(?<!`)\2(?!`)", r"\1<code>", line)
        line = re.sub(r"\]\([^\s()<>|`]*\)", "](url)", line)
        line = re.sub(r"&(?:lt|gt|amp);", "x", line)
        line = re.sub(r"\\[!-/:-@\[-`{-~]", "x", line)
        start = re.findall(r"^(?:- )?(?:[-+=]|\d+[.)])", line) if not line.startswith("|") else []
        found.append([*start, *re.findall(r"<[/a-z]*>?|!\[|[|`*_\[\]>~$#]|://|www\.", line)])
    return found


ORDINARY_HTML, ORDINARY_MARKDOWN = Tags(to_html([everywhere("x")])), markup(to_markdown([everywhere("x")]))


def every_hostile(test: Callable[[str], None]) -> Callable[[str], None]:
    for text in HOSTILE:
        test = example(text)(test)
    return test


@every_hostile
@settings(max_examples=150, deadline=None)
@given(texts)
def test_html_has_the_same_tags_whatever_a_text_says(text: str) -> None:
    page = to_html([everywhere(text)])
    page.encode()  # no lone surrogate
    found = Tags(page)
    assert found.tags == ORDINARY_HTML.tags
    assert not [url for url in found.urls if re.match(r"\s*(?!data:,)[A-Za-z][A-Za-z0-9+.-]*:|//", url)]


@every_hostile
@settings(max_examples=150, deadline=None)
@given(texts)
def test_markdown_has_the_same_markup_whatever_a_text_says(text: str) -> None:
    shown = to_markdown([everywhere(text)])
    shown.encode()
    assert markup(shown) == ORDINARY_MARKDOWN


def test_names_that_are_not_utf8_keep_a_readable_form() -> None:
    name = b"caf\xe9 \xff".decode("utf-8", "surrogateescape")
    assert readable(name) == "caf\\udce9 \\udcff"
    for form in ("markdown", "html", "csv"):
        assert "udce9" in FORMATS[form]([everywhere(name)]).encode().decode()
    lines = list(csv.reader(io.StringIO(FORMATS["csv"]([everywhere("a\nb")]))))
    assert lines[1][0] == "a\nb"  # CSV keeps line breaks


@pytest.mark.parametrize(
    ("link", "shown"),
    [
        ("figures/digits-heatmap.png", "figures/digits-heatmap.png"),
        ("#s0-d1-a2", "#s0-d1-a2"),
        ("https://example.org/a?b=c", "https://example.org/a?b=c"),
        ("data:image/png;base64,iVBOR+/=", "data:image/png;base64,iVBOR+/="),
        ("data:text/html,x", ""),
        ("JavaScript:x", ""),
        (" javascript:x", ""),
        ("//elsewhere/x", ""),
        ("a) ![x](b", "a%29%20%21%5Bx%5D%28b"),
        ("\udc80", "%5Cudc80"),
    ],
)
def test_links_lead_to_files_and_pages_only(link: str, shown: str) -> None:
    assert target(link) == shown
