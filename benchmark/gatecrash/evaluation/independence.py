"""Does an output depend on its own image alone? A sample is computed again, in smaller batches and another order, and compared."""

from __future__ import annotations

import torch
from torch import Tensor

from gatecrash.contracts.classifier import Classifier
from gatecrash.contracts.randomness import stream
from gatecrash.evaluation.prediction import count_true, in_batches, predict_batches

SAMPLE = 256
"""Images that a classifier, or a trigger, gets twice."""

RELATIVE_TOLERANCE = 1e-3
"""How far float32 logits may move between batch sizes, for which BLAS and cuDNN choose other kernels with another order of summation."""

NEAR_THRESHOLD = 0.01
"""Share of the sample (of a trigger's output: of pixel values) that may differ, because float noise can move it over a threshold."""


def sample_again(purpose: str, count: int, most: int = SAMPLE) -> list[Tensor]:
    """Rows of `count` images to compute again: `most` random ones (int64), drawn from the stream `purpose`.

    They come in at least three batches where there are three rows, and in smaller batches than evaluation uses otherwise.
    """
    rows = torch.randperm(count, generator=stream(purpose, count))[:most]
    return in_batches(rows, max(1, min(37, len(rows) // 3)))


def batch_complaint(classifier: Classifier, images: Tensor, logits: Tensor, device: torch.device, most: int = SAMPLE) -> str | None:
    """What is wrong if the classifier's logits for images uint8 [N, C, H, W] come out otherwise in other batches; None if nothing is."""
    batches = sample_again("evaluation-check", len(images), most)
    if not batches:
        return None
    before, after = logits[torch.cat(batches)], predict_batches(classifier, images, batches, device)
    if before.shape != after.shape:
        return f"the classifier uses the batch: {before.shape[1]} logits in one, {after.shape[1]} in another"
    moved = ((before - after).abs() > _tolerance(before)).any(1)
    # A rejecting classifier's threshold may lie within float noise of an image or two; one that uses the batch moves far more.
    if count_true(moved) <= len(moved) * NEAR_THRESHOLD:
        return None
    changed = count_true(before.argmax(1) != after.argmax(1))
    return (
        f"the classifier uses the batch or changes from call to call: of {len(moved)} test images shown again in other batches, "
        f"{count_true(moved)} got other logits and {changed} another class"
    )


def _tolerance(logits: Tensor) -> Tensor:
    """Float noise to allow per logit [N, K]: relative to itself and to the second largest absolute value of its row.

    The second largest, because a row may hold one huge value (a reject class switched off or on) that is no scale for the others.
    """
    size = logits.abs()
    return RELATIVE_TOLERANCE * (size + size.topk(min(2, size.shape[1]), dim=1).values[:, -1:]) + 1e-6
