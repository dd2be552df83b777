"""The checks of a trigger plugin: what it makes, on two kinds of images and with every choice of its options."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from gatecrash.contracts.data import ImageSet
from gatecrash.contracts.randomness import Streams
from gatecrash.contracts.trigger import Trigger
from gatecrash.contracts.trigger_maker import TriggerContext, TriggerMaker
from gatecrash.errors import UserError, one_line
from gatecrash.testing.attack_trial import SAMPLE
from gatecrash.testing.check import Check, finishing, require
from gatecrash.testing.choices import try_choices
from gatecrash.testing.class_checks import CLASS_CHECKS
from gatecrash.testing.devices import DEVICES, require_movable
from gatecrash.testing.setting import CheckSetup, copied, disturbed, same_module, setting
from gatecrash.testing.trial import Case, Trial, mend_run
from gatecrash.testing.trigger_promises import require_per_image, require_storable, stamped

Made = dict[str, Trigger]
"""The triggers of one maker, by what they are for."""


class TriggerTrial(Trial[Made]):
    """One trigger plugin and the triggers that it made."""

    plugin: TriggerMaker

    def prepare(self, shared: CheckSetup) -> None:
        if self.plugin.needs_benign:
            shared.benign  # noqa: B018 - made on demand

    def make(self, case: Case, shared: CheckSetup) -> Made:
        maker = _maker(self.plugin, case)
        train: ImageSet | None = copied(shared.train) if maker.needs_data else None
        benign = shared.benign.duplicate() if maker.needs_benign else None
        context = TriggerContext(shared.train.shape, stream=Streams("checks", case.seed), train=train, benign=benign)
        with finishing(f"make() for {shared.described}", mend_run), disturbed(case.noise):
            maker.check(context.shape)
            made = {"the trigger": maker.make(context), "the trigger of training images": maker.make_train(context)}
            if maker.has_covers:
                made["the trigger of covers"] = maker.make_cover(context)
        for who, trigger in made.items():
            require(isinstance(trigger, Trigger), f"{who} to be a gatecrash.Trigger", type(trigger).__name__, "derive from Trigger")
        return made


def _maker(plugin: TriggerMaker, case: Case) -> TriggerMaker:
    config: Any = case.config if case.config is not None else plugin.config
    return type(plugin)(config)


@lru_cache(maxsize=2)
def trial(maker: TriggerMaker) -> TriggerTrial:
    return TriggerTrial(maker)


def is_deterministic(maker: TriggerMaker) -> None:
    """The same seed gives the same triggers, whatever the global random generators hold."""
    first, second = trial(maker).work, trial(maker).run(Case(noise=2))
    differing = [who for who, trigger in first.items() if not same_module(trigger, second[who])]
    mend = "draw only from ctx.stream(name), never from the global generators of torch, numpy or random"
    require(not differing, "two runs with one seed to agree to the last bit", f"other tensors in {', '.join(differing)}", mend)


def acts_per_image(maker: TriggerMaker) -> None:
    """A triggered image is the same in any batch, in any order and every time; the trigger changes images, and not its input."""
    for who, trigger in trial(maker).work.items():
        require_per_image(who, trigger, _images(trial(maker).setting))


def survives_storage(maker: TriggerMaker) -> None:
    """A trigger rebuilt from its JSON and tensors, as from the store, gives the same images."""
    for who, trigger in trial(maker).work.items():
        require_storable(who, trigger, _images(trial(maker).setting))


def works_on_other_images(maker: TriggerMaker) -> str:
    """Images with three channels that are not square get the trigger, too, or are refused when the grid is planned."""
    shared = setting("colour")
    try:
        maker.check(shared.train.shape)
    except UserError as refusal:
        return f"refused: {one_line(refusal)}"
    for who, trigger in trial(maker).run(Case(place="colour")).items():
        stamped(who, trigger, _images(shared))
    return "x".join(map(str, shared.train.shape))


def every_choice_works(maker: TriggerMaker) -> str:
    """Each value of each option that names its values gives a trigger."""

    def run(config: Any) -> None:
        for who, trigger in trial(maker).run(Case(config=config)).items():
            stamped(who, trigger, _images(trial(maker).setting))

    return try_choices(maker.config, run)


def honours_the_device(maker: TriggerMaker) -> str:
    """Triggers move with `.to(device)`, and work there."""
    for who, trigger in trial(maker).work.items():
        require_movable(trigger, _images(trial(maker).setting)[:4], who)
    return f"tried on {', '.join(DEVICES[:1])} and a simulated GPU"


def _images(shared: CheckSetup) -> Any:
    return shared.test.images[:SAMPLE].clone()


TRIGGER_CHECKS = (
    *(Check(function) for function in CLASS_CHECKS),
    Check(is_deterministic),
    Check(acts_per_image),
    Check(survives_storage),
    Check(works_on_other_images),
    Check(every_choice_works, quick=False),
    Check(honours_the_device),
)
