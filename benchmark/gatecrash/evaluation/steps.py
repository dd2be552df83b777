"""Scores of every step of a defense's trajectory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from gatecrash.contracts.backdoor import Backdoor
from gatecrash.contracts.classifier import Classifier, Network
from gatecrash.contracts.data import ImageSet
from gatecrash.contracts.outcome import Step
from gatecrash.contracts.portable import spec_of
from gatecrash.errors import ContractError
from gatecrash.evaluation.exam import Exam
from gatecrash.evaluation.independence import SAMPLE, StoredForm, Witness
from gatecrash.evaluation.scores import StepScores

STEP_SAMPLE = 32
"""Images that are shown to each step of a trajectory but the first, where its logits were computed from the head alone."""


def evaluate_steps(
    classifier: Classifier,
    steps: Sequence[Step],
    test: ImageSet,
    backdoors: Sequence[Backdoor] = (),
    *,
    device: torch.device | str,
    batch_size: int | None = None,
    witness: Witness | None = None,
) -> list[StepScores]:
    """Score every step of a trajectory: `classifier` with the step's state-dict entries exchanged, each step on its own.

    Where the steps change the mask of a network's last point alone, the images pass through the network once, and each step then costs no
    more than the head. A step that changes the same as the step before has that step's scores. `classifier` is the one that the steps
    refer to and stays as it is. Raises ContractError for an entry that does not exist in it or has another shape, and as `evaluate` does.
    """
    if not steps:
        return []
    exam = Exam(test, backdoors, device, witness=witness)
    copy = classifier.duplicate()
    start = {name: tensor.clone() for name, tensor in copy.state_dict().items()}
    spec = spec_of(copy)
    for number, step in enumerate(steps, 1):
        _check_changes(step, number, start)
    masks = _last_masks(copy, steps)
    head = exam.masked_head(copy, batch_size) if masks else None
    scored: list[StepScores] = []
    for number, step in enumerate(steps, 1):
        if scored and _same_changes(step, steps[number - 2]):
            scores = scored[-1].scores
        else:
            state = {**start, **step.changes}
            copy.load_state_dict(state)
            with _naming(step, number):
                known = exam.masked_logits(head, masks[number - 1]) if head else None
                sample = SAMPLE if number == 1 else STEP_SAMPLE
                scores = exam.scores(copy, batch_size, known, sample, StoredForm(spec, state))
        scored.append(StepScores(dict(step.params), scores))
    return scored


@contextmanager
def _naming(step: Step, number: int) -> Iterator[None]:
    """What a classifier does wrong at a step is reported with that step's name."""
    try:
        yield
    except ContractError as error:
        raise ContractError(f"{_where(step, number)}: {error}") from None


def _check_changes(step: Step, number: int, start: Mapping[str, Tensor]) -> None:
    for name, tensor in step.changes.items():
        if name not in start:
            raise ContractError(f"{_where(step, number)} changes {name!r}, which the classifier does not have")
        if tensor.shape != start[name].shape:
            raise ContractError(
                f"{_where(step, number)} changes {name!r} to shape {list(tensor.shape)}; in the classifier it is {list(start[name].shape)}"
            )


def _same_changes(step: Step, before: Step) -> bool:
    return step.changes.keys() == before.changes.keys() and all(
        torch.equal(tensor, before.changes[name]) for name, tensor in step.changes.items()
    )


def _last_masks(classifier: Classifier, steps: Sequence[Step]) -> list[Tensor]:
    """The mask of the last point at each step; empty if the classifier has none, a step changes more, or a mask is negative anywhere."""
    if not isinstance(classifier, Network) or not classifier.points:
        return []
    name, point = list(classifier.points.items())[-1]
    entry = f"backbone.{name}.mask"
    if any(set(step.changes) - {entry} for step in steps):
        return []
    masks = [step.changes.get(entry, point.mask).detach().clone() for step in steps]
    return masks if all(bool((mask >= 0).all()) for mask in masks) else []


def _where(step: Step, number: int) -> str:
    return f"step {number} of the trajectory ({', '.join(f'{name}={value}' for name, value in step.params.items())})"
