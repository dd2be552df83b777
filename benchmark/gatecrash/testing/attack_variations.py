"""The checks of an attack that try it in other ways than a grid's first run: another seed, other images, other options."""

from __future__ import annotations

import torch

from gatecrash.contracts.attack import Attack
from gatecrash.contracts.data import Role
from gatecrash.errors import ContractError, UserError, one_line
from gatecrash.testing.attack_trial import SAMPLE, AttackRun, trial
from gatecrash.testing.check import CheckFailed, require
from gatecrash.testing.choices import try_choices
from gatecrash.testing.limits import KEPT_MB
from gatecrash.testing.setting import CheckSetup, setting
from gatecrash.testing.trial import Case
from gatecrash.testing.trigger_promises import stamped, triggers_of


def uses_its_seed(attack: Attack) -> str:
    """Another seed poisons other rows, unless all rows of some classes are poisoned, and nothing is drawn."""
    first = trial(attack).poisoned
    rows = first.role.cpu() != Role.CLEAN
    if not rows.any():
        return "no row is changed"
    labels = trial(attack).train.labels.cpu()
    candidates = torch.isin(labels, labels[rows])
    if candidates.equal(rows):
        return "every image of the classes that it changes is changed"
    second = trial(attack).run(Case(seed=1)).poisoned
    require(
        not first.role.equal(second.role),
        "seeds 0 and 1 to poison different rows",
        f"the same {int(rows.sum())} rows",
        "draw them with ctx.stream(name), which depends on the run's seed; seed no generator with a number of your own",
    )
    return ""


def works_on_other_images(attack: Attack) -> str:
    """Images with three channels that are not square are poisoned, too, or refused when the grid is planned."""
    shared = setting("colour")
    try:
        trial(attack).check_place(Case(place="colour"))
    except UserError as refusal:
        return f"refused: {one_line(refusal)}"
    _require_sound(trial(attack).run(Case(place="colour")), shared, "change the plugin as the message says")
    return "x".join(map(str, shared.train.shape))


def every_choice_works(attack: Attack) -> str:
    """Each value of each option that names its values gives a sound training set."""
    mend = "let every value of the option work, or leave it out"
    return try_choices(attack.config, lambda config: _require_sound(trial(attack).run(Case(config=config)), trial(attack).setting, mend))


def keeps_little_memory(attack: Attack) -> str:
    """A run enlarges the process by at most 512 MiB for good, the libraries that it imports included."""
    trial(attack).work  # noqa: B018 - measures it
    return require_little_kept(trial(attack).growth)


def require_little_kept(growth: object) -> str:
    """The note of a run's memory; raises CheckFailed where too much of it was kept."""
    kept, peak = (float(getattr(growth, what)) for what in ("kept", "peak"))
    require(
        kept <= KEPT_MB,
        f"a run to keep at most {KEPT_MB} MiB of memory",
        f"{kept:.0f} MiB more after it than before",
        "keep nothing in globals, caches or class attributes: a worker runs many cells one after another",
    )
    return f"{max(kept, 0):.0f} MiB kept, {max(peak, 0):.0f} MiB at the peak"


def _require_sound(run: AttackRun, shared: CheckSetup, mend: str) -> None:
    try:
        run.poisoned.check(shared.train)
    except ContractError as error:
        raise CheckFailed(f"a sound training set of {shared.described}", one_line(error), mend) from error
    for who, trigger in triggers_of(run.poisoned.backdoors):
        stamped(who, trigger, shared.test.images[:SAMPLE].clone())
