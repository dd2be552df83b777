"""Discovery: every plugin is loaded on its own, and a broken one is named without taking the rest down."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gatecrash.errors import UserError
from gatecrash.host.loading import load_plugins
from support.paths import ROOT
from support.plugin_files import attack_file

Write = Callable[[str, str], Path]


def test_shipped_plugins_are_found_without_registration_and_none_is_broken() -> None:
    host = load_plugins(installed=False)
    assert host.problems == []
    assert {"none", "badnets"} <= {plugin.name for plugin in host.all("attack")}
    assert {"none", "fine-pruning"} <= {plugin.name for plugin in host.all("defense")}
    assert {"digits", "imagefolder", "cifar10"} <= {plugin.name for plugin in host.all("dataset")}
    assert {"small-cnn", "lean", "resnet18", "preact-resnet18", "vgg11-bn"} <= {plugin.name for plugin in host.all("model")}


def test_a_file_given_by_path_is_a_plugin_whose_content_counts(write: Write) -> None:
    file = write("mine.py", attack_file("mine"))
    first = load_plugins([file]).get("attack", "mine")
    assert first.origin == str(file)
    file.write_text(file.read_text() + "\n# changed\n")
    assert load_plugins([file]).get("attack", "mine").content != first.content


def test_a_folder_gives_all_its_files_but_helpers_and_tests(write: Write, tmp_path: Path) -> None:
    write("folder/one.py", attack_file("one"))
    write("folder/two.py", attack_file("two"))
    for name in ("_helper", "test_one", "conftest", "two_test"):
        write(f"folder/{name}.py", "raise RuntimeError('never imported')")
    host = load_plugins([tmp_path / "folder"])
    assert {"one", "two"} <= {plugin.name for plugin in host.all("attack")}
    assert host.problems == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import no_such_module", "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        ("def broken(:", "cannot be imported: SyntaxError"),
        (
            "import gatecrash\n@gatecrash.hookimpl\ndef register_atacks(register): pass",
            "unknown hook 'register_atacks'; did you mean 'register_attacks'",
        ),
        ("import gatecrash\n@gatecrash.hookimpl\ndef register_attacks(register): register(3)", "no subclass of gatecrash.Attack"),
        ("import gatecrash\n@gatecrash.hookimpl\ndef register_attacks(register): raise ValueError('oops')", "register_attacks failed"),
        ("import gatecrash\n@gatecrash.hookimpl\ndef register_attacks(wrong): pass", "Argument(s) {'wrong'}"),
        ("def register_attacks(register): pass", "register_attacks is not marked with @gatecrash.hookimpl"),
        (attack_file("Bad Name"), "name must be lower-case words"),
    ],
)
def test_a_broken_plugin_is_named_and_the_others_load(write: Write, text: str, said: str) -> None:
    broken = write("broken.py", text)
    good = write("good.py", attack_file("good"))
    host = load_plugins([broken, good])
    assert host.get("attack", "good")
    assert host.get("attack", "badnets")
    (problem,) = host.problems
    assert problem.origin == str(broken)
    assert said in problem.message
    assert "\n" not in problem.message


def test_two_plugins_with_one_name_is_an_error_that_names_both_origins(write: Write) -> None:
    first = write("a/first.py", attack_file("twin"))
    second = write("b/second.py", attack_file("twin"))
    host = load_plugins([first, second])
    with pytest.raises(UserError, match=f"two plugins claim the attack 'twin': {first} and {second}"):
        host.get("attack", "twin")
    assert [problem.origin for problem in host.problems] == [str(second)]
    assert host.get("attack", "badnets")


def test_an_outside_plugin_cannot_replace_a_shipped_one_silently(write: Write) -> None:
    host = load_plugins([write("badnets.py", attack_file("badnets"))])
    with pytest.raises(UserError, match=r"gatecrash_plugins\.attacks\.badnets"):
        host.get("attack", "badnets")


def test_an_unknown_name_gets_the_close_matches() -> None:
    with pytest.raises(UserError, match="unknown attack 'badnet'; did you mean 'badnets'"):
        load_plugins().get("attack", "badnet")


UNDESCRIBED = """
    import gatecrash

    class Mine(gatecrash.Defense):
        name, summary = "mine", "x"
        needs, gives = frozenset(), frozenset()

        class Config(gatecrash.Config):
            strength: float = 1.0

        def defend(self, evidence):
            return gatecrash.Outcome()

    @gatecrash.hookimpl
    def register_defenses(register):
        register(Mine)
"""
NO_DESCRIPTION = "the option strength of the defense 'mine' has no description; write Field(..., description=...)"


def test_an_option_without_description_is_refused(write: Write) -> None:
    (problem,) = load_plugins([write("undescribed.py", UNDESCRIBED)]).problems
    assert problem.message == NO_DESCRIPTION


def test_an_attack_that_declares_an_option_it_does_not_have_is_refused(write: Write) -> None:
    text = (ROOT / "tests" / "support" / "preparing_plugin.py").read_text(encoding="utf-8").replace('{"strength", ', '{"strenght", ')
    (problem,) = load_plugins([write("misspelt.py", text)]).problems
    assert problem.message == "prepare_options of the attack 'encoding' has 'strenght', which is no option of it"


@pytest.mark.parametrize(
    ("text", "said"),
    [(UNDESCRIBED, NO_DESCRIPTION), (UNDESCRIBED.replace("def defend", "def defends"), "the defense 'mine' does not implement defend")],
)
def test_a_plugin_that_was_refused_is_not_called_unknown(
    write: Write, gatecrash: Callable[..., Any], small_grid: Callable[..., Path], text: str, said: str
) -> None:
    file = write("refused.py", text)
    refused = f"the defense 'mine' of {file} cannot be used: {said}"
    with pytest.raises(UserError) as raised:
        load_plugins([file]).get("defense", "mine")
    assert str(raised.value) == refused
    for arguments in (("run", small_grid(defenses=["mine"]), "--dry-run"), ("show", "mine"), ("check", "mine")):
        called = gatecrash(*arguments, "--plugins", file)
        assert called.code == 2
        assert called.err.splitlines()[-1].endswith(refused)
        assert "unknown" not in called.err


def test_a_path_that_does_not_exist_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        load_plugins([tmp_path / "missing.py"])


def test_equal_file_names_in_two_folders_do_not_collide(write: Write) -> None:
    host = load_plugins([write("a/mine.py", attack_file("one")), write("b/mine.py", attack_file("two"))])
    assert host.get("attack", "one").cls is not host.get("attack", "two").cls
