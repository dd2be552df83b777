"""Reconstructive Neuron Pruning: what a network unlearned of clean images is recovered by masks; neurons not needed for that are pruned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from gatecrash import (
    Defense,
    Evidence,
    Give,
    ImageSet,
    Loss,
    Need,
    Network,
    Neurons,
    Options,
    Outcome,
    Recipe,
    Reference,
    Step,
    StepFunction,
    TrainState,
    hookimpl,
)
from gatecrash_plugins.defenses.anp import choose, endless, held_accuracies, largest, table

THRESHOLDS = tuple(step / 20 for step in range(19))
"""The authors' sweep: 0, 0.05, ... 0.9."""


class RNP(Defense):
    """Section 3 of the paper. A copy of the victim unlearns the hold-out (gradient ascent) until its training accuracy is at most 20%. Its
    weights are frozen, and a factor in [0, 1] on each BatchNorm weight is trained to make it right again. Neurons whose factor fell to the
    threshold are the backdoor's: their weight is set to 0 in the victim itself, of which nothing else changes.

    Rates, momentum, batches and numbers of epochs are the paper's, with the authors' code (github.com/bboylyg/RNP) where it is silent. An
    epoch there is a pass over 500 images; of a smaller hold-out it is here as many passes as make up 500.

    That code takes the threshold from the attack success on the test set. Here it is the largest one at which the victim loses at most
    `max_drop` of its accuracy on the hold-out, on which it was not trained; `fixed` takes `threshold`, whose default is BackdoorBench's.
    That code calls the clipping of the gradients before there are any. Here it comes after the backward pass. The rate falls to a tenth
    after ten epochs as there, but momentum starts anew. Images are augmented while it unlearns, and not while it recovers.

    Recovery of equal weights on equal batches gives the masks of the authors' code to the last bit (docs/measured/rnp.md).
    """

    name = "rnp"
    summary = "prunes the neurons that an unlearned copy does not need to recover the clean task"
    reference = Reference("Li et al., Reconstructive Neuron Pruning for Backdoor Defense", 2023, "https://arxiv.org/abs/2305.14876")
    needs = frozenset({Need.MODEL, Need.CLEAN_DATA})
    gives = frozenset({Give.CLASSIFIER})

    class Config(Options):
        """Unlearning, recovery, pruning."""

        unlearn_epochs: int = Field(
            20, ge=1, le=10_000, description="epochs of unlearning at most; from the eleventh at a tenth of unlearn_lr"
        )
        unlearn_lr: float = Field(0.01, gt=0, le=10, description="learning rate of the ascent (SGD, momentum 0.9, weight decay 5e-4)")
        stop_accuracy: float = Field(0.2, ge=0, le=1, description="training accuracy (fraction) of an epoch at which unlearning stops")
        max_norm: float = Field(20, gt=0, le=1e6, description="L2 norm to which the gradients of the ascent are clipped")
        recover_epochs: int = Field(20, ge=1, le=10_000, description="epochs of the masks' training")
        recover_lr: float = Field(0.2, gt=0, le=100, description="learning rate of the masks (SGD, momentum 0.9)")
        alpha: float = Field(0.2, gt=0, le=10, description="weight of the loss while masks are trained")
        batch_size: int = Field(128, ge=1, le=65_536, description="hold-out images per step, in both")
        epoch_images: int = Field(500, ge=1, le=10_000_000, description="images of an epoch; a smaller hold-out is passed several times")
        selection: Literal["auto", "fixed"] = Field(
            "auto", description="auto: the largest threshold that max_drop allows; fixed: threshold"
        )
        threshold: float = Field(0.7, ge=0, le=1, description="selection fixed: prune neurons with a mask up to this")
        max_drop: float = Field(0.03, ge=0, le=1, description="selection auto: accuracy that pruning may cost on the hold-out (fraction)")

    config: Config

    def defend(self, evidence: Evidence) -> Outcome:
        victim = evidence.network
        neurons = Neurons(victim)  # raises NotApplicable before the long part
        unlearned, epochs = self.unlearn(victim.duplicate().to(evidence.device), evidence)
        mask = self.recover(Neurons(unlearned), evidence.clean, evidence)
        order = mask.sort(stable=True).indices
        choices = [choose(mask, order, {"threshold": threshold}) for threshold in THRESHOLDS]
        nothing = torch.zeros(neurons.count, dtype=torch.bool)
        before, *accuracies = held_accuracies(neurons, [nothing, *choices], evidence.clean, evidence)
        if self.config.selection == "fixed":
            chosen = choose(mask, order, {"threshold": self.config.threshold})
        else:
            chosen = largest(choices, accuracies, before - self.config.max_drop)
        trajectory = [
            Step(
                {"threshold": threshold, "pruned": int(choice.sum()), "holdout_acc": found, "chosen": int(choice.equal(chosen))},
                neurons.pruned(choice),
            )
            for threshold, choice, found in zip(THRESHOLDS, choices, accuracies, strict=True)
        ]
        tables: dict[str, Sequence[Mapping[str, Any]]] = {"unlearning": epochs, "neurons": table(neurons, mask, order, chosen)}
        victim.load_state_dict(neurons.pruned(chosen), strict=False)
        return Outcome(classifier=victim, trajectory=trajectory, tables=tables)

    def unlearn(self, network: Network, evidence: Evidence) -> tuple[Network, list[dict[str, float | int]]]:
        """The network after ascent on the hold-out, and the training accuracy of each epoch that it took."""
        config, passes = self.config, self.passes(evidence.clean)
        right = torch.zeros((), device=evidence.device)
        records: list[dict[str, float | int]] = []
        for first, last, lr in ((0, 10, config.unlearn_lr), (10, config.unlearn_epochs, config.unlearn_lr / 10)):
            count, state = min(last, config.unlearn_epochs) - first, TrainState()
            recipe = Recipe(epochs=max(1, count) * passes, lr=lr, batch_size=config.batch_size, schedule="constant")
            for epoch in range(count):
                right.zero_()
                part = (epoch / count, (epoch + 1) / count)
                network = evidence.train(
                    evidence.clean,
                    network=network,
                    recipe=recipe,
                    part=part,
                    resume=state,
                    loss=ascent(right),
                    step=clipped(config.max_norm),
                    diverges=True,
                )
                accuracy = float(right) / (passes * len(evidence.clean))
                records.append({"epoch": first + epoch + 1, "lr": lr, "train_acc": accuracy})
                if accuracy <= config.stop_accuracy:
                    return network, records
        return network, records

    def recover(self, neurons: Neurons, data: ImageSet, evidence: Evidence) -> Tensor:
        """The mask float [count] in [0, 1], trained from 1 on with the statistics of each batch, as in the authors' code."""
        config = self.config
        mask = torch.ones(neurons.count, device=evidence.device, requires_grad=True)
        optimizer = torch.optim.SGD([mask], lr=config.recover_lr, momentum=0.9)
        rows = endless(len(data), config.batch_size, evidence.stream("batches"))
        steps = config.recover_epochs * self.passes(data) * max(1, len(data) // config.batch_size)
        neurons.use_batch_statistics(True)
        for _ in range(steps):
            batch = next(rows).to(data.device, non_blocking=True)
            with evidence.autocast():
                logits = neurons(data.images[batch], mask)
            loss = config.alpha * F.cross_entropy(logits.float(), data.labels[batch])
            (mask.grad,) = torch.autograd.grad(loss, mask)
            optimizer.step()
            with torch.no_grad():
                mask.clamp_(0, 1)
        neurons.use_batch_statistics(False)
        return mask.detach().cpu()

    def passes(self, data: ImageSet) -> int:
        """Passes over `data` that make up an epoch."""
        return max(1, round(self.config.epoch_images / len(data)))


def ascent(right: Tensor) -> Loss:
    """Minus cross-entropy; predictions that are right are added up in `right`, on the device."""

    def loss(network: Network, images: Tensor, labels: Tensor, _rows: Tensor) -> Tensor:
        logits = network(images).float()
        right.add_((logits.detach().argmax(1) == labels).sum())
        return -F.cross_entropy(logits, labels)

    return loss


def clipped(max_norm: float) -> StepFunction:
    """A step by the gradients of the batch, clipped to this norm."""

    def step(
        network: Network, optimizer: torch.optim.Optimizer, closure: Callable[[], Tensor], _images: Tensor, _labels: Tensor, _rows: Tensor
    ) -> Tensor:
        value = closure()
        torch.nn.utils.clip_grad_norm_(network.parameters(), max_norm)
        optimizer.step()
        return value

    return step


@hookimpl
def register_defenses(register: Callable[[type[Defense]], None]) -> None:
    register(RNP)
