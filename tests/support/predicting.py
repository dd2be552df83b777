"""Logits of a whole set, for tests that have no exam."""

from __future__ import annotations

import torch
from torch import Tensor

from gatecrash import Classifier
from gatecrash.engine.batching import evaluation_batch_size
from gatecrash.evaluation.prediction import image_shape, in_batches, predict_batches


def predict(classifier: Classifier, images: Tensor, *, device: torch.device | str, batch_size: int | None = None) -> Tensor:
    """Logits float32 [N, K] or [N, K + 1] on the CPU for images uint8 [N, C, H, W], in eval mode and full float32.

    The classifier is moved to `device`, its mode is restored, and it gets copies of the images. Raises ContractError for logits of
    another shape or with NaN or infinite values.
    """
    device = torch.device(device)
    classifier.to(device)
    size = batch_size or evaluation_batch_size(classifier, image_shape(images), device)
    return predict_batches(classifier, images, in_batches(torch.arange(len(images)), size), device)
