"""A board is the same in every format: Markdown, HTML and CSV, and the report says what a page says."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gatecrash.boards.content import Block, Content, Field, Folded, Paragraph, Section, Table
from gatecrash.boards.page import page
from gatecrash.boards.panel import arrange
from gatecrash.boards.render import FORMATS
from gatecrash.boards.report import IllustratedPanel, report
from gatecrash.records.result import Result
from gatecrash.records.store import Store
from support.cells import cell, undefended

Gatecrash = Callable[..., Any]


def some() -> list[Result]:
    """Two defenses, one of which failed once, and a detector."""
    results = [*undefended(), *(cell("badnets", "zap", seed, asr=0.25 * seed) for seed in range(3))]
    results += [cell("badnets", "cut", seed, asr=0.5) for seed in range(2)]
    results += [cell("badnets", "cut", 2, status="failed", error="out of memory")]
    found = {"verdict": True, "detection_tpr": 0.8, "detection_fpr": 0.1, "detection_auroc": 0.95}
    return [*results, *(cell("badnets", "look", seed, gives=["verdict", "suspects"], measures=found) for seed in range(3))]


def said_in(blocks: tuple[Block, ...]) -> Iterator[str]:
    """Every text of these blocks, except what is in pictures, lists and commands."""
    for block in blocks:
        if isinstance(block, Paragraph):
            yield from (span if isinstance(span, str) else span.text for span in block.spans)
        elif isinstance(block, Table):
            yield from (block.title, *block.columns, *(field.text for row in block.rows for field in row))
            yield from said_in((block.note,) if block.note else ())
        elif isinstance(block, Folded):
            yield from said_in((block.table,))


def visible(text: str) -> str:
    """The text of an HTML page, in one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


SHARED = {
    "Defenses",
    "Attacks",
    "Attacks without a defense",
    "Detectors",
    "Effects on the benign victim",
    "Seconds and memory",
    "Provenance",
}
"""Headings of the sections that both have."""


def test_the_report_says_what_the_page_says_in_the_same_words(tmp_path: Path) -> None:
    content = page("b", some())
    shown = visible(report("b", [IllustratedPanel("b", arrange(some()), tmp_path, {})]))
    assert {section.heading for section in content.sections} >= SHARED
    for section in content.sections:
        if section.heading in SHARED:
            for text in (section.heading, *said_in(section.blocks)):
                assert " ".join(text.split()) in shown, text


@pytest.mark.parametrize("form", ["markdown", "html"])
def test_every_word_and_number_of_a_page_is_in_its_text(form: str) -> None:
    content = page("b", some())
    shown = FORMATS[form]([content])
    shown = visible(shown) if form == "html" else " ".join(shown.replace("\\", "").split())
    for section in content.sections:
        for text in (section.heading, *said_in(section.blocks)):
            assert " ".join(text.replace("\\", "" if form == "markdown" else "\\").split()) in shown, text


def test_csv_has_a_line_for_each_number_unrounded_with_its_limits() -> None:
    lines = list(csv.DictReader(io.StringIO(FORMATS["csv"]([page("b", some())]))))

    def found(**wanted: str) -> list[tuple[str, str, str]]:
        matching = [line for line in lines if all(line[name] == text for name, text in wanted.items())]
        return [(line["measure"], line["value"], line["text"]) for line in matching]

    # the seeds' ASR are 0, 0.25 and 0.5
    assert found(section="", row="badnets", column="zap")[:2] == [
        ("ACC", "0.9", "90.0 [90.0, 90.0] / 25.0 [0.0, 87.1]"),
        ("ASR", "0.25", "90.0 [90.0, 90.0] / 25.0 [0.0, 87.1]"),
    ]
    (rated,) = [line for line in lines if (line["section"], line["row"], line["column"]) == ("Defenses", "zap", "ASR")]
    assert (float(rated["low"]), float(rated["high"])) == (0.0, pytest.approx(0.25 + 4.302653 * 0.25 / 3**0.5))
    assert found(section="Defenses", row="cut", column="rank") == [("", "", "–")]
    assert found(section="Attacks", row="badnets", column="survives") == [("", "0.5", "1 of 2 defenses")]
    assert found(row="none", column="cut") == [("", "", "missing")]
    assert {line["table"] for line in lines if line["section"] == "Detectors"} == {"Poisoned training rows", "Backdoored models"}


def test_csv_keeps_any_text_in_its_field() -> None:
    hostile = 'a,"b"\n;=1'
    table = Table(("name", "x"), ((Field(hostile), Field(hostile)),), row_names=("name",))
    (line,) = csv.DictReader(io.StringIO(FORMATS["csv"]([Content(hostile, (Section("", (table,)),))])))
    assert (line["board"], line["row"], line["text"]) == (hostile, hostile, hostile)


def test_html_is_one_file_in_which_nothing_that_plugins_write_is_markup() -> None:
    hostile = "\"><script>x</script><img src='http://gatecrash.invalid/x.png'>"
    text = FORMATS["html"]([page(hostile, [*some(), cell("badnets", hostile, status="failed", error=hostile)])])
    assert text.count("<script") == 1  # which sorts
    assert "<img" not in text
    assert not re.search(r"(?:src|href)=[\"'](?!data:|#)", text)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    store = Store(tmp_path / "s").open()
    for index, result in enumerate(some()):
        store.save_result(result.model_copy(update={"key": f"{index:040x}"}))
    return tmp_path / "s"


def test_the_leaderboard_of_a_store_in_every_format(gatecrash: Gatecrash, store: Path, tmp_path: Path) -> None:
    markdown = gatecrash("leaderboard", "--store", store).out
    assert markdown == gatecrash("leaderboard", "--store", store, "--format", "markdown").out
    assert "| badnets " in markdown
    lines = list(csv.DictReader(io.StringIO(gatecrash("leaderboard", "--store", store, "--format", "csv").out)))
    assert markdown.startswith(f"# {lines[0]['board']}")
    assert all(line["text"] in markdown for line in lines)
    assert gatecrash("leaderboard", "--store", store, "--format", "html", "--output", tmp_path / "b.html").code == 0
    assert all(line["text"] in visible((tmp_path / "b.html").read_text(encoding="utf-8")) for line in lines if "(" not in line["text"])


def test_a_check_prints_no_board(gatecrash: Gatecrash) -> None:
    called = gatecrash("leaderboard", "--check", "--format", "csv")
    assert (called.code, called.err) == (2, "error: --check prints no board; leave --format out\n")
