"""The checks of a defense that try it in other ways than a grid's first run: another seed, other images, other options."""

from __future__ import annotations

import torch

from gatecrash.contracts.classifier import Classifier
from gatecrash.contracts.data import ImageSet
from gatecrash.contracts.defense import Defense
from gatecrash.contracts.evidence import Need
from gatecrash.contracts.outcome import Outcome
from gatecrash.errors import ContractError, one_line
from gatecrash.evaluation.detector_exam import evaluate_detector
from gatecrash.evaluation.exam import evaluate
from gatecrash.testing.attack_variations import require_little_kept
from gatecrash.testing.check import CheckFailed, finishing, require
from gatecrash.testing.choices import try_choices
from gatecrash.testing.constant_seeds import constant_seeds
from gatecrash.testing.defense_trial import DefenseRun, trial
from gatecrash.testing.setting import CheckSetup, setting
from gatecrash.testing.trial import Case

MOST_REJECTED = 0.5
"""Share of clean test images that a detector may reject before the check calls it broken."""


def uses_its_seed(defense: Defense) -> str:
    """The defense runs with another seed, and seeds no generator with a number of its own."""
    trial(defense).run(Case(seed=1))
    seeded = constant_seeds(type(defense))
    require(
        not seeded,
        "every draw to depend on the run's seed",
        f"a generator that always starts the same ({seeded[0] if seeded else ''})",
        "draw from evidence.stream(name), and seed libraries with evidence.stream.seed(name)",
    )
    return ""


def reads_what_it_needs(defense: Defense) -> str:
    """Everything that `needs` declares is used: what is needed decides with whom a defense is compared."""
    reads = trial(defense).work.reads | trial(defense).run(Case(seed=1)).reads
    unread = [need for need in Need if need in defense.needs and need not in reads]
    require(
        not unread,
        f"defend() to use all that needs declares ({', '.join(sorted(defense.needs))})",
        f"no use of {', '.join(unread)}",
        f"take {', '.join(f'Need.{need.name}' for need in unread)} out of needs; if only some victims or options ask for it, "
        "say so in deviations",
    )
    return ""


def suspects_some_rows_only(defense: Defense) -> str:
    """Of a training set of which a tenth is poisoned, not every row is suspect."""
    suspects = trial(defense).outcome.suspects
    if suspects is None:
        return "no suspects"
    count = int(suspects.sum())
    require(
        count < len(suspects),
        f"some of {len(suspects)} rows, 10% of them poisoned, to be free of suspicion",
        "every row suspect",
        "check the sign of the suspicion and the threshold (True means: leave this row out)",
    )
    return f"{count} of {len(suspects)}"


def rejects_some_images_only(defense: Defense) -> str:
    """Most clean test images pass the detector."""
    detector, images = trial(defense).outcome.detector, trial(defense).setting.test.images
    assert detector is not None  # asked only of a valid outcome with DETECTOR in gives
    with torch.no_grad():
        share = float(detector.cpu().eval().flags(detector.score(images)).double().mean())
    require(
        share <= MOST_REJECTED,
        f"at most {MOST_REJECTED:.0%} of the clean test images to be rejected",
        f"{share:.0%}",
        "check the sign of the score (higher is more suspect), and choose the threshold by clean images",
    )
    return f"{share:.1%} of the clean test images rejected"


def works_on_other_images(defense: Defense) -> str:
    """Works on images with three channels that are not square, eight classes and another network."""
    shared = setting("colour")
    _require_sound(defense, trial(defense).run(Case(place="colour")), shared)
    return "x".join(map(str, shared.train.shape))


def every_choice_works(defense: Defense) -> str:
    """Each value of each option that names its values gives a valid outcome."""
    return try_choices(
        defense.config,
        lambda config: _require_sound(defense, trial(defense).run(Case(config=config)), trial(defense).setting),
    )


def keeps_little_memory(defense: Defense) -> str:
    """A run enlarges the process by at most 512 MiB for good, the libraries that it imports included."""
    trial(defense).work  # noqa: B018 - measures it
    return require_little_kept(trial(defense).growth)


def require_sound_answers(outcome: Outcome, given: Classifier, test: ImageSet) -> None:
    """Raise CheckFailed unless classifier and detector, where there are any, pass the evaluation. `given` is the victim."""
    deployed, shape = outcome.classifier or given, "x".join(map(str, test.shape))
    if outcome.classifier is not None:
        with finishing(f"the classifier to pass the evaluation on {shape} images", "a classifier answers for each image on its own"):
            evaluate(deployed, test, device="cpu")
    if outcome.detector is not None:
        with finishing(f"the detector to pass the evaluation on {shape} images", "a detector scores each image on its own"):
            evaluate_detector(deployed, outcome.detector, given, test, device="cpu")


def _require_sound(defense: Defense, run: DefenseRun, shared: CheckSetup) -> None:
    rows = len(shared.train) if Need.TRAINING_DATA in defense.needs else None
    mend = "make gives and the Outcome agree, as the message says"
    try:
        run.outcome.check(frozenset(defense.gives), rows, shared.test.num_classes)
    except ContractError as error:
        raise CheckFailed(f"a valid outcome on {shared.described}", one_line(error), mend) from error
    require_sound_answers(run.outcome, run.given, shared.test)
