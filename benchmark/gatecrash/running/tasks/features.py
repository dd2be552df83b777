"""Features: a victim's penultimate activations on its training set, computed once for all defenses that need them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gatecrash.contracts.classifier import Classifier, Network
from gatecrash.engine import batching
from gatecrash.engine.device import choose_device, device_name
from gatecrash.engine.processor import cpu_kind, cpu_model
from gatecrash.engine.trainer import ReportProgress
from gatecrash.errors import ContractError, NotApplicable
from gatecrash.process.measuring import Meter
from gatecrash.running.tasks.ground import Ground

if TYPE_CHECKING:
    from gatecrash.running.tasks.defender import DefenderInput


@dataclass(frozen=True)
class Features:
    """float32 [N, F] on the CPU, in training order. The seconds count as each defense's own that uses them."""

    values: Tensor
    seconds: float
    machine: str = ""
    """See `machine`."""


def machine(ground: Ground) -> str:
    """What the last digits of features depend on, beside the victim: where it is the same, they need not be computed again."""
    device = device_name(choose_device(ground.device))
    return f"{device}, {cpu_model()}, {cpu_kind()}, torch {torch.__version__}, {ground.threads} threads"


def features(ground: Ground, defender_input: DefenderInput, report: ReportProgress) -> Features:
    """One pass of the suspicious training set through the victim. Raises NotApplicable where the victim is no Network."""
    device = choose_device(ground.device)
    if defender_input.training_data is None:
        raise ContractError("features are of a training set, and the defender's input has none")
    report({"note": "features of the training set"})
    meter = Meter(device)
    with meter:
        network = defender_input.classifier().to(device).eval()
        values = penultimate(network, defender_input.training_data.images, partial(batching.batches, device=device)).cpu()
    return Features(values, meter.seconds, machine(ground))


def penultimate(classifier: Classifier, images: Tensor, batches: Callable[..., Iterator[Any]]) -> Tensor:
    """The head's input float32 [N, F] for images uint8 [N, C, H, W], in their order; the classifier is in eval mode.

    Its weights are channels last afterwards, the faster layout: callers hand in a copy of their own.
    """
    if not isinstance(classifier, Network):
        raise NotApplicable(f"the classifier is a {type(classifier).__name__}, whose penultimate activations cannot be reached")
    classifier.to(memory_format=torch.channels_last)
    with torch.no_grad():
        return torch.cat([classifier.features(batch).float() for batch in batches(images)])
