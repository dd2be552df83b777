"""Each check of an attack catches an attack that breaks its promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest
import torch
from pydantic import ConfigDict, Field, field_validator
from torch import Tensor, nn

from gatecrash import (
    Attack,
    AttackContext,
    Backdoor,
    Goal,
    ImageSet,
    Implant,
    PoisonConfig,
    Poisoned,
    Role,
    Trigger,
    Triggers,
)
from gatecrash.testing import CheckFailed, checks_for
from support.aims import Covered, Disrupt, Flip, Postcards
from support.sound_plugins import Dot, run_check


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


class OneSeed(Dot):
    """Draws from a generator of its own, which starts the same in every run."""

    def choose(self, train: ImageSet, goal: Goal, ctx: AttackContext) -> Tensor:
        rows = torch.nonzero(goal.eligible(train.labels)).flatten()
        return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:22]].sort().values


class Stingy(Dot):
    def choose(self, train: ImageSet, goal: Goal, ctx: AttackContext) -> Tensor:
        return super().choose(train, goal, ctx)[:-1]


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

    def candidates(self, labels: Tensor, goal: Goal) -> Tensor:
        return goal.eligible(labels)


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
        def triggers(self, train: ImageSet, ctx: AttackContext) -> Triggers:
            return super().triggers(train, ctx)._replace(test=trigger)

    return WithTrigger()


class DigitsOnly(Dot):
    """Knows no images but those of 16x16 pixels and one channel."""

    def trigger(self, shape: tuple[int, int, int]) -> Trigger:
        return super().trigger((1, 16, 16))


class Choosy(Dot):
    class Config(PoisonConfig):
        """A choice of which one fails."""

        corner: Literal["top", "bottom"] | None = Field("top", description="where the pixel lies")

    config: Config

    def trigger(self, shape: tuple[int, int, int]) -> Trigger:
        if self.config.corner is None:
            raise KeyError("corner")
        return super().trigger(shape)


class Hoarding(Dot):
    """Keeps 0.6 GB in the class, as a cache would."""

    kept: list[Tensor] = []

    def poison(self, train: ImageSet, ctx: AttackContext) -> Poisoned:
        self.kept.append(torch.ones(600 << 20, dtype=torch.uint8))
        return super().poison(train, ctx)


class Misspelt(Dot):
    deviations = {"uses-it-seed": "the paper fixes the rows"}


class HandingOutLies(Dot):
    """Controls training, and hands out rows whose roles are not true."""

    controls = "training"

    def implant(self, train: ImageSet, ctx: AttackContext) -> Implant:
        poisoned = self.poison(train, ctx)
        lying = replace(poisoned, role=torch.zeros_like(poisoned.role))
        return Implant(Poisoned.untouched(train, poisoned.backdoors), ctx.train(train), sample=lying)


class Seeking(Changing):
    """Has a backdoor, and says that it wants accuracy down."""

    aim = "availability"


class Aimless(Changing):
    """Its backdoor has neither a trigger nor images."""

    def change(self, made: Poisoned) -> Poisoned:
        return replace(made, backdoors=(Backdoor("nothing", made.backdoors[0].goal),))


class Headless(Dot):
    def implant(self, train: ImageSet, ctx: AttackContext) -> Implant:
        return Implant(self.poison(train, ctx), nn.Flatten())  # type: ignore[arg-type]


class Impatient(Dot):
    """Reads a value of the device in every step."""

    def implant(self, train: ImageSet, ctx: AttackContext) -> Implant:
        def looked_at(images: Tensor, labels: Tensor, _rows: Tensor) -> tuple[Tensor, Tensor]:
            return images if images.sum().item() else images + 1, labels

        poisoned = self.poison(train, ctx)
        return Implant(poisoned, ctx.train(poisoned, on_batch=looked_at))


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
    ("uses-its-seed", OneSeed, "seeds 0 and 1 to poison different rows; got the same 22 rows"),
    ("poisons-exactly-its-rate", Stingy, r"expected 22 rows of role POISON \(poison_rate 0.05 of 450\); got 21"),
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
    ("names-its-backdoors", Seeking, "the aim of dot is 'availability': there can be no Backdoor; got .*dot"),
    ("names-its-backdoors", Aimless, "the aim of dot is 'backdoor': each Backdoor needs a trigger, or images with labels"),
    ("goal-images-are-not-candidates", Greedy, "got 22 of 22 that are not .*class 0 relabelled 0"),
    ("labels-stay-true", FalselyClean, "got 22 changed labels"),
    ("triggers-act-per-image", lambda: with_trigger(Crowd()), "in every batch; got .* different one by one"),
    ("triggers-act-per-image", lambda: with_trigger(Scribbling()), "leave its input alone"),
    ("triggers-act-per-image", lambda: with_trigger(Invisible()), "to change images"),
    ("triggers-survive-storage", lambda: with_trigger(Brighten(by=50)), "act the same after it was stored"),
    ("works-on-other-images", DigitsOnly, r"on the digits \(3x20x24\) to finish"),
    ("every-choice-works", Choosy, "expected corner=None to work: .*KeyError"),
    ("keeps-little-memory", Hoarding, r"at most 512 MiB of memory; got [56]\d\d MiB more"),
    ("deviations-are-known", Misspelt, "got 'uses-it-seed'. To mend it: did you mean 'uses-its-seed'"),
    ("hands-out-a-training-set", HandingOutLies, "22 rows have role CLEAN but were changed"),
    ("implants-a-classifier", Headless, "expected implant.* to return a gatecrash.Classifier; got Flatten"),
    ("honours-the-device", lambda: with_trigger(Anchored()), "a tensor in a plain attribute, pattern"),
    ("honours-the-device", lambda: with_trigger(Homesick()), "to work on the device of its images"),
    ("trains-without-waiting", Impatient, r"a value read in Python .* in every step, at test_attack_checks.py:\d+ in looked_at"),
]


@pytest.mark.parametrize(("name", "make", "said"), BROKEN_ATTACKS)
def test_a_broken_attack_is_caught(name: str, make: Callable[[], Attack], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hoarding, "kept", [])
    with pytest.raises(CheckFailed, match=said):
        run_check(make(), name)


def test_an_attack_that_poisons_every_candidate_has_no_rows_to_draw() -> None:
    run_check(Dot(Dot.Config(poison_rate=0.9)), "uses-its-seed")


POISON = ("is-deterministic", "roles-tell-the-truth", "names-its-backdoors", "goal-images-are-not-candidates", "triggers-survive-storage")


@pytest.mark.parametrize("attack", [Disrupt, Flip, Covered, Postcards])
def test_attacks_of_every_aim_and_backdoors_of_every_form_are_sound(attack: type[Attack]) -> None:
    made = attack()
    for check in checks_for(made):
        if check.name in POISON and check.applies(made):
            check(made)
