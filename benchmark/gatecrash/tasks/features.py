"""Features: a victim's penultimate activations on its training set, computed once for all defenses that need them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gatecrash import batching, training
from gatecrash.classifier import Classifier, Network
from gatecrash.errors import ContractError, NotApplicable
from gatecrash.measure import Meter
from gatecrash.tasks.common import Ground, Report

if TYPE_CHECKING:
    from gatecrash.tasks.defend import View


@dataclass(frozen=True)
class FeaturesArtifact:
    """float32 [N, F] on the CPU, in training order. The seconds count as each defense's own that uses them."""

    values: Tensor
    seconds: float


def features(ground: Ground, view: View, report: Report) -> FeaturesArtifact:
    """One pass of the suspicious training set through the victim. Raises NotApplicable where the victim is no Network."""
    device = training.choose_device(ground.device)
    if view.training is None:
        raise ContractError("features are of a training set, and the view has none")
    report({"note": "features of the training set"})
    meter = Meter(device)
    with meter:
        network = view.classifier().to(device).eval()
        values = penultimate(network, view.training.images, partial(batching.batches, device=device)).cpu()
    return FeaturesArtifact(values, meter.seconds)


def penultimate(classifier: Classifier, images: Tensor, batches: Callable[..., Iterator[Any]]) -> Tensor:
    """The head's input float32 [N, F] for images uint8 [N, C, H, W], in their order; the classifier is in eval mode."""
    if not isinstance(classifier, Network):
        raise NotApplicable(f"the classifier is a {type(classifier).__name__}, whose penultimate activations cannot be reached")
    with torch.no_grad():
        return torch.cat([classifier.features(batch).float() for batch in batches(images)])
