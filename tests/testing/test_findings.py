"""How a check ends: in time or not, with what was printed, as declared, or as not applicable; and whom it blames."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gatecrash import AttackContext, Evidence, Goal, ImageSet, NotApplicable, Outcome, Trigger
from gatecrash.testing import CheckFailed, CheckNotApplicable, checks_for
from gatecrash.testing.attack_trial import trial
from gatecrash.testing.check import Check, Finding
from gatecrash.testing.limits import TimeUp, time_limit
from gatecrash.testing.setting import setting
from support.sound_plugins import Dot, Tuning


def findings(plugin: Any, seconds: float = 60) -> dict[str, Finding]:
    return {check.name: check.find(plugin, seconds) for check in checks_for(plugin, quick=True)}


def statuses(plugin: Any) -> dict[str, str]:
    return {name: finding.status for name, finding in findings(plugin).items()}


class Endless(Dot):
    """Waits for a draw that never comes."""

    def choose(self, train: ImageSet, goal: Goal, ctx: AttackContext) -> Tensor:
        while True:
            try:
                time.sleep(0.001)
            except Exception:
                continue


def test_a_loop_without_end_is_stopped_once_and_named() -> None:
    trial(Dot()).prepare(setting("digits"))  # what all checks share is not made within that limit
    began = time.monotonic()
    found = findings(Endless(), seconds=3)
    failed = {name: finding.text for name, finding in found.items() if finding.status == "FAILED"}
    assert "expected poison() on the digits (1x16x16) to finish; got no end within 3 s" in failed["is-deterministic"]
    assert len(set(failed.values())) == 1
    assert time.monotonic() - began < 20


def alarm_within_alarm() -> None:
    with time_limit(0.3):
        with time_limit(60):
            pass
        time.sleep(30)


def test_an_alarm_that_was_set_before_goes_on_afterwards() -> None:
    with pytest.raises(TimeUp, match=r"within 0\.3 s"):
        alarm_within_alarm()


def test_compiled_code_that_never_returns_ends_the_command_with_a_traceback(write: Any) -> None:
    code = "import itertools\nfrom gatecrash.testing.limits import hard_stop, time_limit\nwith hard_stop(0.5), time_limit(0.1):\n    "
    done = subprocess.run([sys.executable, "-c", code + "sum(itertools.repeat(0))"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "Timeout (0:00:00.500000)!" in done.stderr
    assert 'File "<string>", line 4' in done.stderr


class Chatty(Dot):
    """Prints a line per row, and then fails, or not."""

    fails = False

    def choose(self, train: ImageSet, goal: Goal, ctx: AttackContext) -> Tensor:
        for row in range(60_000):
            print("row", row)
        if self.fails:
            raise ZeroDivisionError("oops")
        return super().choose(train, goal, ctx)


class ChattyAndWrong(Chatty):
    fails = True


def test_what_is_printed_is_shown_where_the_check_fails_and_its_end_only(capfd: pytest.CaptureFixture[str]) -> None:
    (found,) = (check.find(ChattyAndWrong()) for check in checks_for(Dot()) if check.name == "is-deterministic")
    assert found.printed == ("(59,990 lines before)", *(f"row {row}" for row in range(59_990, 60_000)))
    assert capfd.readouterr().out == ""


def test_what_is_printed_is_not_shown_where_the_check_holds(capfd: pytest.CaptureFixture[str]) -> None:
    (found,) = (check.find(Chatty()) for check in checks_for(Dot()) if check.name == "is-deterministic")
    assert (found.status, found.printed, capfd.readouterr().out) == ("ok", (), "")


class FixedRows(Dot):
    """Poisons the first rows, as its paper does."""

    deviations = {"uses-its-seed": "section 3 poisons the first images"}

    def choose(self, train: ImageSet, goal: Goal, ctx: AttackContext) -> Tensor:
        return torch.nonzero(goal.eligible(train.labels)).flatten()[:22]


class NoLongerFixed(Dot):
    """Has mended what it declares."""

    deviations = FixedRows.deviations


def by_name(name: str) -> Check:
    (check,) = (check for check in checks_for(Dot()) if check.name == name)
    return check


def test_a_declared_deviation_is_reported_with_its_reason_and_is_no_failure() -> None:
    check = by_name("uses-its-seed")
    assert check.find(FixedRows()) == Finding("declared", "section 3 poisons the first images")
    assert check(FixedRows()) == "declared: section 3 poisons the first images"


def test_a_declared_deviation_that_is_not_there_is_a_failure() -> None:
    with pytest.raises(CheckFailed, match=r"got a promise that is kept. To mend it: take 'uses-its-seed' out of deviations"):
        by_name("uses-its-seed")(NoLongerFixed())


class TransformersOnly(Tuning):
    """Applies to no network of the checks."""

    def defend(self, evidence: Evidence) -> Outcome:
        raise NotApplicable("this needs a vision transformer")


def test_a_method_that_never_applies_has_a_status_of_its_own() -> None:
    found = findings(TransformersOnly())
    assert {finding.text for finding in found.values() if finding.status == "n/a"} == {"this needs a vision transformer"}
    assert {finding.status for finding in found.values()} == {"ok", "n/a"}
    (check,) = (check for check in checks_for(TransformersOnly()) if check.name == "is-deterministic")
    with pytest.raises(CheckNotApplicable, match="vision transformer"):
        check(TransformersOnly())


class Handless(Tuning):
    """Returns nothing."""

    def defend(self, evidence: Evidence) -> Outcome:
        return None  # type: ignore[return-value]


def test_a_defense_that_returns_nothing_is_told_so_once() -> None:
    failed = {finding.text for finding in findings(Handless()).values() if finding.status == "FAILED"}
    assert failed == {"expected defend() to return a gatecrash.Outcome; got NoneType. To mend it: return Outcome(...)"}


class Scaled(Trigger):
    """Answers in [0, 1]."""

    def forward(self, images: Tensor) -> Tensor:
        return images / 255


class FloatDot(Dot):
    """Has a trigger of the wrong dtype."""

    def trigger(self, shape: tuple[int, int, int]) -> Trigger:
        return Scaled()


def test_a_trigger_of_the_wrong_dtype_is_blamed_not_the_options() -> None:
    failed = {finding.text for finding in findings(FloatDot()).values() if finding.status == "FAILED"}
    (told,) = failed
    assert "images must be uint8 [n, 1, 16, 16]; got torch.float32" in told
    assert told.endswith("To mend it: change the plugin as the message says")


def test_the_command_shows_every_status(gatecrash: Callable[..., Any], write: Any) -> None:
    file = write(
        "mixed.py",
        '''
        import gatecrash
        from gatecrash import Give, Need

        class Mixed(gatecrash.Defense):
            """Fails after it has printed."""

            name, summary = "mixed", "fails"
            reference = gatecrash.Reference("None", 2024, "https://example.org")
            needs, gives = frozenset({Need.MODEL}), frozenset({Give.CLASSIFIER})
            deviations = {"is-deterministic": "draws on purpose"}

            def defend(self, evidence):
                print("about to fail")
                raise ZeroDivisionError("oops")

        class Nowhere(Mixed):
            """Applies to nothing."""

            name, deviations = "nowhere", {}

            def defend(self, evidence):
                raise gatecrash.NotApplicable("no transformer")

        @gatecrash.hookimpl
        def register_defenses(register):
            register(Mixed)
            register(Nowhere)
        ''',
    )
    called = gatecrash("check", file, "--quick", "--timeout", "60")
    assert called.code == 1
    lines = called.out.splitlines()
    assert "  declared is-deterministic: draws on purpose" in lines
    assert "          | about to fail" in lines
    assert "  n/a     uses-only-what-it-declares: no transformer" in lines
    assert "  n/a     is-deterministic: see uses-only-what-it-declares" in lines
