"""Sealed evaluation: the only code that sees the test set and the ground truth.

The test images, clean and triggered, are shuffled into one unlabelled pile. A classifier is shown the pile and nothing else; its logits
are scored afterwards, in a separate step, against labels that it never came near. An image's logits may depend on that image alone: a
sample is shown again in other company, and a classifier that answers differently fails instead of getting a score.

Trade-off: the pile is kept whole, as uint8 (1 + number of backdoors times the test set), so that the steps of a trajectory share it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gatecrash.contracts.backdoor import Backdoor
from gatecrash.contracts.classifier import Classifier, Network
from gatecrash.contracts.data import ImageSet
from gatecrash.contracts.randomness import stream
from gatecrash.engine.batching import evaluation_batch_size
from gatecrash.engine.masking import MaskedHead, masked_head
from gatecrash.errors import ContractError
from gatecrash.evaluation.prediction import (
    NEAR_THRESHOLD,
    RELATIVE_TOLERANCE,
    SAMPLE,
    apply_trigger,
    as_deployed,
    count_true,
    image_shape,
    in_small_batches,
    predict,
    predict_batches,
)
from gatecrash.evaluation.scores import BackdoorScores, Scores


def evaluate(
    classifier: Classifier,
    test: ImageSet,
    backdoors: Sequence[Backdoor] = (),
    *,
    device: torch.device | str,
    batch_size: int | None = None,
) -> Scores:
    """Score a classifier on clean test images and on those eligible for each backdoor, triggered.

    Raises ContractError for a classifier or a trigger that does not keep its contract, above all one that uses the batch.
    """
    return Exam(test, backdoors, device).scores(classifier, batch_size)


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
    """The pile of unlabelled images, and, kept apart from it, what it takes to score the answers."""

    def __init__(self, test: ImageSet, backdoors: Sequence[Backdoor], device: torch.device | str, clean: bool = True) -> None:
        self.device = torch.device(device)
        self.num_classes = test.num_classes
        self.backdoors = tuple(backdoors)
        labels = test.labels.cpu()
        rows = [torch.arange(len(test) if clean else 0)]
        rows += [torch.nonzero(backdoor.goal.eligible(labels)).flatten() for backdoor in self.backdoors]
        self.truth = [labels[chosen] for chosen in rows]
        self.wanted = [backdoor.goal.labels(truth) for backdoor, truth in zip(self.backdoors, self.truth[1:], strict=True)]
        sizes = [len(chosen) for chosen in rows]
        total = sum(sizes)
        # A seed of its own, not the run's: one test set has one order.
        self.places = torch.split(torch.randperm(total, generator=stream("evaluation-order", total)), sizes)
        self.pile = torch.empty((total, *test.shape), dtype=torch.uint8, device=test.device)
        self.pile[self.places[0]] = test.images[rows[0]]
        for backdoor, chosen, places in zip(self.backdoors, rows[1:], self.places[1:], strict=True):
            self.pile[places] = apply_trigger(backdoor, test.images[chosen], device=self.device)

    def masked_head(self, classifier: Classifier, batch_size: int | None) -> MaskedHead | None:
        """A short way from a mask at the classifier's last point to its logits on the pile, or None."""
        if not isinstance(classifier, Network):
            return None
        classifier.to(self.device)
        size = batch_size or evaluation_batch_size(classifier, image_shape(self.pile), self.device)
        with as_deployed(classifier, self.device):
            return masked_head(classifier, self.pile, size)

    def masked_logits(self, head: MaskedHead, mask: Tensor) -> Tensor:
        with as_deployed(head.head, self.device):
            return head.logits(mask)

    def scores(self, classifier: Classifier, batch_size: int | None, found: Tensor | None = None, sample: int = SAMPLE) -> Scores:
        """Score the classifier's answers; logits `found` on a short way count if it gives the same itself for `sample` images."""
        if classifier.num_classes != self.num_classes:
            raise ContractError(f"the classifier has {classifier.num_classes} classes; the test set has {self.num_classes}")
        if found is not None and bool(torch.isfinite(found).all()) and self._complaint(classifier, found, sample) is None:
            return self._score(found)
        logits = predict(classifier, self.pile, device=self.device, batch_size=batch_size)
        complaint = self._complaint(classifier, logits)
        if complaint is not None:
            raise ContractError(complaint)
        return self._score(logits)

    def _score(self, logits: Tensor) -> Scores:
        rejects = logits.shape[1] > self.num_classes
        # float64: a mean over the test set must not depend on the order of its images.
        logits = logits.double()
        decided = logits.argmax(1)
        clean, *triggered = ((logits[places], decided[places]) for places in self.places)
        return Scores(
            n_test=len(clean[1]),
            correct=count_true(clean[1] == self.truth[0]),
            rejected=count_true(clean[1] == self.num_classes) if rejects else None,
            loss_clean=_loss(clean[0], self.truth[0]),
            backdoors=tuple(
                BackdoorScores(
                    name=backdoor.name,
                    kind=backdoor.goal.kind,
                    targets=backdoor.goal.targets,
                    eligible=len(answers),
                    hits=count_true(answers == wanted),
                    recovered=count_true(answers == truth),
                    rejected=count_true(answers == self.num_classes) if rejects else None,
                    loss=_loss(values, wanted),
                )
                for backdoor, (values, answers), truth, wanted in zip(self.backdoors, triggered, self.truth[1:], self.wanted, strict=True)
            ),
        )

    def _complaint(self, classifier: Classifier, logits: Tensor, most: int = SAMPLE) -> str | None:
        """Show a sample again in smaller batches and another order: what is wrong if the logits come out otherwise."""
        sample = torch.randperm(len(self.pile), generator=stream("evaluation-check", len(self.pile)))[:most]
        if len(sample) == 0:
            return None
        before, after = logits[sample], predict_batches(classifier, self.pile, in_small_batches(sample), self.device)
        if before.shape != after.shape:
            return f"the classifier uses the batch: {before.shape[1]} logits in one, {after.shape[1]} in another"
        moved = ((before - after).abs() > _tolerance(before)).any(1)
        # A rejecting classifier's threshold may lie within float noise of an image or two; one that uses the batch moves far more.
        if count_true(moved) <= len(sample) * NEAR_THRESHOLD:
            return None
        changed = count_true(before.argmax(1) != after.argmax(1))
        return (
            f"the classifier uses the batch or changes from call to call: of {len(sample)} test images shown again in other batches, "
            f"{count_true(moved)} got other logits and {changed} another class"
        )


def _tolerance(logits: Tensor) -> Tensor:
    """Float noise to allow per logit [N, K]: relative to itself and to its row's second largest size.

    The second largest, for a row may hold one huge value (a reject class switched off or on) that says nothing of the others.
    """
    size = logits.abs()
    return RELATIVE_TOLERANCE * (size + size.topk(min(2, size.shape[1]), dim=1).values[:, -1:]) + 1e-6


def _loss(logits: Tensor, labels: Tensor) -> float | None:
    return float(F.cross_entropy(logits, labels)) if len(labels) else None
