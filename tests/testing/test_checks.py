"""The check suite: everything that ships passes it, and each check catches a plugin that breaks its promise."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ConfigDict, Field, field_validator
from torch import Tensor, nn

from gatecrash import (
    Attack,
    AttackContext,
    Backdoor,
    Classifier,
    Config,
    Defense,
    Evidence,
    Give,
    Goal,
    ImageSet,
    Implant,
    Need,
    Network,
    Outcome,
    PoisonConfig,
    Poisoned,
    Recipe,
    Reference,
    Role,
    Stamp,
    Trigger,
    TriggerAttack,
    patch_mask,
)
from gatecrash.host.host import KINDS
from gatecrash.host.loading import load_plugins
from gatecrash.testing import Check, CheckFailed, attack_checks, checks_for, defense_checks, parametrize_with_checks

QUICK: dict[str, dict[str, Any]] = {
    "activation-clustering": {"decision": "relative-size"},
    "anp": {"iterations": 20},
    "clean-label": {"iterations": 2},
    "fine-pruning": {"epochs": 3},
    "neural-cleanse": {"rounds": 4, "samples": 32, "epochs": 1},
    "neural-cleanse-filter": {"rounds": 4, "samples": 32},
}
"""Options that make slow methods quick; the promises do not depend on them."""


def shipped() -> list[Any]:
    host = load_plugins(installed=False)
    return [plugin.configure(QUICK.get(plugin.name)) for kind in KINDS[:2] for plugin in host.all(kind)]


@pytest.mark.slow
@parametrize_with_checks(shipped())
def test_shipped_plugins_keep_the_contracts(plugin: Attack | Defense, check: Check) -> None:
    check(plugin)


PAPER = Reference("A paper", 2024, "https://example.org")


class Dot(TriggerAttack):
    """Sound: one white pixel. The broken attacks below differ from it in one thing."""

    name = "dot"
    summary = "one white pixel"
    reference = PAPER

    def trigger(self, shape: tuple[int, int, int]) -> Trigger:
        return Stamp(shape, 1.0, torch.full(shape, 255, dtype=torch.uint8), patch_mask(shape, 1, "top-left", 0))


class Shouting(Dot):
    name = "DOT!"


class Unversioned(Dot):
    version = 0


class Careless(Dot):
    class Config(PoisonConfig):
        """Ignores what it does not know."""

        model_config = ConfigDict(extra="ignore")


class Forgetful(Dot):
    class Config(PoisonConfig):
        """Does not read back what it wrote."""

        sizes: str = Field("1x1", description="height x width")

        @field_validator("sizes")
        @classmethod
        def _split(cls, text: str) -> str:
            return text + "!"


class Unbounded(Dot):
    class Config(PoisonConfig):
        """A number without bounds."""

        level: int = Field(255, description="grey level")


class Clamping(Dot):
    class Config(PoisonConfig):
        """A number that is moved into its bounds instead of refused."""

        level: int = Field(255, ge=0, le=255, description="grey level")

        @field_validator("level", mode="before")
        @classmethod
        def _into_bounds(cls, value: int) -> int:
            return min(max(value, 0), 255)


def local() -> Attack:
    class Local(Dot):
        """Cannot be found by its name."""

    return Local()


class Undescribed(Dot):
    __doc__ = None


class Uncited(Dot):
    """Names no paper."""

    reference = None


class Rambling(Dot):
    """Has two lines of summary."""

    summary = "one\ntwo"


class Dicing(Dot):
    def choose(self, train: ImageSet, goal: Goal, ctx: AttackContext) -> Tensor:
        return torch.randperm(len(train))[:9]


class WithReplacement(Dot):
    def choose(self, train: ImageSet, goal: Goal, ctx: AttackContext) -> Tensor:
        rows = super().choose(train, goal, ctx)
        return torch.cat([rows[:-1], rows[:1]])


class InPlace(Dot):
    def poison(self, train: ImageSet, ctx: AttackContext) -> Poisoned:
        made = super().poison(train, ctx)
        train.images[made.changed, :, 0, 0] = 255
        return made


class Meddling(Dot):
    needs_benign = True

    def poison(self, train: ImageSet, ctx: AttackContext) -> Poisoned:
        assert ctx.benign is not None
        ctx.benign.head.weight.data.zero_()
        return super().poison(train, ctx)


class Changing(Dot):
    """What the subclasses change of a sound result."""

    def change(self, made: Poisoned) -> Poisoned:
        return made

    def poison(self, train: ImageSet, ctx: AttackContext) -> Poisoned:
        return self.change(super().poison(train, ctx))


class Floating(Changing):
    def change(self, made: Poisoned) -> Poisoned:
        return replace(made, images=made.images / 255)


class Adding(Changing):
    def change(self, made: Poisoned) -> Poisoned:
        return replace(made, labels=torch.cat([made.labels, made.labels[:1]]))


class Relabelling(Changing):
    def change(self, made: Poisoned) -> Poisoned:
        return replace(made, labels=torch.where(made.role == Role.POISON, 10, made.labels))


class Hiding(Changing):
    def change(self, made: Poisoned) -> Poisoned:
        return replace(made, role=torch.zeros_like(made.role))


class Covering(Changing):
    def change(self, made: Poisoned) -> Poisoned:
        return replace(made, role=made.role * 2)


class Boasting(Changing):
    def change(self, made: Poisoned) -> Poisoned:
        return replace(made, role=torch.ones_like(made.role))


class Silent(Changing):
    def change(self, made: Poisoned) -> Poisoned:
        return replace(made, backdoors=())


class Twins(Changing):
    def change(self, made: Poisoned) -> Poisoned:
        return replace(made, backdoors=(*made.backdoors, *made.backdoors))


class Greedy(Dot):
    def candidates(self, labels: Tensor, goal: Goal) -> Tensor:
        return labels == 0


class FalselyClean(Dot):
    clean_label = True


class Crowd(Trigger):
    """Brighter in bright company."""

    def forward(self, images: Tensor) -> Tensor:
        return (images.float() + images.float().mean()).clamp(0, 255).to(torch.uint8)


class Scribbling(Trigger):
    def forward(self, images: Tensor) -> Tensor:
        images[:, :, 0, 0] = 255
        return images


class Invisible(Trigger):
    def forward(self, images: Tensor) -> Tensor:
        return images.clone()


class Brighten(Trigger):
    """`config` forgets by how much."""

    def __init__(self, by: int = 1) -> None:
        super().__init__()
        self.by = by

    def forward(self, images: Tensor) -> Tensor:
        return (images.int() + self.by).clamp(0, 255).to(torch.uint8)


class Anchored(Trigger):
    """Keeps its pattern in a plain attribute, which `.to(device)` does not move."""

    def __init__(self) -> None:
        super().__init__()
        self.pattern = torch.full((1, 16, 16), 9, dtype=torch.uint8)

    def forward(self, images: Tensor) -> Tensor:
        return torch.maximum(images, self.pattern)


class Homesick(Trigger):
    """Makes its pattern on the default device."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.maximum(images, torch.full((1, 16, 16), 9, dtype=torch.uint8))


