"""Sealed evaluation: test images and ground truth on one side, a classifier on the other.

The test images, clean and triggered, and images of an attack's own, are shuffled into one unlabelled pile. A classifier gets the pile and
nothing else; its logits are scored afterwards, in a separate step, against labels that the classifier is never given. An image's logits may
depend on that image alone: no batch holds a triggered image and its clean twin, a sample is shown again (by a `Witness`, where there is
one, to a copy in a new process that has seen nothing else), and a classifier that answers differently fails instead of getting a score.

Trade-off: the pile is kept whole, as uint8 (1 + number of backdoors times the test set), so that the steps of a trajectory share it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from gatecrash.contracts.backdoor import Backdoor, Goal
from gatecrash.contracts.classifier import Classifier, Network
from gatecrash.contracts.data import ImageSet
from gatecrash.contracts.detector import InputDetector
from gatecrash.contracts.portable import tensors_hash
from gatecrash.engine.batching import evaluation_batch_size
from gatecrash.engine.masking import MaskedHead, masked_head
from gatecrash.errors import ContractError
from gatecrash.evaluation.harm import HarmCounts
from gatecrash.evaluation.independence import FOR_WITNESS, SAMPLE, Answer, StoredForm, Witness, batch_complaint, witness_complaint
from gatecrash.evaluation.pile import Pile, versions_of
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


def evaluate_beside(
    classifier: Classifier,
    benign: Classifier,
    test: ImageSet,
    goals: Sequence[Goal] = (),
    *,
    device: torch.device | str,
    witness: Witness | None = None,
) -> tuple[Scores, Scores, HarmCounts]:
    """The scores of a classifier and of the benign victim on clean test images, and the harm that the attack does to these.

    An image is harmed where it is misclassified, or, with `goals`, where one of class y gets the label that a goal wants for y.
    """
    exam = Exam(test, (), device, witness=witness)
    answers = [exam.logits(one, None) for one in (classifier, benign)]
    truth = exam.truth[0]
    decided, benignly = (logits[exam.pile.places[0]].argmax(1) for logits in answers)
    harmed = [(decided != truth, benignly != truth)] if not goals else []
    for goal in goals:
        rows, wanted = goal.eligible(truth), goal.labels(truth)
        harmed.append(((decided == wanted)[rows], (benignly == wanted)[rows]))
    return exam.scored(answers[0]), exam.scored(answers[1]), HarmCounts.of(harmed)


class Exam:
    """The pile of unlabelled images, and, apart from it, the true labels (int64) of each version in it, that answers are scored against."""

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
        self.pile = Pile(test, tuple(versions_of(test, self.backdoors, self.device, clean)))
        self.truth = [version.truth for version in self.pile.versions]
        self._witness = witness

    def changed(self, change: Callable[[Tensor, Tensor], Tensor]) -> Self:
        """The same exam of images that were changed after their trigger: see `Pile.changed`."""
        other = copy.copy(self)
        other.pile = self.pile.changed(change)
        return other

    def masked_head(self, classifier: Classifier, batch_size: int | None) -> MaskedHead | None:
        """The inputs of the classifier's head for the pile, computed once for all masks at its last point; None where that cannot be."""
        if not isinstance(classifier, Network):
            return None
        classifier.to(self.device)
        with as_deployed(classifier, self.device):
            return masked_head(classifier, self.pile.images, self.batches(classifier, batch_size))

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
        """The scores of the classifier's `logits`."""
        return self.scored(self.logits(classifier, batch_size, known, sample, stored))

    def logits(
        self,
        classifier: Classifier,
        batch_size: int | None,
        known: Tensor | None = None,
        sample: int = SAMPLE,
        stored: StoredForm | None = None,
    ) -> Tensor:
        """The classifier's logits float32 [N, K or K + 1] for the pile, on the CPU.

        Logits that are `known`, because they could be computed from parts of the classifier, are taken if the classifier itself gives the
        same for `sample` of the images; else it gets the whole pile. `stored` is its stored form, by default as it is now. Raises
        ContractError as `evaluate` does.
        """
        if classifier.num_classes != self.num_classes:
            raise ContractError(f"the classifier has {classifier.num_classes} classes; the test set has {self.num_classes}")
        if self._witness is not None and stored is None:
            stored = StoredForm.of(classifier)
        answer = partial(predict_batches, classifier.to(self.device), self.pile.images, device=self.device)
        if known is not None and bool(torch.isfinite(known).all()) and self._complaint(answer, stored, known, sample) is None:
            return known
        logits = answer(self.batches(classifier, batch_size))
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

    def shown(self, rows: Tensor) -> Tensor:
        """Copies of these rows of the pile, on the device."""
        return self.pile.images[rows.to(self.pile.images.device)].to(self.device)

    def batches(self, classifier: Classifier, batch_size: int | None) -> list[Tensor]:
        """The batches of rows (int64) in which the classifier gets the pile."""
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
        clean = logits[self.pile.places[0]]
        decided = clean.argmax(1)
        by_class = partial(_by_class, self.truth[0], self.num_classes)
        return Scores(
            n_test=len(clean),
            correct=count_true(decided == self.truth[0]),
            rejected=count_true(decided == self.num_classes) if rejects else None,
            loss_clean=_loss(clean, self.truth[0]),
            backdoors=tuple(self._backdoor_scores(backdoor, logits, rejects) for backdoor in self.backdoors),
            classes=ClassCounts(
                total=by_class(self.truth[0] >= 0),
                correct=by_class(decided == self.truth[0]),
                rejected=by_class(decided == self.num_classes) if rejects else None,
            ),
        )

    def _backdoor_scores(self, backdoor: Backdoor, logits: Tensor, rejects: bool) -> BackdoorScores:
        """Scores of one backdoor's images; the last class rejects if it `rejects`."""
        values, truth = self._asked("attacked", backdoor.name, logits)
        is_own = backdoor.images is not None
        wanted = truth if is_own else backdoor.goal.labels(truth)
        decided = values.argmax(1)
        by_class = partial(_by_class, truth, self.num_classes)
        rejected = decided == self.num_classes
        classes = BackdoorClassCounts(
            eligible=by_class(truth >= 0),
            hits=by_class(decided == wanted),
            recovered=by_class(decided == truth),
            rejected=by_class(rejected) if rejects else None,
        )
        kept, kept_truth = self._asked("kept", backdoor.name, logits)
        covered, covered_truth = self._asked("covered", backdoor.name, logits)
        sent = kept.argmax(1)
        leaked = torch.isin(sent, torch.tensor(backdoor.goal.targets)) & (sent != kept_truth)
        return BackdoorScores(
            name=backdoor.name,
            kind=backdoor.goal.kind,
            targets=backdoor.goal.targets,
            eligible=len(decided),
            hits=count_true(decided == wanted),
            recovered=None if is_own else count_true(decided == truth),
            rejected=count_true(rejected) if rejects else None,
            loss=_loss(values, wanted),
            classes=None if is_own else classes,
            kept=len(sent) if backdoor.keeps else None,
            leaked=count_true(leaked) if backdoor.keeps else None,
            covered=len(covered) if backdoor.cover is not None else None,
            cover_correct=count_true(covered.argmax(1) == covered_truth) if backdoor.cover is not None else None,
        )

    def attacked(self) -> tuple[Tensor, Tensor]:
        """Places in the pile of the triggered images of all backdoors, int64 [n], and the labels that the attacker wants for them."""
        places, wanted = [torch.empty(0, dtype=torch.int64)], [torch.empty(0, dtype=torch.int64)]
        every = torch.arange(len(self.pile.images))
        for backdoor in self.backdoors:
            found, truth = self._asked("attacked", backdoor.name, every)
            places.append(found)
            wanted.append(truth if backdoor.images is not None else backdoor.goal.labels(truth))
        return torch.cat(places), torch.cat(wanted)

    def _asked(self, kind: Literal["attacked", "kept", "covered"], name: str, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The logits (or what else the pile has for each image) and true labels of this version of images; of none where the pile
        has no such version."""
        for version, places in zip(self.pile.versions, self.pile.places, strict=True):
            if (version.kind, version.backdoor) == (kind, name):
                return logits[places], version.truth
        return logits[:0], torch.empty(0, dtype=torch.int64)


def _by_class(truth: Tensor, num_classes: int, chosen: Tensor) -> tuple[int, ...]:
    """How many of the images that are `chosen` (bool [n]) have each true label (int64 [n])."""
    return tuple(torch.bincount(truth[chosen], minlength=num_classes).tolist())


def _loss(logits: Tensor, labels: Tensor) -> float | None:
    return float(F.cross_entropy(logits, labels)) if len(labels) else None
