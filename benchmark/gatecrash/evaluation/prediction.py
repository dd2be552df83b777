"""Logits of a classifier, and triggered images, computed as deployed: eval mode, full float32, no gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gatecrash.contracts.backdoor import Backdoor
from gatecrash.contracts.classifier import Classifier
from gatecrash.contracts.randomness import stream
from gatecrash.contracts.trigger import Trigger
from gatecrash.engine.batching import evaluation_batch_size
from gatecrash.errors import ContractError
from gatecrash.process.isolation import full_float32

SAMPLE = 256
"""Images that are shown twice to a classifier, and to a trigger, to see whether the batch matters."""


RELATIVE_TOLERANCE = 1e-3
"""How far float32 logits may move between batch sizes, for which BLAS and cuDNN choose other kernels with another order of summation."""


NEAR_THRESHOLD = 0.01
"""Share of the sample that may come out differently: decisions on the edge, which float noise tips over."""


def predict(classifier: Classifier, images: Tensor, *, device: torch.device | str, batch_size: int | None = None) -> Tensor:
    """Logits float32 [N, K] or [N, K + 1] on the CPU for images uint8 [N, C, H, W], in eval mode and full float32.

    The classifier is moved to `device`, its mode is restored, and it gets copies of the images. Raises ContractError for logits of
    another shape or with NaN or infinite values.
    """
    device = torch.device(device)
    classifier.to(device)
    size = batch_size or evaluation_batch_size(classifier, image_shape(images), device)
    return predict_batches(classifier, images, _in_batches(torch.arange(len(images)), size), device)


def apply_trigger(backdoor: Backdoor, images: Tensor, *, device: torch.device | str, batch_size: int | None = None) -> Tensor:
    """uint8 [N, C, H, W] on the device of `images`: the images under the trigger, computed in batches on `device`.

    Raises ContractError for a trigger whose output is no image of the same shape, or which lets the rest of the batch into an image.
    """
    device = torch.device(device)
    trigger = backdoor.trigger.to(device)
    size = batch_size or evaluation_batch_size(trigger, image_shape(images), device)
    triggered = torch.empty_like(images)
    sample = torch.randperm(len(images), generator=stream("trigger-check", len(images)))[:SAMPLE]
    with as_deployed(trigger, device):
        for rows in _in_batches(torch.arange(len(images)), size):
            triggered[rows.to(images.device)] = _stamp(backdoor.name, trigger, images, rows, device).to(images.device)
        for rows in in_small_batches(sample):
            again = _stamp(backdoor.name, trigger, images, rows, device).to(images.device)
            apart = (triggered[rows.to(images.device)].int() - again.int()).abs()
            # Float noise may round a generator network's output to the other side: by one grey level, in a few pixels.
            if int(apart.max()) > 1 or float((apart > 0).float().mean()) > NEAR_THRESHOLD:
                raise ContractError(
                    f"trigger of backdoor {backdoor.name!r} uses the batch or changes from call to call: "
                    "an image must come out the same in whatever batch it is"
                )
    return triggered


def _in_batches(rows: Tensor, size: int) -> list[Tensor]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def in_small_batches(rows: Tensor) -> list[Tensor]:
    """In at least three batches where there are three rows, and smaller ones than evaluation uses otherwise."""
    return _in_batches(rows, max(1, min(37, len(rows) // 3)))


def predict_batches(classifier: Classifier, images: Tensor, batches: Sequence[Tensor], device: torch.device) -> Tensor:
    """Logits float32 [sum of batch sizes, K or K + 1] of the given rows, batch by batch in that order."""
    widths = (classifier.num_classes, classifier.num_classes + 1)
    answers = [torch.empty(0, widths[0])] if not batches else []
    with as_deployed(classifier, device):
        for rows in batches:
            # Indexing copies: what the classifier does to its input stays there.
            logits = classifier(images[rows.to(images.device)].to(device))
            if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(rows) or logits.shape[1] not in widths:
                got = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
                raise ContractError(f"the classifier must give logits [{len(rows)}, {widths[0]} or {widths[1]}]; got {got}")
            if answers and answers[0].shape[1] != logits.shape[1]:
                raise ContractError(f"the classifier uses the batch: {answers[0].shape[1]} logits in one, {logits.shape[1]} in another")
            answers.append(logits.float().cpu())
    every = torch.cat(answers)
    broken = count_true(~torch.isfinite(every).all(1))
    if broken:
        raise ContractError(f"the classifier gave NaN or infinite logits for {broken} of {len(every)} images")
    return every


def _stamp(name: str, trigger: Trigger, images: Tensor, rows: Tensor, device: torch.device) -> Tensor:
    """The given rows under the trigger, on `device`; raises ContractError for what is no image of the same shape."""
    given = images[rows.to(images.device)].to(device)
    made: object = trigger(given)
    if not isinstance(made, Tensor) or made.dtype != torch.uint8 or made.shape != given.shape:
        got = f"{made.dtype} {list(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
        raise ContractError(f"trigger of backdoor {name!r} must give uint8 {list(given.shape)}; got {got}")
    return made


@contextmanager
def as_deployed(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Eval mode, no gradients, deterministic and full float32 (no TF32, no autocast); everything as before afterwards.

    `no_grad`, not `inference_mode`: a classifier may look at gradients of its own (`torch.enable_grad`), and tensors that it keeps stay
    ordinary ones.
    """
    settings = [(part, "training", False) for part in module.modules()] + full_float32()
    settings += [(torch.backends.cudnn, "deterministic", True), (torch.backends.cudnn, "benchmark", False)]
    before = [getattr(holder, name) for holder, name, _ in settings]
    try:
        for holder, name, value in settings:
            setattr(holder, name, value)
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        for (holder, name, _), value in zip(settings, before, strict=True):
            setattr(holder, name, value)


def image_shape(images: Tensor) -> tuple[int, int, int]:
    channels, height, width = images.shape[1:]
    return channels, height, width


def count_true(mask: Tensor) -> int:
    return int(mask.sum())