def with_trigger(trigger: Trigger) -> Attack:
    class WithTrigger(Dot):
        def backdoors(self, ctx: AttackContext) -> tuple[Backdoor, ...]:
            return (Backdoor("odd", self.config.make_goal(ctx.num_classes), trigger),)

    return WithTrigger()


class Headless(Dot):
    def implant(self, train: ImageSet, ctx: AttackContext) -> Implant:
        return Implant(self.poison(train, ctx), nn.Flatten())  # type: ignore[arg-type]


BROKEN_ATTACKS: list[tuple[str, Callable[[], Attack], str]] = [
    ("can-be-registered", Shouting, "name must be lower-case words"),
    ("can-be-registered", Unversioned, "expected version to be a whole number from 1; got 0"),
    ("config-round-trips", Careless, "expected an unknown option to be refused"),
    ("config-round-trips", Forgetful, r"sizes='1x1!'"),
    ("config-bounds-hold", Unbounded, "expected the number level to have bounds"),
    ("config-bounds-hold", Clamping, "expected level = -1 to be refused, for its bound is >= 0; got a Config with level = 0"),
    ("can-be-pickled", local, "at the top level of the module"),
    ("is-documented", Undescribed, "expected the class to have a docstring"),
    ("is-documented", Uncited, r"gatecrash.Reference\(paper, year, url\); got None"),
    ("is-documented", Rambling, "summary to be one line"),
    ("is-deterministic", Dicing, "got other rows or roles, images, labels. To mend it: draw only from ctx.stream"),
    ("poisons-exactly-its-rate", WithReplacement, r"expected 22 rows of role POISON \(poison_rate 0.05 of 450\); got 21"),
    ("leaves-its-inputs-alone", InPlace, "got changed images or labels in it. To mend it: work on train.images.clone"),
    ("leaves-its-inputs-alone", Meddling, "the benign victim to stay as it was"),
    ("keeps-dtype-and-shape", Floating, "got torch.float32"),
    ("keeps-dtype-and-shape", Adding, r"expected labels as torch.int64 \[450\]; got torch.int64 \[451\]"),
    ("labels-are-classes", Relabelling, "expected labels from 0 to 9; got 0 to 10"),
    ("roles-tell-the-truth", Hiding, "rows of role CLEAN to be untouched; got 22 changed"),
    ("roles-tell-the-truth", Covering, "rows of role COVER to keep their true label; got 22"),
    ("roles-tell-the-truth", Boasting, "rows of role POISON to differ from the original; got 428"),
    ("names-its-backdoors", Silent, "expected a Backdoor for the 22 poisoned rows"),
    ("names-its-backdoors", Twins, "expected backdoors with distinct names"),
    ("goal-images-are-not-candidates", Greedy, "got 22 of 22 that are not .*class 0 relabelled 0"),
    ("labels-stay-true", FalselyClean, "got 22 changed labels"),
    ("triggers-act-per-image", lambda: with_trigger(Crowd()), "in every batch; got .* different one by one"),
    ("triggers-act-per-image", lambda: with_trigger(Scribbling()), "leave its input alone"),
    ("triggers-act-per-image", lambda: with_trigger(Invisible()), "to change images"),
    ("triggers-survive-storage", lambda: with_trigger(Brighten(by=50)), "act the same after it was stored"),
    ("implants-a-classifier", Headless, "expected implant.* to return a gatecrash.Classifier; got Flatten"),
    ("honours-the-device", lambda: with_trigger(Anchored()), "a tensor in a plain attribute, pattern"),
    ("honours-the-device", lambda: with_trigger(Homesick()), "to work on the device of its images"),
]


