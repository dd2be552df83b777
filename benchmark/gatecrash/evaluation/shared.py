"""The pile's logits for several versions of one network, with what they have in common computed once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gatecrash.contracts.classifier import Classifier, Network
from gatecrash.engine.sharing import CannotShare, Changes, SharedPasses
from gatecrash.errors import ContractError
from gatecrash.evaluation.exam import Exam
from gatecrash.evaluation.independence import complaint, in_small_batches
from gatecrash.evaluation.prediction import as_deployed

TRIED = 8
"""Images on which each version is compared with what was computed in parts."""


class Shared(NamedTuple):
    """Logits float32 [N, K or K + 1] of the pile, on the CPU, for each version."""

    logits: list[Tensor]
    remembers_nothing: bool
    """Whether no code of a plugin's had a part in them: there is nothing to ask a witness then."""


def shared_logits(exam: Exam, classifier: Classifier, changes: Sequence[Changes], batch_size: int | None, sample: int) -> Shared | None:
    """Those of whole passes to the last digit, for each of these changes to a network. `sample` images are computed again in other batches.

    None where the network cannot be taken apart or breaks its contract: whole passes then say what is wrong.
    """
    if not isinstance(classifier, Network) or classifier.num_classes != exam.num_classes or not len(exam.pile):
        return None
    batches = exam.batches(classifier.to(exam.device), batch_size)
    try:
        with as_deployed(classifier, exam.device):
            passes = SharedPasses(classifier, changes)
            passes.check(exam.shown(batches[0][:TRIED]))
            found = Shared(_logits(exam, passes, batches), passes.remembers_nothing)
            return found if _same_again(exam, passes, found.logits, sample) else None
    except (CannotShare, ContractError):
        return None


def remember_nothing(exam: Exam, classifier: Classifier, changes: Sequence[Changes], logits: Sequence[Tensor], sample: int) -> bool:
    """Whether these logits of the pile, for each of these changes to a network, come out again for `sample` images up to float noise, from
    torch's layers alone."""
    if not isinstance(classifier, Network) or not all(bool(torch.isfinite(one).all()) for one in logits):
        return False
    try:
        with as_deployed(classifier.to(exam.device), exam.device):
            passes = SharedPasses(classifier, changes)
            if not passes.remembers_nothing:
                return False
            passes.check(exam.shown(torch.arange(min(TRIED, len(exam.pile)))))
            return _same_again(exam, passes, logits, sample)
    except (CannotShare, ContractError):
        return False


def _same_again(exam: Exam, passes: SharedPasses, logits: Sequence[Tensor], sample: int) -> bool:
    rows = exam.pile.sample(sample)
    again = _logits(exam, passes, in_small_batches(rows))
    return all(complaint(one[rows], other, "shown again") is None for one, other in zip(logits, again, strict=True))


def _logits(exam: Exam, passes: SharedPasses, batches: Sequence[Tensor]) -> list[Tensor]:
    """For each version, logits float32 [sum of batch sizes, K or K + 1] on the CPU. Raises CannotShare unless they are finite."""
    shown = [[logits.float().cpu() for logits in passes(exam.shown(rows))] for rows in batches]
    found = [torch.cat(answers) for answers in zip(*shown, strict=True)]
    widths = (exam.num_classes, exam.num_classes + 1)
    if any(one.ndim != 2 or one.shape[1] not in widths or not bool(torch.isfinite(one).all()) for one in found):
        raise CannotShare("its answers are no logits")
    return found
