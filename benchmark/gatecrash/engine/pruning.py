"""What pruning defenses share: accuracy on a hold-out, mean activations, and accuracy as channels are switched off one by one.

Channels are switched off by the mask of a `Point`. Everything before the point is computed once; where a channel of the last point is a
block of the head's input, as `Backbone` requires, the curve is a running sum over the head's columns and needs no further forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gatecrash.contracts.classifier import Classifier, Network
from gatecrash.contracts.data import ImageSet
from gatecrash.contracts.outcome import MAX_STEPS, Step
from gatecrash.engine.masking import evaluating, scales_blocks
from gatecrash.errors import ContractError, NotApplicable

Batches = Callable[..., Iterator[Any]]
"""`evidence.batches`."""


def accuracy(classifier: Classifier, data: ImageSet, batches: Batches) -> float:
    """Share of `data` that the classifier, in eval mode, gets right; an image that it rejects is wrong."""
    return _count_correct(classifier, data, batches) / len(data)


def mean_activations(network: Network, images: Tensor, batches: Batches, names: Sequence[str] | None = None) -> dict[str, Tensor]:
    """Mean size |a| of each channel's activation over images uint8 [N, C, H, W] and positions, at the named points (default: all).

    float64 [channels] on the CPU, from running sums. Behind a ReLU it is a mean activation as Liu et al. have it; at a point in front of
    one, a channel that is strongly negative is not dormant.
    """
    points = list(network.points) if names is None else list(names)
    sums = {name: torch.zeros(network.points[name].channels, dtype=torch.float64) for name in points}
    with evaluating(network):
        for batch in batches(images):
            for name, activation in network.activations(batch, points).items():
                if activation.ndim == 2:
                    activation = activation.unsqueeze(2)
                # Per image first: a float32 sum over a whole batch would lose digits.
                sums[name] += activation.flatten(2).abs().mean(2).double().sum(0).cpu()
    return {name: total / len(images) for name, total in sums.items()}


def last_activations(network: Network, images: Tensor, batches: Batches, *, pooled: bool) -> Tensor:
    """Mean size |a| of each channel of the last point over images uint8 [N, C, H, W]: float64 [channels] on the CPU.

    Not pooled: over the positions of the point's map, as `mean_activations`. Pooled: over the channel's block of the head's input, which is
    what pooling left of the map. Behind a mean both rank channels alike; a maximum lifts channels that are active in few positions. Raises
    NotApplicable where the head's input has no block for each channel.
    """
    name, point = list(network.points.items())[-1]
    if not pooled:
        return mean_activations(network, images, batches, [name])[name]
    total = torch.zeros(point.channels, dtype=torch.float64)
    with evaluating(network):
        for number, batch in enumerate(batches(images)):
            features = network.features(batch)
            if number == 0 and not scales_blocks(network, batch, features):
                raise NotApplicable(f"the head's input has no block for each channel of {name}; use the activations before pooling")
            total += features.view(len(batch), point.channels, -1).abs().mean(2).double().sum(0).cpu()
    return total / len(images)


@dataclass(frozen=True)
class PruningCurve:
    """Accuracy while the channels of the last point are switched off in a given order.

    `correct[k]` of `total` images are classified right when the first k channels of `order` (int64 [C]) are off, k = 0 .. C - 1: one
    channel always stays. `start` is the mask (float [C]) before pruning.
    """

    point: str
    order: Tensor
    correct: tuple[int, ...]
    total: int
    start: Tensor

    def accuracy(self, pruned: int) -> float:
        return self.correct[pruned] / self.total

    def lost(self, pruned: int, drop: float) -> bool:
        """Whether accuracy is at least `drop` (absolute) below that before pruning."""
        return self.correct[0] - self.correct[pruned] >= drop * self.total - 1e-9

    def mask(self, pruned: int) -> Tensor:
        mask = self.start.clone()
        mask[self.order[:pruned].to(mask.device)] = 0
        return mask

    def trajectory(self, chosen: int) -> list[Step]:
        """At most 32 evenly spaced steps from no pruned channel to one left, `chosen` among them; changes refer to the `Network`."""
        return [
            Step(
                {"pruned": pruned, "holdout_acc": self.accuracy(pruned), "chosen": int(pruned == chosen)}, {self._entry: self.mask(pruned)}
            )
            for pruned in evenly(len(self.correct), chosen)
        ]

    def table(self, means: Tensor) -> list[dict[str, Any]]:
        """One record per number of pruned channels: the channel last switched off, its mean activation, hold-out accuracy."""
        start: dict[str, Any] = {"pruned": 0, "channel": None, "mean_activation": None, "holdout_acc": self.accuracy(0)}
        rows = [
            {"pruned": k, "channel": channel, "mean_activation": float(means[channel]), "holdout_acc": self.accuracy(k)}
            for k, channel in enumerate(self.order.tolist()[:-1], 1)
        ]
        return [start, *rows]

    @property
    def _entry(self) -> str:
        return f"backbone.{self.point}.mask"


def pruning_curve(network: Network, data: ImageSet, order: Tensor, batches: Batches) -> PruningCurve:
    """The curve over the channels of the network's last point; `order` is int64 [C], the first is switched off first.

    The network is left as it is. Raises ContractError unless `order` holds each channel once.
    """
    name, point = list(network.points.items())[-1]
    channels = point.channels
    if sorted(order.tolist()) != list(range(channels)):
        raise ContractError(f"order must hold each of the {channels} channels of {name} once")
    start = point.mask.detach().clone()
    curve = PruningCurve(name, order.cpu(), (), len(data), start)
    features, labels = _features(network, data, batches)
    batch = next(iter(batches(data.images)))
    if scales_blocks(network, batch, features[: len(batch)]):
        correct = _by_columns(network.head, features, labels, curve.order)
    else:
        correct = _by_masking(network, data, curve, batches)
    return PruningCurve(name, curve.order, tuple(correct), len(data), start)


def evenly(count: int, including: int, most: int = MAX_STEPS) -> list[int]:
    """At most `most` of 0 .. count - 1, evenly spaced, with both ends and `including`."""
    if count <= most:
        return list(range(count))
    chosen = {round(index * (count - 1) / (most - 1)) for index in range(most)}
    if including not in chosen:
        inner = chosen - {0, count - 1}
        chosen.remove(min(inner, key=lambda step: (abs(step - including), step)))
        chosen.add(including)
    return sorted(chosen)


def _features(network: Network, data: ImageSet, batches: Batches) -> tuple[Tensor, Tensor]:
    """The head's input, float64 [N, F], and labels, on the CPU: a running sum in float32 would drift."""
    with evaluating(network):
        features = torch.cat([network.features(images).double().cpu() for images in batches(data.images)])
    return features, data.labels.cpu()


def _by_columns(head: nn.Linear, features: Tensor, labels: Tensor, order: Tensor) -> list[int]:
    weight = head.weight.detach().double().cpu()
    logits = features @ weight.T
    if head.bias is not None:
        logits += head.bias.detach().double().cpu()
    width = features.shape[1] // len(order)
    correct = [int((logits.argmax(1) == labels).sum())]
    for channel in order[:-1].tolist():
        block = slice(channel * width, (channel + 1) * width)
        logits -= features[:, block] @ weight[:, block].T
        correct.append(int((logits.argmax(1) == labels).sum()))
    return correct


def _by_masking(network: Network, data: ImageSet, curve: PruningCurve, batches: Batches) -> list[int]:
    point = network.points[curve.point]
    correct = []
    try:
        for pruned in range(len(curve.order)):
            point.set_mask(curve.mask(pruned))
            correct.append(_count_correct(network, data, batches))
    finally:
        point.set_mask(curve.start)
    return correct


def _count_correct(classifier: Classifier, data: ImageSet, batches: Batches) -> int:
    with evaluating(classifier):
        hits = [(classifier(images).argmax(1) == labels).sum() for images, labels in batches(data.images, data.labels)]
    return int(torch.stack(hits).sum())
