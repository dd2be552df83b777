"""No text of a plugin is markup."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatecrash.boards.content import Field, Table
from gatecrash.boards.render.markdown import blocks_to_markdown
from gatecrash.records.stage import Stage
from support.boards import leaderboard_text, page_text
from support.cells import cell, undefended

HOSTILE = "a|b\n| c | `x` <script>alert(1)</script> [l](http://e) **b** \x1b[31m \u202e"


@pytest.mark.parametrize("where", ["attack", "defense", "error", "title", "config"])
def test_no_plugin_can_break_a_table(where: str) -> None:
    fields: dict[str, Any] = {
        "attack": {"attack": Stage(name=HOSTILE)},
        "defense": {"defense": [Stage(name=HOSTILE)]},
        "error": {"status": "failed", "error": HOSTILE},
        "config": {"defense": [Stage(name="d", config={HOSTILE: HOSTILE})]},
        "title": {},
    }[where]
    results = [*undefended(), cell("badnets", "d", 0, asr=0.1), cell("badnets", "d", 1, asr=0.1, key="hostile", **fields)]
    for text in (leaderboard_text(results, HOSTILE if where == "title" else "t"), page_text(results, "t")):
        assert "<script" not in text
        assert "\x1b" not in text
        assert "\u202e" not in text
        for block in re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE):
            widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
            assert len(widths) == 1, block


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_escaped_text_stays_in_its_cell(text: str) -> None:
    rendered = blocks_to_markdown([Table(("a", "b"), ((Field(text), Field("end")),))]).splitlines()
    assert len(rendered) == 3
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", rendered[2])) == 3
