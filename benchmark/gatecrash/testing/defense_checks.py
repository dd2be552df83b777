"""The checks of a defense: what it reads, what it hands back, and what it does to a victim that has no backdoor."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import torch

from gatecrash.contracts.defense import Defense
from gatecrash.contracts.evidence import Need
from gatecrash.contracts.outcome import Give, Outcome
from gatecrash.contracts.portable import Portable
from gatecrash.evaluation.steps import evaluate_steps
from gatecrash.testing.check import Check, CheckFailed, finishing, require
from gatecrash.testing.class_checks import CLASS_CHECKS
from gatecrash.testing.defense_cells import benign_victim_survives, time_and_memory_are_reported
from gatecrash.testing.defense_trial import trial
from gatecrash.testing.defense_variations import (
    every_choice_works,
    keeps_little_memory,
    reads_what_it_needs,
    rejects_some_images_only,
    require_sound_answers,
    suspects_some_rows_only,
    uses_its_seed,
    works_on_other_images,
)
from gatecrash.testing.devices import DEVICES, on_a_simulated_gpu, require_movable, require_no_waits
from gatecrash.testing.setting import same_module, same_tensor, same_tensors, stored
from gatecrash.testing.trial import Case


def uses_only_what_it_declares(defense: Defense) -> str:
    """Evidence with what `needs` names, and nothing else, is enough."""
    try:
        trial(defense).work  # noqa: B018 - the first run
    except CheckFailed as failure:
        undeclared = re.search(r"evidence\.(\w+) was read, but Need\.(\w+) is not", failure.got)
        if undeclared:
            raise CheckFailed(
                f"defend() to read only what needs declares ({', '.join(sorted(defense.needs)) or 'nothing'})",
                f"a look at evidence.{undeclared[1]}",
                f"add Need.{undeclared[2]} to needs, or do without",
            ) from failure
        if "evidence.train was called without" in failure.got:
            raise CheckFailed(
                "evidence.train() to be given a network", "training from scratch", "add Need.RETRAIN to needs, or pass network="
            ) from failure
        raise
    return ", ".join(sorted(defense.needs)) or "nothing"


def is_deterministic(defense: Defense) -> None:
    """The same seed gives the same outcome, whatever the global random generators hold."""
    first, second = trial(defense).outcome, trial(defense).run(Case(noise=2)).outcome
    differing = [
        what
        for what, same in (
            ("classifier", same_module(first.classifier, second.classifier)),
            ("detector", same_module(first.detector, second.detector)),
            ("suspects", same_tensor(first.suspects, second.suspects)),
            ("suspicion", same_tensor(first.suspicion, second.suspicion)),
            ("verdict", repr(first.verdict) == repr(second.verdict)),
            ("trajectory", _same_steps(first, second)),
            ("figures", same_tensors(dict(first.figures), dict(second.figures))),
            ("tables", _text(first.tables) == _text(second.tables)),
        )
        if not same
    ]
    require(
        not differing,
        "two runs with one seed to agree to the last bit",
        f"another {', '.join(differing)}",
        "draw only from evidence.stream(name), seed libraries with evidence.stream.seed(name), and keep nothing between runs",
    )


def leaves_its_inputs_alone(defense: Defense) -> None:
    """The hold-out and the training set are as they were."""
    changed = trial(defense).work.changed
    require(
        not changed,
        "the hold-out and the training set to stay as they were",
        f"another {' and '.join(changed)}",
        "clone the data before working in place; evidence.classifier is a copy, and may be changed",
    )


def gives_a_valid_outcome(defense: Defense) -> None:
    """The outcome holds what `gives` declares, in the right form, and its classifier gives finite logits whatever the batch."""
    work = trial(defense).work
    outcome = work.outcome
    rows = len(trial(defense).training_data) if Need.TRAINING_DATA in defense.needs else None
    test = trial(defense).setting.test
    mend = "make gives and the Outcome agree, as the message says"
    with finishing("the outcome to keep the contract: Outcome.check()", mend):
        outcome.check(frozenset(defense.gives), rows, test.num_classes)
    _require_plain(outcome)
    require_sound_answers(outcome, work.given, test)
    if outcome.classifier is None:
        return
    with finishing("the steps of the trajectory to pass the evaluation", "see the message"):
        evaluate_steps(work.given, list(outcome.trajectory)[:1] + list(outcome.trajectory)[-1:], test, device="cpu")
    with torch.no_grad():
        width = outcome.classifier(test.images[:2]).shape[1]
    # A classifier that may reject need not: a filter with nothing to filter hands the victim back.
    require(
        width == test.num_classes or Give.REJECT in defense.gives,
        f"{test.num_classes} logits, for gives has no REJECT",
        str(width),
        "add Give.REJECT to gives if the last logit rejects the input",
    )


def outcome_can_be_stored(defense: Defense) -> None:
    """The classifier and the detector come back from JSON and tensors and answer the same."""
    images = trial(defense).setting.test.images
    for what in ("classifier", "detector"):
        made: Portable | None = getattr(trial(defense).outcome, what)
        if made is None:
            continue
        again = stored(made, f"the {what}")
        with torch.no_grad():
            require(
                torch.equal(again(images), made.cpu().eval()(images)),
                f"the {what} to answer the same after it was stored",
                "another answer",
                "register every tensor that forward() uses as a buffer, and return every constructor argument from config()",
            )


def honours_the_device(defense: Defense) -> str:
    """Works on the device it is given; its classifier and its detector move with `.to(device)`."""
    work = trial(defense).work
    for what in ("classifier", "detector"):
        made: Portable | None = getattr(work.outcome, what)
        if made is not None:
            require_movable(made, trial(defense).setting.test.images[:4], f"the {what}")
    runs = [("cpu", work), ("cuda", on_a_simulated_gpu(trial(defense))[0])]
    for device, run in [*runs, *((device, trial(defense).run(Case(device=device))) for device in DEVICES[1:])]:
        outcome = run.outcome
        elsewhere = {tensor.device.type for tensor in outcome.classifier.state_dict().values()} - {device} if outcome.classifier else set()
        require(
            not elsewhere,
            f"the classifier on evidence.device, {device}",
            f"tensors on {', '.join(sorted(elsewhere))}",
            "create and move tensors with device=evidence.device",
        )
    return f"tried on {', '.join(DEVICES)} and a simulated GPU"


def trains_without_waiting(defense: Defense) -> str:
    """On a GPU no step of a training or search waits for the device: nothing in it reads a value, selects by a mask or moves data."""
    return require_no_waits(trial(defense))


def _require_plain(outcome: Outcome) -> None:
    """Tables are lists of flat JSON records, step parameters plain, figures uint8 images."""
    for name, records in outcome.tables.items():
        with finishing(f"writing the table {name!r} as JSON", "put plain numbers and texts in tables: .item(), float(), str()"):
            json.dumps([dict(record) for record in records])
    for step in outcome.trajectory:
        with finishing("writing a step's params as JSON", "put plain numbers and texts in Step.params: .item(), float(), str()"):
            json.dumps(dict(step.params))
    for name, figure in outcome.figures.items():
        require(
            figure.dtype == torch.uint8 and figure.ndim == 3,
            f"the figure {name!r} as uint8 [C, H, W]",
            f"{figure.dtype} {list(figure.shape)}",
            "scale it to 0..255 and end with .round().clamp(0, 255).to(torch.uint8)",
        )


def _same_steps(one: Outcome, other: Outcome) -> bool:
    return len(one.trajectory) == len(other.trajectory) and all(
        _text(ours.params) == _text(theirs.params) and same_tensors(dict(ours.changes), dict(theirs.changes))
        for ours, theirs in zip(one.trajectory, other.trajectory, strict=True)
    )


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(
        {name: value if not isinstance(value, list | tuple) else [dict(row) for row in value] for name, value in values.items()},
        default=str,
    )


DEFENSE_CHECKS = (
    *(Check(function) for function in CLASS_CHECKS),
    Check(uses_only_what_it_declares),
    Check(reads_what_it_needs),
    Check(is_deterministic),
    Check(uses_its_seed),
    Check(leaves_its_inputs_alone),
    Check(gives_a_valid_outcome),
    Check(suspects_some_rows_only),
    Check(rejects_some_images_only, lambda defense: Give.DETECTOR in defense.gives),
    Check(outcome_can_be_stored),
    Check(works_on_other_images),
    Check(every_choice_works, quick=False),
    Check(benign_victim_survives, quick=False),
    Check(honours_the_device),
    Check(trains_without_waiting),
    Check(keeps_little_memory),
    Check(time_and_memory_are_reported),
)