@pytest.mark.parametrize(("name", "make", "said"), BROKEN_ATTACKS)
def test_a_broken_attack_is_caught(name: str, make: Callable[[], Attack], said: str) -> None:
    with pytest.raises(CheckFailed, match=said):
        _run(make(), name)


class Tuning(Defense):
    """Sound: does nothing to the victim. The broken defenses below differ from it in one thing."""

    name = "tuning"
    summary = "hands the victim back"
    reference = PAPER
    needs = frozenset({Need.MODEL})
    gives = frozenset({Give.CLASSIFIER})

    class Config(Config):
        """No options."""

    def defend(self, evidence: Evidence) -> Outcome:
        return Outcome(classifier=evidence.classifier)


class LooselyTyped(Tuning):
    needs = frozenset({"model"})  # type: ignore[arg-type]


class Peeking(Tuning):
    def defend(self, evidence: Evidence) -> Outcome:
        evidence.clean.fingerprint  # noqa: B018
        return super().defend(evidence)


class Starting(Tuning):
    needs = frozenset({Need.CLEAN_DATA})

    def defend(self, evidence: Evidence) -> Outcome:
        return Outcome(classifier=evidence.train(evidence.clean, recipe=Recipe(epochs=1)))


class Noisy(Tuning):
    def defend(self, evidence: Evidence) -> Outcome:
        network = evidence.network
        network.head.weight.data += 1e-3 * torch.randn_like(network.head.weight)
        return Outcome(classifier=network)


class Wiping(Tuning):
    needs = frozenset({Need.MODEL, Need.CLEAN_DATA})

    def defend(self, evidence: Evidence) -> Outcome:
        evidence.clean.images.zero_()
        return super().defend(evidence)


class EmptyHanded(Tuning):
    def defend(self, evidence: Evidence) -> Outcome:
        return Outcome()


class Wrapped(Classifier):
    """A classifier around the victim."""

    def __init__(self, inner: Classifier) -> None:
        super().__init__()
        self.inner, self.num_classes = inner, inner.num_classes

    def config(self) -> dict[str, Any]:
        return {"inner": self.inner}

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images)
        return logits


