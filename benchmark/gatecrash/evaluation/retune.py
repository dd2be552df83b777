"""Is a backdoor gone, or asleep? What a defense returned is fine-tuned on a little data of which a few rows carry the trigger.

The protocol: all parameters are trained, masks having become part of the weights and a rejecting part left out, on 2% of the training
set, drawn from its clean rows; five of them are replaced by rows under the test-time trigger with the label that the attacker wants (for
each backdoor); SGD of rate .01, momentum .9, no decay, constant rate, batches of 128, 5 epochs, no augmentation; 5 draws. The same is done
to the benign victim after the same defense: what its ASR becomes, any network would learn from five rows.

The defender sees nothing of it: this is the evaluation's, on data of the user that a defense was run for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from gatecrash.contracts.backdoor import Backdoor
from gatecrash.contracts.classifier import Classifier, Network
from gatecrash.contracts.data import ImageSet
from gatecrash.contracts.randomness import Streams
from gatecrash.contracts.recipe import Recipe
from gatecrash.engine.precision import Precision
from gatecrash.engine.training import Execution, Method, train
from gatecrash.errors import NotApplicable
from gatecrash.evaluation.triggering import apply_trigger

TRIGGERED = 5
"""Rows of each backdoor."""
DRAWS = 5
RECIPE = Recipe(
    epochs=5, batch_size=128, lr=0.01, momentum=0.9, weight_decay=0.0, schedule="constant", crop=0, flip=False, label_smoothing=0.0
)


def tunable(classifier: Classifier, image: Tensor) -> Network | None:
    """A copy of the network that is fine-tuned: the classifier itself or, of one that rejects, its first network. None for any other.

    `image` (uint8 [1, C, H, W], on the classifier's device) shows whether it rejects. Masks have become part of the weights where these can
    be named: at the place before the head, and where a point has a norm, or a convolution, to itself. Others stay.
    """
    network: Network | None = classifier if isinstance(classifier, Network) else None
    if network is None:
        with torch.no_grad():
            rejects = classifier.to(image.device)(image).shape[1] > classifier.num_classes
        network = next((module for module in classifier.modules() if isinstance(module, Network)), None) if rejects else None
    return None if network is None else _baked(network.duplicate()).requires_grad_()


def tuning_sets(
    train_set: ImageSet, clean: Tensor, backdoors: Sequence[Backdoor], count: int, streams: Streams, device: torch.device
) -> Iterator[ImageSet]:
    """The data of each draw: `count` rows of `train_set`, `TRIGGERED` of them for each backdoor under its trigger.

    `clean` int64 [n] are the rows that may be drawn. Raises NotApplicable where there are too few of them.
    """
    if count <= TRIGGERED * len(backdoors):
        raise NotApplicable(
            f"retune: {count} rows for {len(backdoors)} backdoors of {TRIGGERED} rows each leave no clean one; give more rows"
        )
    for draw in range(DRAWS):
        order = clean[torch.randperm(len(clean), generator=streams(f"rows {draw}"))]
        labels = train_set.labels.cpu()
        taken = torch.zeros(len(labels), dtype=torch.bool)
        made: list[tuple[Tensor, Tensor]] = []
        for backdoor in backdoors:
            free = order[~taken[order] & backdoor.goal.eligible(labels[order])][:TRIGGERED]
            if len(free) < TRIGGERED or backdoor.trigger is None:
                raise NotApplicable(f"retune: backdoor {backdoor.name!r} needs {TRIGGERED} clean rows and a trigger")
            taken[free] = True
            images = apply_trigger(backdoor, train_set.images[free.to(train_set.device)], device=device).cpu()
            made.append((images, backdoor.goal.labels(labels[free])))
        plain = order[~taken[order]][: count - TRIGGERED * len(backdoors)]
        if len(plain) < count - TRIGGERED * len(backdoors):
            raise NotApplicable(f"retune: {count} rows are asked for; the training set has {len(order)} clean ones")
        made.append((train_set.images[plain.to(train_set.device)].cpu(), labels[plain]))
        yield ImageSet(torch.cat([images for images, _ in made]), torch.cat([wanted for _, wanted in made]), train_set.classes)


def retuned(network: Network, data: ImageSet, streams: Streams, device: torch.device, precision: Precision | None) -> Network:
    """The network, fine-tuned in place on `data`, on `device`, in eval mode."""
    method, execution = Method(diverges=True), Execution(precision=precision)
    train(network, data.images, data.labels, RECIPE, streams=streams, flip=False, device=device, method=method, execution=execution)
    return network


@torch.no_grad()
def _baked(network: Network) -> Network:
    """In place: masks become part of the weights, where their places are known."""
    last = list(network.points)[-1]
    for pair in network.pairs if _any_mask(network) else ():
        if pair.point is None or pair.point == last or not _masked(network, pair.point):
            continue
        mask = network.points[pair.point].mask
        scaled = network.norms[pair.norm] if pair.norm is not None else network.convolutions[pair.convolution]
        scaled.weight.mul_(mask.view(-1, *[1] * (scaled.weight.dim() - 1)))
        if scaled.bias is not None:
            scaled.bias.mul_(mask)
        network.points[pair.point].set_mask(torch.ones_like(mask))
    point, head = network.points[last], network.head
    if _masked(network, last) and head.in_features % point.channels == 0:
        head.weight.mul_(point.mask.repeat_interleave(head.in_features // point.channels))
        point.set_mask(torch.ones_like(point.mask))
    return network


def _masked(network: Network, point: str) -> bool:
    return not bool(network.points[point].mask.eq(1).all())


def _any_mask(network: Network) -> bool:
    return any(_masked(network, point) for point in network.points)
