"""Sealed evaluation: test images and ground truth on one side, a classifier on the other.

The test images, clean and triggered, are shuffled into one unlabelled pile. A classifier gets the pile and nothing else; its logits are
scored afterwards, in a separate step, against labels that the classifier is never given. An image's logits may depend on that image alone:
no batch holds a triggered image and its clean twin, a sample is shown again (by a `Witness`, where there is one, to a copy in a new process
that has seen nothing else), and a classifier that answers differently fails instead of getting a score.

Trade-off: the pile is kept whole, as uint8 (1 + number of backdoors times the test set), so that the steps of a trajectory share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from gatecrash.contracts.backdoor import Backdoor
from gatecrash.contracts.classifier import Classifier, Network
from gatecrash.contracts.data import ImageSet
from gatecrash.contracts.detector import InputDetector
from gatecrash.contracts.portable import tensors_hash
from gatecrash.engine.batching import evaluation_batch_size
from gatecrash.engine.masking import MaskedHead, masked_head
from gatecrash.errors import ContractError
from gatecrash.evaluation.independence import FOR_WITNESS, SAMPLE, Answer, StoredForm, Witness, batch_complaint, witness_complaint
from gatecrash.evaluation.pile import Pile
from gatecrash.evaluation.prediction import as_deployed, count_true, image_shape, predict_batches, score_batches
from gatecrash.evaluation.scores import BackdoorClassCounts, BackdoorScores, ClassCounts, Scores


def evaluate(
    classifier: Classifier,
    test: ImageSet,
    backdoors: Sequence[Backdoor] = (),
    *,
    device: torch.device | str,
    batch_size: int | None = None,
    witness: Witness | None = None,
) -> Scores:
    """Score a classifier on all clean test images, and on those eligible for each backdoor under its trigger.

    It is computed on `device`, in batches of `batch_size` (by default as many images as the device's memory allows). Raises ContractError
    for a classifier or a trigger that breaks its contract, above all one whose output depends on the rest of the batch, or (where there is
    a `witness`) on what it saw before.
    """
    return Exam(test, backdoors, device, witness=witness).scores(classifier, batch_size)


def attack_success(
    classifier: Classifier,
    test: ImageSet,
    backdoors: Sequence[Backdoor],
    *,
    device: torch.device | str,
    batch_size: int | None = None,
) -> Scores:
    """`evaluate` on triggered images only (`n_test` is 0): the `asr_floor` where `classifier` is the benign victim."""
    return Exam(test, backdoors, device, clean=False).scores(classifier, batch_size)


class Exam:
    """The pile of unlabelled images, and, apart from it, the labels that answers are scored against.

    `truth` are the true labels (int64) of the clean images and of each backdoor's eligible images, `wanted` the labels that each backdoor's
    goal wants.
    """

    def __init__(
        self,
        test: ImageSet,
        backdoors: Sequence[Backdoor],
        device: torch.device | str,
        clean: bool = True,
        witness: Witness | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.num_classes = test.num_classes
        self.backdoors = tuple(backdoors)
        self.pile = Pile(test, self.backdoors, self.device, clean)
        self.truth = [test.labels.cpu()[chosen] for chosen in self.pile.rows]
        self.wanted = [backdoor.goal.labels(truth) for backdoor, truth in zip(self.backdoors, self.truth[1:], strict=True)]
        self._witness = witness

    def masked_head(self, classifier: Classifier, batch_size: int | None) -> MaskedHead | None:
        """The inputs of the classifier's head for the pile, computed once for all masks at its last point; None where that cannot be."""
        if not isinstance(classifier, Network):
            return None
        classifier.to(self.device)
        with as_deployed(classifier, self.device):
            return masked_head(classifier, self.pile.images, self._batches(classifier, batch_size))

    def masked_logits(self, head: MaskedHead, mask: Tensor) -> Tensor:
        """Logits float32 of the pile under a mask, float [channels] and not negative, at the last point."""
        with as_deployed(head.head, self.device):
            return head.logits(mask)

    def scores(
        self,
        classifier: Classifier,
        batch_size: int | None,
        known: Tensor | None = None,
        sample: int = SAMPLE,
        stored: StoredForm | None = None,
    ) -> Scores:
        """Score the classifier's logits for the pile.

        Logits that are `known`, because they could be computed from parts of the classifier, are scored if the classifier itself gives the
        same for `sample` of the images; else it gets the whole pile. `stored` is its stored form, by default as it is now. Raises
        ContractError as `evaluate` does.
        """
        return self.scored(self.logits(classifier, batch_size, known, sample, stored))

    def logits(
        self,
        classifier: Classifier,
        batch_size: int | None,
        known: Tensor | None = None,
        sample: int = SAMPLE,
        stored: StoredForm | None = None,
    ) -> Tensor:
        """The classifier's logits for the pile, float32 on the CPU: what `scores` scores."""
        if classifier.num_classes != self.num_classes:
            raise ContractError(f"the classifier has {classifier.num_classes} classes; the test set has {self.num_classes}")
        if self._witness is not None and stored is None:
            stored = StoredForm.of(classifier)
        answer = partial(predict_batches, classifier.to(self.device), self.pile.images, device=self.device)
        if known is not None and bool(torch.isfinite(known).all()) and self._complaint(answer, stored, known, sample) is None:
            return known
        logits = answer(self._batches(classifier, batch_size))
        complaint = self._complaint(answer, stored, logits, SAMPLE)
        if complaint is not None:
            raise ContractError(complaint)
        return logits

    def suspicion(self, detector: InputDetector, batch_size: int | None = None) -> Tensor:
        """The detector's scores for the pile, float32 on the CPU. Raises ContractError as `evaluate` does."""
        stored = StoredForm.of(detector) if self._witness is not None else None
        answer = partial(score_batches, detector.to(self.device), self.pile.images, device=self.device)
        size = batch_size or evaluation_batch_size(detector, image_shape(self.pile.images), self.device)
        scores = answer(self.pile.batches(size))
        complaint = self._complaint(answer, stored, scores, SAMPLE)
        if complaint is not None:
            raise ContractError(complaint)
        return scores

    def _batches(self, classifier: Classifier, batch_size: int | None) -> list[Tensor]:
        size = batch_size or evaluation_batch_size(classifier.to(self.device), image_shape(self.pile.images), self.device)
        return self.pile.batches(size)

    def _complaint(self, answer: Answer, stored: StoredForm | None, answers: Tensor, sample: int) -> str | None:
        """What is wrong if `sample` images that are shown again get other logits, or scores; None if nothing is."""
        if self._witness is None or stored is None:
            return batch_complaint(answer, answers, self.pile.sample(sample))
        # The answers choose the sample: nobody knows it before they are given.
        chosen_by = tensors_hash({"logits": answers})
        samples = [self.pile.sample(most, chosen_by) for most in (sample // FOR_WITNESS, SAMPLE)]
        return witness_complaint(self._witness, stored, self.pile.images, answers, samples)

    def scored(self, logits: Tensor) -> Scores:
        """The scores of these logits for the pile, [N, K or K + 1]."""
        rejects = logits.shape[1] > self.num_classes
        # float64: a mean over the test set must not depend on the order of its images.
        logits = logits.double()
        clean, *triggered = (logits[places] for places in self.pile.places)
        decided = clean.argmax(1)
        by_class = partial(_by_class, self.truth[0], self.num_classes)
        return Scores(
            n_test=len(clean),
            correct=count_true(decided == self.truth[0]),
            rejected=count_true(decided == self.num_classes) if rejects else None,
            loss_clean=_loss(clean, self.truth[0]),
            backdoors=tuple(
                _backdoor_scores(backdoor, values, truth, wanted, self.num_classes, rejects)
                for backdoor, values, truth, wanted in zip(self.backdoors, triggered, self.truth[1:], self.wanted, strict=True)
            ),
            classes=ClassCounts(
                total=by_class(self.truth[0] >= 0),
                correct=by_class(decided == self.truth[0]),
                rejected=by_class(decided == self.num_classes) if rejects else None,
            ),
        )


def _backdoor_scores(backdoor: Backdoor, logits: Tensor, truth: Tensor, wanted: Tensor, num_classes: int, rejects: bool) -> BackdoorScores:
    """Scores of the eligible images' logits float64 [n, K or K + 1] under the trigger; the last class rejects if it `rejects`."""
    decided = logits.argmax(1)
    by_class = partial(_by_class, truth, num_classes)
    return BackdoorScores(
        name=backdoor.name,
        kind=backdoor.goal.kind,
        targets=backdoor.goal.targets,
        eligible=len(decided),
        hits=count_true(decided == wanted),
        recovered=count_true(decided == truth),
        rejected=count_true(decided == num_classes) if rejects else None,
        loss=_loss(logits, wanted),
        classes=BackdoorClassCounts(
            eligible=by_class(truth >= 0),
            hits=by_class(decided == wanted),
            recovered=by_class(decided == truth),
            rejected=by_class(decided == num_classes) if rejects else None,
        ),
    )


def _by_class(truth: Tensor, num_classes: int, chosen: Tensor) -> tuple[int, ...]:
    """How many of the images that are `chosen` (bool [n]) have each true label (int64 [n])."""
    return tuple(torch.bincount(truth[chosen], minlength=num_classes).tolist())


def _loss(logits: Tensor, labels: Tensor) -> float | None:
    return float(F.cross_entropy(logits, labels)) if len(labels) else None
