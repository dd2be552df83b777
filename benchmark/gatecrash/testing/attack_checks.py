"""The checks of an attack: what it does to the training set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import ValidationError

from gatecrash.contracts.attack import Attack
from gatecrash.contracts.backdoor import Backdoor
from gatecrash.contracts.data import Poisoned, Role
from gatecrash.running.tasks.stored import backdoor_record, backdoor_tensors
from gatecrash.testing.attack_trial import trial
from gatecrash.testing.attack_variations import every_choice_works, keeps_little_memory, uses_its_seed, works_on_other_images
from gatecrash.testing.check import Check, finishing, require
from gatecrash.testing.class_checks import CLASS_CHECKS
from gatecrash.testing.implant_checks import (
    hands_out_a_training_set,
    honours_the_device,
    implants_a_classifier,
    trains_without_waiting,
    triggers_act_per_image,
    triggers_survive_storage,
)
from gatecrash.testing.options import changed
from gatecrash.testing.setting import same_module, same_tensors
from gatecrash.testing.trial import Case


def is_deterministic(attack: Attack) -> None:
    """The same seed gives the same rows, images, labels, triggers and weights, whatever the global random generators hold."""
    first, second = trial(attack).work, trial(attack).run(Case(noise=2))
    differing = [
        what
        for what, same in (
            ("rows or roles", first.poisoned.role.equal(second.poisoned.role)),
            ("images", first.poisoned.images.equal(second.poisoned.images)),
            ("labels", first.poisoned.labels.equal(second.poisoned.labels)),
            ("backdoors", _described(first.poisoned) == _described(second.poisoned)),
            ("trigger tensors", _tensors(first.poisoned.backdoors, second.poisoned.backdoors)),
            ("the classifier", same_module(first.classifier, second.classifier)),
        )
        if not same
    ]
    require(
        not differing,
        "two runs with one seed to agree to the last bit",
        f"other {', '.join(differing)}",
        "draw only from ctx.stream(name), never from the global generators of torch, numpy or random, and keep nothing between runs",
    )


def poisons_exactly_its_rate(attack: Attack) -> str:
    """The number of POISON rows is poison_rate of the whole training set, rounded; also for another rate."""
    tried, total = [], len(trial(attack).train)
    given: float = dict(attack.config)["poison_rate"]
    for rate in (given, given / 2):
        try:
            config = changed(attack.config, poison_rate=rate)
        except ValidationError:
            continue  # half the rate is below the option's bound
        expected = round(rate * total)
        if not expected:
            continue  # a rate of no image is refused
        work = trial(attack).work if config == attack.config else trial(attack).run(Case(config=config))
        got = int((work.poisoned.role == Role.POISON).sum())
        require(
            got == expected,
            f"{expected} rows of role POISON (poison_rate {rate:g} of {total})",
            str(got),
            "take gatecrash.poison_count(rate, candidates, len(train), name) rows, all of them distinct",
        )
        tried.append(f"{got} of {total}")
    return ", ".join(tried)


def leaves_its_inputs_alone(attack: Attack) -> None:
    """The training set and the benign victim are as they were."""
    work = trial(attack).work
    require(
        work.train_kept,
        "the training set that poison() was given to stay as it was",
        "changed images or labels in it",
        "work on train.images.clone(), or let Poisoned.replacing make the copy",
    )
    require(
        work.benign_kept, "the benign victim to stay as it was", "other weights or buffers", "work on ctx.benign.duplicate(), in eval mode"
    )


def keeps_dtype_and_shape(attack: Attack) -> None:
    """Images stay uint8 [N, C, H, W] and labels int64 [N], row for row those of the training set, on its device."""
    poisoned, train = trial(attack).poisoned, trial(attack).train
    for what, made, given in (("images", poisoned.images, train.images), ("labels", poisoned.labels, train.labels)):
        require(
            made.dtype == given.dtype and made.shape == given.shape,
            f"{what} as {given.dtype} {list(given.shape)}",
            f"{made.dtype} {list(made.shape)}",
            "change rows and add or drop none; end image arithmetic with .round().clamp(0, 255).to(torch.uint8)",
        )
    require(
        poisoned.role.shape == train.labels.shape,
        f"role to have one entry per row, [{len(train)}]",
        str(list(poisoned.role.shape)),
        "make it torch.zeros(len(train), dtype=torch.uint8) with a gatecrash.Role for every changed row",
    )


def labels_are_classes(attack: Attack) -> None:
    """Every label is one of the dataset's classes."""
    labels, classes = trial(attack).poisoned.labels, trial(attack).train.num_classes
    low, high = int(labels.min()), int(labels.max())
    require(
        low >= 0 and high < classes,
        f"labels from 0 to {classes - 1}",
        f"{low} to {high}",
        "take the labels from Goal.labels(), which knows the number of classes",
    )


def roles_tell_the_truth(attack: Attack) -> None:
    """CLEAN rows are byte-identical, COVER rows keep their label, POISON rows differ in image or label."""
    poisoned, train = trial(attack).poisoned, trial(attack).train
    role = poisoned.role.to(train.device)
    unknown = set(role.tolist()) - {int(value) for value in Role}
    require(not unknown, "roles of gatecrash.Role", f"the values {sorted(unknown)}", "use Role.CLEAN, Role.POISON and Role.COVER")
    same_image = (poisoned.images == train.images).flatten(1).all(1)
    same_label = poisoned.labels == train.labels
    for wrong, expected, what, mend in (
        (
            (role == Role.CLEAN) & ~(same_image & same_label),
            "rows of role CLEAN to be untouched",
            "changed",
            "mark every changed row as POISON, or as COVER if it keeps its true label on purpose",
        ),
        (
            (role == Role.COVER) & ~same_label,
            "rows of role COVER to keep their true label",
            "with another label",
            "mark rows with a changed label as POISON",
        ),
        (
            (role == Role.POISON) & same_image & same_label,
            "rows of role POISON to differ from the original",
            "with the original image and label",
            "mark only rows that carry the attack; check that the trigger shows on every image",
        ),
    ):
        rows = torch.nonzero(wrong).flatten()
        require(not len(rows), expected, f"{len(rows)} {what} (first: row {int(rows[0]) if len(rows) else -1})", mend)


