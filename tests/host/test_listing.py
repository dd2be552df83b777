"""What is installed is listed without importing it, and never from what was there before."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gatecrash.host import listing
from gatecrash.host.listing import list_plugins

Write = Callable[[str, str], Path]

ATTACK = """
    import gatecrash

    class Mine(gatecrash.Attack):
        name = "mine"
        summary = {summary}

        def poison(self, train, ctx):
            return gatecrash.Poisoned.untouched(train)

    @gatecrash.hookimpl
    def register_attacks(register):
        register(Mine)
"""


@pytest.fixture(autouse=True)
def _own_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GATECRASH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """One entry for every time that plugins are really loaded."""
    done: list[Any] = []
    really = listing.load_plugins

    def load(paths: Any) -> Any:
        done.append(paths)
        return really(paths)

    monkeypatch.setattr(listing, "load_plugins", load)
    return done


def summary_of_mine(*paths: Path) -> str | None:
    return next((plugin.summary for plugin in list_plugins(paths).plugins if plugin.name == "mine"), None)


def test_the_second_list_prints_the_same_and_imports_no_torch() -> None:
    code = (
        "import sys\nfrom gatecrash.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit as end: assert not end.code\n"
        "print('LOADED', sorted({'torch', 'ray', 'gatecrash_plugins.attacks.badnets'} & set(sys.modules)))"
    )

    def printed(*arguments: str) -> tuple[str, str]:
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        text, _, loaded = done.stdout.rpartition("LOADED ")
        return text, loaded.strip()

    first, _ = printed("list")
    assert printed("list") == (first, "[]")
    assert "badnets " in first
    assert printed("show", "quickstart")[1] == "[]"


def test_nothing_is_loaded_again_while_nothing_changes(write: Write, loads: list[Any]) -> None:
    file = write("mine.py", ATTACK.format(summary="'as it was'"))
    first = list_plugins([file])
    assert list_plugins([file]) == first
    assert len(loads) == 1


def test_an_edited_plugin_shows_its_new_summary(write: Write) -> None:
    assert summary_of_mine(write("mine.py", ATTACK.format(summary="'as it was'"))) == "as it was"
    assert summary_of_mine(write("mine.py", ATTACK.format(summary="'as it is.'"))) == "as it is."


def test_an_edited_helper_counts_too(write: Write, loads: list[Any]) -> None:
    file = write("mine.py", "    from _words import SUMMARY\n" + ATTACK.format(summary="SUMMARY"))
    write("_words.py", "SUMMARY = 'as it was'")
    assert summary_of_mine(file) == "as it was"
    write("_words.py", "SUMMARY = 'as it is.'")
    assert summary_of_mine(file) == "as it is."
    assert len(loads) == 2


def test_a_new_file_in_a_folder_of_plugins_is_seen(write: Write, tmp_path: Path) -> None:
    write("folder/other.py", ATTACK.format(summary="'x'").replace("mine", "other"))
    assert summary_of_mine(tmp_path / "folder") is None
    write("folder/mine.py", ATTACK.format(summary="'new'"))
    assert summary_of_mine(tmp_path / "folder") == "new"


def test_an_installed_plugin_is_seen_when_it_is_installed_edited_and_removed(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert summary_of_mine() is None
    write("site/mine_module.py", ATTACK.format(summary="'as it was'"))
    write("site/mine-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    entries = write("site/mine-1.dist-info/entry_points.txt", "[gatecrash]\nmine = mine_module\n")
    assert summary_of_mine() == "as it was"
    write("site/mine_module.py", ATTACK.format(summary="'longer than it was'"))
    monkeypatch.delitem(sys.modules, "mine_module")  # as in another process
    assert summary_of_mine() == "longer than it was"
    entries.unlink()
    assert summary_of_mine() is None


def test_what_mends_a_broken_plugin_is_noticed_wherever_it_lies(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loads: list[Any]
) -> None:
    (tmp_path / "site").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    file = write("mine.py", "    import missing_until_now\n" + ATTACK.format(summary="'x'"))
    for _ in range(2):
        (problem,) = list_plugins([file]).problems
        assert "No module named 'missing_until_now'" in problem.message
    write("site/missing_until_now.py", "")
    assert summary_of_mine(file) == "x"
    assert len(loads) == 3


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff\x00", b'{"sought": [], "files": {}, "listing": {"plugins": 3, "modules": []}}'])
def test_a_damaged_index_is_ignored_and_written_again(write: Write, tmp_path: Path, damage: bytes, loads: list[Any]) -> None:
    file = write("mine.py", ATTACK.format(summary="'x'"))
    list_plugins([file])
    (index,) = (tmp_path / "cache" / "plugins").iterdir()
    index.write_bytes(damage)
    assert [summary_of_mine(file), summary_of_mine(file)] == ["x", "x"]
    assert len(loads) == 2


def test_where_nothing_can_be_kept_plugins_are_still_listed(write: Write, tmp_path: Path) -> None:
    write("cache", "a file where the folder should be")
    assert summary_of_mine(write("mine.py", ATTACK.format(summary="'x'"))) == "x"
