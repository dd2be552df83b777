"""Scores of every step of a defense's trajectory."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from gatecrash.contracts.backdoor import Backdoor
from gatecrash.contracts.classifier import Classifier, Network
from gatecrash.contracts.data import ImageSet
from gatecrash.contracts.outcome import Step
from gatecrash.contracts.portable import spec_of, tensors_hash
from gatecrash.errors import ContractError
from gatecrash.evaluation.exam import Exam
from gatecrash.evaluation.independence import SAMPLE, StoredForm, Witness
from gatecrash.evaluation.scores import Scores, StepScores
from gatecrash.evaluation.shared import remember_nothing, shared_logits

STEP_SAMPLE = 32
"""Images that are shown to each step of a trajectory but the first, where its logits were computed in parts."""

Known = tuple[Mapping[str, Tensor], Scores]
"""The state of a classifier, and its scores."""


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
    """`step_scores` in an exam of its own."""
    return step_scores(Exam(test, backdoors, device, witness=witness), classifier, steps, batch_size=batch_size) if steps else []


def step_scores(
    exam: Exam, classifier: Classifier, steps: Sequence[Step], known: Iterable[Known] = (), *, batch_size: int | None = None
) -> list[StepScores]:
    """Score every step of a trajectory: `classifier` with the step's state-dict entries exchanged, each step on its own.

    What steps have in common is computed once: steps that come to the same network have the same scores, and those of a state that is
    `known` are taken from there; others share the layers in front of the first one in which they differ. Where the steps change the mask
    of a network's last point alone, each costs no more than the head. `classifier` is the one that the steps refer to and stays as it is.
    Raises ContractError for an entry that does not exist in it or has another shape, and as `evaluate` does.
    """
    copy = classifier.duplicate()
    start = {name: tensor.clone() for name, tensor in copy.state_dict().items()}
    spec = spec_of(copy)
    for number, step in enumerate(steps, 1):
        _check_changes(step, number, start)
    names = [_name(step.changes, start) for step in steps]
    masks = _last_masks(copy, steps)
    # Logits from the head alone are rounded otherwise than those of whole passes.
    found = {} if masks else {_name(state, start): scores for state, scores in known}
    first = {name: number for number, name in reversed(list(enumerate(names))) if name not in found}
    parts = _in_parts(exam, copy, steps, masks, sorted(first.values()), batch_size)
    for number, (name, step) in enumerate(zip(names, steps, strict=True)):
        if name in found:
            continue
        if number in parts.sure:
            found[name] = exam.scored(parts.logits[number])
            continue
        state = {**start, **step.changes}
        copy.load_state_dict(state)
        with _naming(step, number + 1):
            sample = STEP_SAMPLE if number else SAMPLE
            found[name] = exam.scores(copy, batch_size, parts.logits.get(number), sample, StoredForm(spec, state))
    return [StepScores(dict(step.params), found[name]) for name, step in zip(names, steps, strict=True)]


class _Parts(NamedTuple):
    """The pile's logits for some of the steps, by place."""

    logits: Mapping[int, Tensor]
    sure: Collection[int] = ()
    """Places of those that need not be compared with what the step's network answers."""


def _in_parts(
    exam: Exam, classifier: Classifier, steps: Sequence[Step], masks: Sequence[Tensor], wanted: Sequence[int], batch_size: int | None
) -> _Parts:
    """Logits for the wanted steps, as far as they can be had without a whole pass for each."""
    if not wanted:
        return _Parts({})
    changes = [steps[place].changes for place in wanted]
    head = exam.masked_head(classifier, batch_size) if masks else None
    if head is not None:
        logits = [exam.masked_logits(head, masks[place]) for place in wanted]
        sure = remember_nothing(exam, classifier, changes, logits, STEP_SAMPLE)
    else:
        shared = shared_logits(exam, classifier, changes, batch_size, STEP_SAMPLE)
        if shared is None:
            return _Parts({})
        logits, sure = shared
    # The first is asked as any classifier is. If no code of a plugin's has a part in the others, what holds for it holds for them.
    return _Parts(dict(zip(wanted, logits, strict=True)), wanted[1:] if sure else ())


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


def _name(changes: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> str:
    """A name for the state that these changes make of the one at the start: equal states have equal names."""
    given = {name: tensor.to(start[name]) for name, tensor in changes.items()}
    return tensors_hash({name: tensor for name, tensor in given.items() if not torch.equal(tensor, start[name])})


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