class Comparing(Wrapped):
    """Uses the batch."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits - logits.mean(0)


class Rejecting(Wrapped):
    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return torch.cat([logits, logits.amin(1, keepdim=True)], 1)


class Shifted(Wrapped):
    """Keeps a tensor where neither storage nor `.to(device)` finds it."""

    def __init__(self, inner: Classifier) -> None:
        super().__init__(inner)
        self.shift = torch.zeros(1)

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + self.shift


def wrapping(wrapper: type[Wrapped], shift: float = 0.0) -> Defense:
    class Wrapping(Tuning):
        def defend(self, evidence: Evidence) -> Outcome:
            made = wrapper(evidence.classifier).eval()
            if isinstance(made, Shifted):
                made.shift += shift
            return Outcome(classifier=made)

    return Wrapping()


class Tabulating(Tuning):
    def defend(self, evidence: Evidence) -> Outcome:
        return Outcome(classifier=evidence.classifier, tables={"t": [{"acc": torch.zeros(1)}]})


class Destroying(Tuning):
    def defend(self, evidence: Evidence) -> Outcome:
        network: Network = evidence.network
        network.head.weight.data.zero_()
        return Outcome(classifier=network)


class StoppingTheClock(Tuning):
    def defend(self, evidence: Evidence) -> Outcome:
        time.perf_counter = lambda: 0.0
        return super().defend(evidence)


BROKEN_DEFENSES: list[tuple[str, Callable[[], Defense], str]] = [
    ("can-be-registered", LooselyTyped, "needs to be a frozenset of gatecrash.Need"),
    ("uses-only-what-it-declares", Peeking, "got a look at evidence.clean. To mend it: add Need.CLEAN_DATA"),
    ("uses-only-what-it-declares", Starting, "got training from scratch. To mend it: add Need.RETRAIN"),
    ("is-deterministic", Noisy, "got another classifier. To mend it: draw only from evidence.stream"),
    ("leaves-its-inputs-alone", Wiping, "got another hold-out"),
    ("gives-a-valid-outcome", EmptyHanded, "declares a classifier but its outcome has none"),
    ("gives-a-valid-outcome", lambda: wrapping(Comparing), "uses the batch"),
    ("gives-a-valid-outcome", lambda: wrapping(Rejecting), "expected 10 logits, for gives has no REJECT; got 11"),
    ("gives-a-valid-outcome", Tabulating, "writing the table 't' as JSON"),
    ("outcome-can-be-stored", lambda: wrapping(Shifted, shift=1.0), "answer the same after it was stored"),
    ("benign-victim-survives", Destroying, r"at most 20% accuracy .* got ACC 0\.9\d+ before, 0\.\d+ after"),
    ("honours-the-device", lambda: wrapping(Shifted), "a tensor in a plain attribute, shift"),
    ("time-and-memory-are-reported", StoppingTheClock, "positive seconds"),
]


@pytest.mark.parametrize(("name", "make", "said"), BROKEN_DEFENSES)
def test_a_broken_defense_is_caught(name: str, make: Callable[[], Defense], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter", time.perf_counter)  # put back after the one that stops the clock
    with pytest.raises(CheckFailed, match=said):
        _run(make(), name)


def _run(plugin: Attack | Defense, name: str) -> None:
    (check,) = (check for check in checks_for(plugin) if check.name == name)
    check(plugin)


@parametrize_with_checks([Dot(), Tuning()])
def test_the_sound_plugins_that_the_broken_ones_differ_from_pass(plugin: Attack | Defense, check: Check) -> None:
    check(plugin)


def test_every_check_is_proved_by_a_broken_plugin_and_says_what_it_promises() -> None:
    assert {name for name, _, _ in BROKEN_ATTACKS} == {check.name for check in attack_checks()}
    shared = {check.name for check in attack_checks()} & {check.name for check in defense_checks()}
    assert {name for name, _, _ in BROKEN_DEFENSES} | shared == {check.name for check in defense_checks()}
    assert all(check.summary.endswith(".") for check in (*attack_checks(), *defense_checks()))


def test_checks_are_asked_only_of_plugins_that_make_the_promise() -> None:
    assert "labels-stay-true" not in {check.name for check in checks_for(Dot())}
    assert "goal-images-are-not-candidates" not in {check.name for check in checks_for(FalselyClean())}
    with pytest.raises(TypeError, match=r"such as MyAttack\(\)"):
        parametrize_with_checks([Dot])  # type: ignore[list-item]


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
    assert "  FAILED  uses-only-what-it-declares: expected defend() on the digits to finish; got ZeroDivisionError: oops" in called.out
    assert "  FAILED  gives-a-valid-outcome: see uses-only-what-it-declares" in called.out
    assert called.out.count("FAILED") == called.out.count("see ") + 2  # the run on the backdoored victim, and the one on the benign victim
    assert "8 checks failed" in called.err


def test_a_file_that_does_not_load_is_a_failed_check(gatecrash: Callable[..., Any], write: Any) -> None:
    called = gatecrash("check", write("broken.py", "import no_such_module"))
    assert called.code == 1
    assert "FAILED  can-be-registered: cannot be imported: ModuleNotFoundError" in called.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["badnet"], "unknown attack or defense 'badnet'; did you mean 'badnets'"),
        (["small-cnn"], "'small-cnn' is a model; only attacks and defenses have checks"),
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
    assert "registers no attack or defense" in called.err