def names_its_backdoors(attack: Attack) -> None:
    """What was planted is declared as the attack's aim asks: distinct names, goals of this dataset, a backdoor where there is poison.

    An attack that aims at accuracy plants none.
    """
    poisoned, classes = trial(attack).poisoned, trial(attack).train.num_classes
    names = [backdoor.name for backdoor in poisoned.backdoors]
    require(len(set(names)) == len(names), "backdoors with distinct names", str(names), "name each after what sets it apart")
    planted = int((poisoned.role == Role.POISON).sum())
    with finishing("the backdoors", "declare what the aim asks for: Attack.aim says what that is"):
        attack.check_aim(poisoned)
    require(
        bool(names) or not planted or attack.aim == "availability",
        f"a Backdoor for the {planted} poisoned rows",
        "no backdoor",
        "return Poisoned(..., backdoors=(Backdoor(name, goal, trigger),)): the evaluation scores what is declared",
    )
    for backdoor in poisoned.backdoors:
        goal = backdoor.goal
        require(
            goal.num_classes == classes,
            f"the goal of backdoor {backdoor.name!r} to map {classes} classes",
            repr(goal),
            "make it with GoalConfig.make_goal(ctx.num_classes), which refuses classes that do not exist",
        )


def goal_images_are_not_candidates(attack: Attack) -> None:
    """Poisoned rows are images that a goal applies to, with the label that it asks for."""
    poisoned, labels = trial(attack).poisoned, trial(attack).train.labels
    rows = torch.nonzero(poisoned.role.to(labels.device) == Role.POISON).flatten()
    fits = torch.zeros(len(rows), dtype=torch.bool)
    for backdoor in poisoned.backdoors:
        goal = backdoor.goal
        fits |= (goal.eligible(labels[rows]) & (goal.labels(labels[rows]) == poisoned.labels[rows])).cpu()
    wrong = rows[~fits]
    first = (
        f" (first: row {int(wrong[0])}, class {int(labels[wrong[0]])} relabelled {int(poisoned.labels[wrong[0]])})" if len(wrong) else ""
    )
    require(
        not len(wrong),
        "every POISON row to be eligible for a declared goal and to carry the label that it asks for",
        f"{len(wrong)} of {len(rows)} that are not{first}",
        "draw rows from goal.eligible(train.labels) and relabel them with goal.labels(); a clean-label attack sets clean_label = True",
    )


def labels_stay_true(attack: Attack) -> None:
    """A clean-label attack changes no label, and to plant a backdoor poisons images of its targets."""
    poisoned, train = trial(attack).poisoned, trial(attack).train
    changed = int((poisoned.labels != train.labels).sum())
    require(
        not changed,
        "a clean-label attack to leave all labels true",
        f"{changed} changed labels",
        "keep the labels, or set clean_label = False",
    )
    rows = poisoned.role == Role.POISON
    targets = {target for backdoor in poisoned.backdoors for target in backdoor.goal.targets}
    others = set(train.labels[rows.to(train.device)].tolist()) - targets
    require(
        not others or attack.aim != "backdoor",
        f"poisoned images of the target classes {sorted(targets)}",
        f"images of {sorted(others)} as well",
        "draw the rows from images whose label is the target: ~goal.eligible(train.labels)",
    )


def _described(poisoned: Poisoned) -> list[Any]:
    return [backdoor_record(backdoor).model_dump(mode="json") for backdoor in poisoned.backdoors]


def _tensors(ours: Sequence[Backdoor], theirs: Sequence[Backdoor]) -> bool:
    stored = (dict(pair for index, one in enumerate(every) for pair in backdoor_tensors(index, one).items()) for every in (ours, theirs))
    return same_tensors(*stored)


def _has_rate(attack: Attack) -> bool:
    return attack.controls == "data" and "poison_rate" in type(attack.config).model_fields


ATTACK_CHECKS = (
    *(Check(function) for function in CLASS_CHECKS),
    Check(is_deterministic),
    Check(uses_its_seed),
    Check(poisons_exactly_its_rate, _has_rate),
    Check(leaves_its_inputs_alone),
    Check(keeps_dtype_and_shape),
    Check(labels_are_classes),
    Check(roles_tell_the_truth),
    Check(names_its_backdoors),
    Check(goal_images_are_not_candidates, lambda attack: attack.aim != "availability" and not attack.clean_label),
    Check(labels_stay_true, lambda attack: bool(attack.clean_label)),
    Check(triggers_act_per_image),
    Check(triggers_survive_storage),
    Check(works_on_other_images),
    Check(every_choice_works, quick=False),
    Check(implants_a_classifier),
    Check(hands_out_a_training_set, lambda attack: attack.controls != "data"),
    Check(honours_the_device),
    Check(trains_without_waiting, lambda attack: type(attack).implant is not Attack.implant),
    Check(keeps_little_memory),
)
