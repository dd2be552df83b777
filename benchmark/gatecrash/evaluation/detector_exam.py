"""Evaluation of a detector of poisoned inputs: by its scores, and of the classifier behind it by its decisions."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gatecrash.contracts.backdoor import Backdoor
from gatecrash.contracts.classifier import Classifier
from gatecrash.contracts.data import ImageSet
from gatecrash.contracts.detector import InputDetector, with_rejection
from gatecrash.contracts.randomness import stream
from gatecrash.evaluation.exam import Exam
from gatecrash.evaluation.independence import Witness
from gatecrash.evaluation.inputs import InputScores, input_scores
from gatecrash.evaluation.scores import Scores


def evaluate_detector(
    classifier: Classifier,
    detector: InputDetector,
    victim: Classifier,
    test: ImageSet,
    backdoors: Sequence[Backdoor] = (),
    *,
    device: torch.device | str,
    batch_size: int | None = None,
    witness: Witness | None = None,
) -> tuple[Scores, InputScores]:
    """Score `gatecrash.Rejecting(classifier, detector)` as `evaluate` does a classifier, and the detector by how it ranks the images.

    `victim` is the undefended one: the triggered images that fool it are scored apart. Where the detector has `max_images`, all of this is
    on a part of the test set; `Scores.n_test` says how many images that are. Raises ContractError as `evaluate` does, and for a detector
    that breaks its contract.
    """
    exam = detector_exam(detector, test, backdoors, device=device, witness=witness)
    suspicion = exam.suspicion(detector, batch_size)
    logits = exam.logits(classifier, batch_size)
    undefended = logits if victim is classifier else exam.logits(victim, batch_size)
    flagged = detector.flags(suspicion)
    clean, (places, wanted) = exam.pile.places[0], exam.attacked()
    fooled = undefended[places].argmax(1) == wanted
    found = input_scores(suspicion[clean], suspicion[places], flagged[clean], flagged[places], fooled)
    return exam.scored(with_rejection(logits, flagged, classifier.num_classes)), found


def detector_exam(
    detector: InputDetector, test: ImageSet, backdoors: Sequence[Backdoor], *, device: torch.device | str, witness: Witness | None = None
) -> Exam:
    """The exam on as many test images as the detector may be shown."""
    return Exam(_part(test, detector.max_images, _versions(backdoors)), backdoors, device, witness=witness)


def rejecting_scores(exam: Exam, classifier: Classifier, detector: InputDetector) -> Scores:
    """The scores of `gatecrash.Rejecting(classifier, detector)`."""
    flagged = detector.flags(exam.suspicion(detector))
    return exam.scored(with_rejection(exam.logits(classifier, None), flagged, classifier.num_classes))


def _versions(backdoors: Sequence[Backdoor]) -> int:
    """How often a test image comes at most."""
    return 1 + sum(1 + bool(one.keeps) + (one.cover is not None) for one in backdoors)


def _part(test: ImageSet, most: int | None, versions: int) -> ImageSet:
    """As many test images as there may be, each in all its versions, clean and triggered; of one test set always the same ones."""
    if most is None or len(test) * versions <= most:
        return test
    order = torch.randperm(len(test), generator=stream("detector-images", len(test)))
    return test.subset(order[: max(1, most // versions)].sort().values.to(test.device))
