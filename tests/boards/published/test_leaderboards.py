"""The boards of this repository: they agree with their results, and a sample of them is measured again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gatecrash.boards.published import Boards
from support.paths import ROOT

BOARDS = Boards(ROOT / "leaderboards")
Gatecrash = Callable[..., Any]


def needs(board: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(board not in BOARDS.names(), reason=f"the board {board} is not in leaderboards/ of this checkout")


@pytest.mark.skipif(not BOARDS.names(), reason="leaderboards/ of this checkout has no board")
def test_the_boards_the_index_and_the_readme_agree_with_the_results(gatecrash: Gatecrash) -> None:
    checked = gatecrash("leaderboard", "--check", "--boards", BOARDS.root)
    assert checked.code == 0, checked.out


@pytest.mark.slow
@needs("digits")
def test_a_sample_of_the_digits_board_is_confirmed(gatecrash: Gatecrash) -> None:
    """Equal to the last digit where the CPU is that of the board, within the interval elsewhere; the same two cells each time."""
    checked = gatecrash("verify", "digits", "--sample", "2", "--device", "cpu", "--boards", BOARDS.root)
    assert checked.code == 0, checked.out + checked.err
    assert len(checked.out.splitlines()) == 2


@needs("digits")
def test_the_readme_has_the_digits_board() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "[The whole board](leaderboards/digits.md)" in readme.partition("<!-- board:digits -->")[2].partition("<!-- /board -->")[0]
