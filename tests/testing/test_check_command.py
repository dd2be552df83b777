"""`gatecrash check`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gatecrash.host.loading import load_plugins
from gatecrash.testing import checks_for


def test_the_command_prints_a_line_per_check(gatecrash: Callable[..., Any]) -> None:
    called = gatecrash("check", "badnets")
    assert called.code == 0, called.out
    lines = called.out.splitlines()
    assert lines[0] == "attack badnets"
    assert "  ok      poisons-exactly-its-rate: 22 of 450, 11 of 450" in lines
    assert len(lines) == 1 + len(checks_for(load_plugins().get("attack", "badnets").configure()))


def test_the_command_checks_every_plugin_of_a_file_and_tells_one_cause_once(gatecrash: Callable[..., Any], write: Any) -> None:
    file = write(
        "lazy.py",
        '''
        import gatecrash
        from gatecrash import Give, Need

        class Lazy(gatecrash.Defense):
            """Fails."""

            name, summary = "lazy", "fails"
            reference = gatecrash.Reference("None", 2024, "https://example.org")
            needs, gives = frozenset({Need.MODEL}), frozenset({Give.CLASSIFIER})

            def defend(self, evidence):
                raise ZeroDivisionError("oops")

        class Idle(Lazy):
            """Does nothing."""

            name, needs, gives = "idle", frozenset(), frozenset()

            def defend(self, evidence):
                return gatecrash.Outcome()

        @gatecrash.hookimpl
        def register_defenses(register):
            register(Lazy)
            register(Idle)
        ''',
    )
    called = gatecrash("check", file)
    assert called.code == 1
    assert "defense idle\n" in called.out
    assert (
        "  FAILED  uses-only-what-it-declares: expected defend() on the digits (1x16x16) to finish; got ZeroDivisionError: oops"
        in called.out
    )
    assert "  FAILED  gives-a-valid-outcome: see uses-only-what-it-declares" in called.out
    assert called.out.count("FAILED") == called.out.count("see ") + 1
    assert "14 checks failed" in called.err


def test_a_file_that_does_not_load_is_a_failed_check(gatecrash: Callable[..., Any], write: Any) -> None:
    called = gatecrash("check", write("broken.py", "import no_such_module"))
    assert called.code == 1
    assert "FAILED  can-be-registered: cannot be imported: ModuleNotFoundError" in called.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["badnet"], "unknown attack, defense or trigger 'badnet'; did you mean 'badnets'"),
        (["small-cnn"], "'small-cnn' is a model; only attacks, defenses and triggers have checks"),
        (["missing.py"], "no such file or folder"),
        (["badnets", "-o", "size"], "-o size: write NAME=VALUE"),
        (["badnets", "-o", "size=0"], "badnets: size: Input should be greater than or equal to 1"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_code_2(gatecrash: Callable[..., Any], arguments: list[str], said: str) -> None:
    called = gatecrash("check", *arguments)
    assert called.code == 2
    assert said in called.err


def test_a_file_without_attack_or_defense_is_a_wrong_request(gatecrash: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("")
    called = gatecrash("check", tmp_path / "empty.py")
    assert called.code == 2
    assert "registers no attack, defense or trigger" in called.err
