"""Does an output depend on its own image alone? A sample is computed again and compared.

In the same process it is shown again in smaller batches and another order. That says nothing of a classifier that remembers: what it saw
may answer for it. A `Witness` shows each image alone to a copy that was rebuilt from the stored form and has never seen another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from gatecrash.contracts.portable import Portable, Spec, spec_of, state_of
from gatecrash.contracts.randomness import stream
from gatecrash.evaluation.prediction import count_true, in_batches

SAMPLE = 256
"""Images that a classifier, or a trigger, gets twice, at most."""

FOR_WITNESS = 4
"""A witness gets a quarter of the images at first, all of them where it disagrees on one: it costs more, and nobody deceives it."""

RELATIVE_TOLERANCE = 1e-3
"""How far float32 logits may move between batch sizes, for which BLAS and cuDNN choose other kernels with another order of summation."""

NEAR_THRESHOLD = 0.01
"""Share of the sample (of a trigger's output: of pixel values) that may differ, because float noise can move it over a threshold."""


@dataclass(frozen=True)
class StoredForm:
    """All that a copy of a classifier or detector is rebuilt from: JSON and tensors. To be taken before it sees an image."""

    spec: Spec
    state: Mapping[str, Tensor]

    @classmethod
    def of(cls, module: Portable) -> Self:
        return cls(spec_of(module), state_of(module))


class Witness(Protocol):
    """Asks a copy of the classifier, or the detector, in a process that has seen none of its images."""

    def __call__(self, stored: StoredForm, images: Tensor) -> Tensor:
        """Logits float32 [N, K or K + 1], or scores float32 [N], for images uint8 [N, C, H, W], each shown alone and in that order.

        Raises ContractError where the copy cannot be rebuilt or does not answer.
        """


def sample_again(purpose: str, count: int, most: int = SAMPLE) -> list[Tensor]:
    """Rows of `count` images to compute again: `most` random ones (int64), drawn from the stream `purpose`.

    They come in at least three batches where there are three rows, and in smaller batches than evaluation uses otherwise.
    """
    return in_small_batches(torch.randperm(count, generator=stream(purpose, count))[:most])


def in_small_batches(rows: Tensor) -> list[Tensor]:
    return in_batches(rows, max(1, min(37, len(rows) // 3)))


Answer = Callable[[Sequence[Tensor]], Tensor]
"""The answers for images in these batches of rows (int64)."""


def batch_complaint(answer: Answer, answers: Tensor, rows: Tensor) -> str | None:
    """What is wrong if these rows of the `answers`, logits [N, K or K + 1] or scores [N], come out otherwise in other batches; None if
    nothing is."""
    batches = in_small_batches(rows)
    if not batches:
        return None
    return complaint(answers[rows], answer(batches), "shown again in other batches")


def witness_complaint(witness: Witness, stored: StoredForm, images: Tensor, answers: Tensor, rows: Sequence[Tensor]) -> str | None:
    """What is wrong if a copy in another process gives other logits, or scores; None if nothing is.

    `rows` are samples of images uint8 [N, C, H, W]: the next is shown where the copy disagrees on any image of the one before.
    """
    found = None
    for chosen in rows:
        if not len(chosen):
            return None
        before, after = answers[chosen], witness(stored, images[chosen.to(images.device)].cpu())
        found = complaint(before, after, "shown again, each alone, to a copy in a new process")
        if before.shape == after.shape and not count_true(_moved(before, after)):
            return None
    return found


def complaint(before: Tensor, after: Tensor, how: str) -> str | None:
    """What is wrong if two answers, logits [N, K or K + 1] or scores [N] each, are not the same up to float noise; None if nothing is."""
    if before.shape != after.shape:
        return f"the classifier uses the batch: {before.shape[1]} logits in one, {after.shape[1]} in another"
    moved = _moved(before, after)
    # A rejecting classifier's threshold may lie within float noise of an image or two; one that uses the batch moves far more.
    if count_true(moved) <= len(moved) * NEAR_THRESHOLD:
        return None
    images = f"of {len(moved)} test images {how}, {count_true(moved)} got"
    if before.ndim == 1:
        return f"the detector uses the batch or changes from call to call: {images} another score"
    changed = count_true(before.argmax(1) != after.argmax(1))
    return f"the classifier uses the batch or changes from call to call: {images} other logits and {changed} another class"


def _moved(before: Tensor, after: Tensor) -> Tensor:
    apart = (before - after).abs()
    return apart > _score_tolerance(before) if before.ndim == 1 else (apart > _tolerance(before)).any(1)


def _score_tolerance(scores: Tensor) -> Tensor:
    """Float noise to allow per score [N]: relative to how far the scores lie apart, so that no offset and no factor hides a change."""
    deviation = (scores - scores.median()).abs()
    noise = RELATIVE_TOLERANCE * (deviation + deviation.median()) + 1e-6 * deviation.max().clamp(max=1)
    return noise + 4 * torch.finfo(scores.dtype).eps * scores.abs()


def _tolerance(logits: Tensor) -> Tensor:
    """Float noise to allow per logit [N, K]: relative to itself and to the second largest absolute value of its row.

    The second largest, because a row may hold one huge value (a reject class switched off or on) that is no scale for the others.
    """
    size = logits.abs()
    return RELATIVE_TOLERANCE * (size + size.topk(min(2, size.shape[1]), dim=1).values[:, -1:]) + 1e-6
