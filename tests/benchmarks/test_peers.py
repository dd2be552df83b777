"""What is ours in the comparison with other tools: how they are found, take turns and are shown. The tools themselves are not needed."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import cast

import bench_peers
import pytest
from peers.record import Comparison, compared, keep, ratios, read, table
from peers.setting import Setting
from peers.tools import Tool
from peers.turns import Clock, Figures, Side, Turns, available, in_turns, turn

ABSENT = Tool("Elsewhere", "ELSEWHERE", "elsewhere/__init__.py", package="elsewhere_toolbox")
REASON = "Elsewhere is not here; install the package elsewhere_toolbox or give its folder: make bench-peers ELSEWHERE=FOLDER"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the tool in it, which the variable names."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "__init__.py").write_text('__version__ = "1.2"\nANSWER = 42.0\n')
    (tmp_path / "json.py").write_text("raise ImportError('a tool must not replace what is installed')\n")
    monkeypatch.setenv("ELSEWHERE", str(tmp_path))
    monkeypatch.delitem(sys.modules, "elsewhere", raising=False)
    return tmp_path


def asked(clock: Clock) -> Figures:
    with clock:
        answer = importlib.import_module("elsewhere").ANSWER
    return {"answer": answer}


def nothing(clock: Clock) -> Figures:
    return {}


def test_a_tool_that_is_not_here_says_how_to_give_it() -> None:
    assert ABSENT.missing() == REASON


def test_a_folder_without_the_tool_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELSEWHERE", str(tmp_path))
    assert ABSENT.missing() == f"Elsewhere is not in {tmp_path}, which has no elsewhere/__init__.py"


def test_a_tool_given_as_a_folder_is_imported_during_its_turn_only(folder: Path) -> None:
    assert ABSENT.missing() is None
    assert ABSENT.version() == "1.2"
    seconds, figures = turn(Side("theirs", asked, ABSENT))
    assert figures == {"answer": 42.0}
    assert seconds > 0
    assert PathFinder.find_spec("elsewhere") is None
    with ABSENT.importable():
        installed = PathFinder.find_spec("json")
    assert installed is not None
    assert str(folder) not in str(installed.origin)


def test_what_a_tool_needs_is_asked_for_before_any_turn(folder: Path) -> None:
    needy = Tool("Elsewhere", "ELSEWHERE", "elsewhere/__init__.py", needs=("elsewhere", "nowhere_at_all"))
    assert needy.missing() == "Elsewhere needs nowhere_at_all; install that, or put its folder on PYTHONPATH"


def test_an_installed_package_needs_no_folder() -> None:
    installed = Tool("Pytest", "NO_SUCH_VARIABLE", "pytest/__init__.py", package="pytest")
    assert installed.missing() is None
    assert installed.folder() is None
    assert installed.version() == pytest.__version__


def test_sides_take_turns_and_the_least_time_counts() -> None:
    seconds = iter([4.0, 8.0, 2.0, 9.0])
    order = []

    def run(side: Side) -> tuple[float, Figures]:
        order.append(side.name)
        return next(seconds), {"turn": float(len(order))}

    ours, theirs = in_turns([Side("Gatecrash", nothing), Side("theirs", nothing)], 2, run)
    assert order == ["Gatecrash", "theirs", "Gatecrash", "theirs"]
    assert (ours.least, theirs.least) == (2.0, 8.0)
    assert theirs == Turns("theirs", (8.0, 9.0), {"turn": 4.0})
    assert list(ratios([ours, theirs])) == [("theirs", "Gatecrash", 4.0)]


def test_only_what_is_here_takes_part() -> None:
    sides = [Side("Gatecrash", nothing), Side("theirs", nothing, ABSENT)]
    assert available(sides) == ([sides[0]], [REASON])


def test_a_contest_without_any_peer_is_skipped_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    contest = bench_peers.Contest("sums", "the same numbers", lambda _: [Side("Gatecrash", nothing), Side("theirs", nothing, ABSENT)])
    with pytest.raises(pytest.skip.Exception, match="elsewhere_toolbox"):
        bench_peers.test_contest(contest, cast("Setting", None))
    assert f"sums: left out: {REASON}" in capsys.readouterr().out


def a_comparison(what: str, theirs: float) -> Comparison:
    sides = (Turns("Gatecrash, float32", (2.0, 2.5), {"ACC %": 50.0}), Turns("theirs", (theirs, 5.0), {"ACC %": 49.0}))
    return compared(what, "the same numbers", sides, {"theirs": "1.2"})


def test_the_table_gives_the_least_seconds_and_their_ratio() -> None:
    assert table([a_comparison("sums", 3.0)]).splitlines()[2:] == [
        "| sums | Gatecrash, float32 | 2.00 |  | ACC % 50 |",
        "|  | theirs | 3.00 | 1.50 (float32) | ACC % 49 |",
    ]


def test_a_file_keeps_the_last_run_of_each_comparison(tmp_path: Path) -> None:
    file = tmp_path / "peers.json"
    first, other, again = a_comparison("sums", 3.0), a_comparison("products", 3.0), a_comparison("sums", 4.0)
    for comparison in (first, other, again):
        keep(comparison, file)
    assert read(file) == [again, other]


def test_the_page_shows_the_kept_run() -> None:
    docs = Path(__file__).resolve().parents[2] / "docs"
    kept, page = read(docs / "peers.json"), (docs / "peers.md").read_text(encoding="utf-8")
    assert table(kept) in page
    assert all(found.date in page and found.machine in page for found in kept)
