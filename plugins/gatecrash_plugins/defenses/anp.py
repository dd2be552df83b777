"""Adversarial Neuron Pruning: neurons that carry a backdoor are the ones that make the network err when neurons are perturbed a little.

A neuron is a channel of a BatchNorm (of a convolution's output in networks without BatchNorm): `y = w x + b` with w and b of its own. A
mask m in [0, 1] per neuron is trained on clean data so that the network stays right while every w and b may be changed by up to epsilon of
itself in the worst direction (Wu and Wang 2021, section 4):

    min over m of  alpha L(m w, b) + (1 - alpha) max over delta, xi in [-epsilon, epsilon] of L((m + delta) w, (1 + xi) b)

Then w of the neurons with the smallest masks is set to 0; b stays, and the mask itself is not part of the result.

How many to prune: the published code takes the threshold from test accuracy and attack success, which no defender has. Here the default
is the largest threshold at which the accuracy on hold-out images that the mask was not trained on has dropped by at most `max_drop`: three
points, so that with the error of a few dozen images the drop stays near five.

While the mask is trained BatchNorm normalises by the batch, as in the published code, whose `model.train()` made the paper's figures: each
layer then takes back part of what was perturbed in the layer before. With the network's own statistics (`statistics: running`) the
perturbations of all layers add up; a net of eight layers loses so many neurons that no threshold keeps its accuracy, though on shallow nets
it may find more. Neither changes the network's statistics.

Where this differs from the published code: while the mask is trained the network computes as in the run's trainings, in bfloat16 where
machine and recipe choose it. The perturbation is projected to [-epsilon, epsilon] as in the paper (there, random start and
step add up to twice that). Hold-out images are not augmented, and are drawn without replacement within each pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from gatecrash import (
    Defense,
    Evidence,
    Give,
    ImageSet,
    Need,
    Neurons,
    Options,
    Outcome,
    Reference,
    Step,
    hookimpl,
    stratified_split,
)

Logits = Callable[..., Tensor]
"""(images, factors of the weights float [count], optionally those of the biases) -> float32 [N, K], as `Neurons` gives them."""

Cut = dict[str, float | int]
"""How many neurons to prune: `{"threshold": t}` or `{"number": n}`."""


class ANP(Defense):
    """Prunes the neurons to whose perturbation the network is most sensitive."""

    name = "anp"
    summary = "prunes the neurons whose adversarial perturbation makes the network err on clean images"
    reference = Reference(
        "Wu and Wang, Adversarial Neuron Pruning Purifies Backdoored Deep Models", 2021, "https://arxiv.org/abs/2110.14430"
    )
    version = 3
    needs = frozenset({Need.MODEL, Need.CLEAN_DATA})
    gives = frozenset({Give.CLASSIFIER})

    class Config(Options):
        """Defaults of the mask's training: the paper's, and where it is silent the published code's."""

        epsilon: float = Field(0.4, ge=0, le=10, description="largest relative change of a neuron's weight and bias")
        alpha: float = Field(0.2, ge=0, le=1, description="share of the loss without perturbation")
        steps: int = Field(1, ge=1, le=100, description="sign-gradient steps of the perturbation, each of size epsilon / steps")
        iterations: int = Field(2000, ge=1, le=1_000_000, description="steps of the mask's training")
        lr: float = Field(0.2, gt=0, le=100, description="learning rate of the mask (SGD)")
        momentum: float = Field(0.9, ge=0, lt=1, description="momentum of the mask")
        batch_size: int = Field(128, ge=1, le=65_536, description="hold-out images per step")
        statistics: Literal["batch", "running"] = Field(
            "batch", description="BatchNorm statistics while the mask is trained: the batch's (published code), or the network's own"
        )
        by: Literal["threshold", "number"] = Field("threshold", description="prune masks up to a threshold, or a number of neurons")
        selection: Literal["auto", "fixed"] = Field("auto", description="auto: as many as max_drop allows; fixed: threshold or number")
        threshold: float = Field(0.2, ge=0, le=1, description="selection fixed, by threshold: prune neurons with a mask up to this")
        number: int = Field(0, ge=0, le=10_000_000, description="selection fixed, by number: prune so many neurons")
        max_drop: float = Field(
            0.03, ge=0, le=1, description="selection auto: accuracy that pruning may cost on held-back hold-out images (fraction)"
        )
        held_back: float = Field(
            0.3, gt=0, lt=1, description="selection auto: share of each class of the hold-out that the mask is not trained on"
        )
        rows: int | None = Field(None, ge=1, description="neurons in the report's table, from the smallest mask; all by default")

    config: Config

    def defend(self, evidence: Evidence) -> Outcome:
        network = evidence.network
        network.to(memory_format=torch.channels_last)  # the faster layout for convolutions
        neurons = Neurons(network)
        train, held = evidence.clean, None
        if self.config.selection == "auto":
            train, held = split(evidence.clean, self.config.held_back, evidence.stream("split"))
        mask = self.train_mask(neurons, train, evidence)
        order = mask.sort(stable=True).indices
        cuts = candidates(self.config.by, neurons.count)
        choices = [choose(mask, order, cut) for cut in cuts]
        seen: list[dict[str, float]] = [{} for _ in cuts]
        if held is None:
            fixed: Cut = {"threshold": self.config.threshold} if self.config.by == "threshold" else {"number": self.config.number}
            chosen = choose(mask, order, fixed)
        else:
            nothing = torch.zeros(neurons.count, dtype=torch.bool)
            unpruned, *accuracies = held_accuracies(neurons, [nothing, *choices], held, evidence)
            chosen = largest(choices, accuracies, unpruned - self.config.max_drop)
            seen = [{"holdout_acc": held_accuracy, "holdout_drop": unpruned - held_accuracy} for held_accuracy in accuracies]
        trajectory = [
            Step({**cut, "pruned": int(choice.sum()), **found, "chosen": int(choice.equal(chosen))}, neurons.pruned(choice))
            for cut, choice, found in zip(cuts, choices, seen, strict=True)
        ]
        records = table(neurons, mask, order[: self.config.rows], chosen)
        network.load_state_dict(neurons.pruned(chosen), strict=False)
        network.to(memory_format=torch.contiguous_format)
        return Outcome(classifier=network, trajectory=trajectory, tables={"neurons": records})

    def train_mask(self, neurons: Neurons, data: ImageSet, evidence: Evidence) -> Tensor:
        """The mask float [count] in [0, 1], trained from 1 on."""
        config = self.config
        starts = evidence.stream("perturbation")
        mask = torch.ones(neurons.count, device=evidence.device, requires_grad=True)
        optimizer = torch.optim.SGD([mask], lr=config.lr, momentum=config.momentum)
        rows = endless(len(data), config.batch_size, evidence.stream("batches"))
        neurons.use_batch_statistics(config.statistics == "batch")

        def logits(*given: Tensor) -> Tensor:
            with evidence.autocast():
                found = neurons(*given)
            return found.float()

        for _ in range(config.iterations):
            batch = next(rows).to(data.device, non_blocking=True)
            images, labels = data.images[batch], data.labels[batch]
            start = config.epsilon * (2 * torch.rand(2, neurons.count, generator=starts) - 1)
            optimizer.zero_grad()
            mask.grad = mask_gradient(logits, mask, images, labels, start.to(evidence.device, non_blocking=True), config)
            optimizer.step()
            with torch.no_grad():
                mask.clamp_(0, 1)
        neurons.use_batch_statistics(False)
        return mask.detach().cpu()


def held_accuracies(neurons: Neurons, choices: Sequence[Tensor], held: ImageSet, evidence: Evidence) -> list[float]:
    """Accuracy on `held` with each choice, bool [n], pruned. Choices are nested: of two with as many neurons one is the other."""
    by_number = {int(choice.sum()): choice for choice in choices}
    found = {number: accuracy(neurons, choice, held, evidence) for number, choice in by_number.items()}
    return [found[int(choice.sum())] for choice in choices]


def largest(choices: Sequence[Tensor], accuracies: Sequence[float], least: float) -> Tensor:
    """The choice, bool [n], that prunes most among those with at least this accuracy; nothing if there is none.

    `choices` are in the order of growing; all are looked at, since accuracy may dip and rise again.
    """
    for chosen, found in zip(reversed(choices), reversed(accuracies), strict=True):
        # The tiny term undoes float error: a drop of 3 in 100 images is 0.030000000000000027.
        if found >= least - 1e-9:
            return chosen
    return torch.zeros_like(choices[0])


def mask_gradient(logits: Logits, mask: Tensor, images: Tensor, labels: Tensor, start: Tensor, config: ANP.Config) -> Tensor:
    """Gradient of alpha L(m w, b) + (1 - alpha) L((m + delta) w, (1 + xi) b) by m, for the worst perturbation found from `start` [2, n]."""
    one = mask.detach().requires_grad_()
    loss = mask.new_zeros(())
    if config.alpha > 0:
        loss = loss + config.alpha * F.cross_entropy(logits(images, one), labels)
    if config.alpha < 1:
        delta, xi = worst(logits, mask.detach(), images, labels, start, config)
        loss = loss + (1 - config.alpha) * F.cross_entropy(logits(images, one + delta, 1 + xi), labels)
    return torch.autograd.grad(loss, one)[0]


def worst(logits: Logits, mask: Tensor, images: Tensor, labels: Tensor, start: Tensor, config: ANP.Config) -> Tensor:
    """Perturbations float [2, count] in [-epsilon, epsilon] of weights and biases that raise the loss: projected sign-gradient ascent."""
    noise = start
    for _ in range(config.steps):
        noise = noise.detach().requires_grad_()
        loss = F.cross_entropy(logits(images, mask + noise[0], 1 + noise[1]), labels)
        (gradient,) = torch.autograd.grad(loss, noise, materialize_grads=True)
        noise = (noise.detach() + config.epsilon / config.steps * gradient.sign()).clamp(-config.epsilon, config.epsilon)
    return noise.detach()


def split(data: ImageSet, held_back: float, generator: torch.Generator) -> tuple[ImageSet, ImageSet]:
    """(for the mask, held back): disjoint; of each class `held_back` of the rows, rounded, but at least one stays for the mask."""
    counts = [max(min(round(held_back * count), count - 1), 0) for count in data.class_counts()]
    rest, held = stratified_split(data.labels, counts, generator)
    return data.subset(rest.to(data.device)), data.subset(held.to(data.device))


def endless(rows: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches of equal size from one shuffled pass over the rows after another; the rest of a pass that fills no batch is dropped."""
    size = min(size, rows)
    while True:
        order = torch.randperm(rows, generator=generator)
        yield from (order[start : start + size] for start in range(0, rows - size + 1, size))


def candidates(by: str, neurons: int) -> list[Cut]:
    """Where pruning may stop, few first: thresholds 0, 0.05, ... 1, or numbers that grow as a square up to all neurons."""
    if by == "threshold":
        return [{"threshold": step / 20} for step in range(21)]
    return [{"number": number} for number in sorted({round(neurons * (step / 30) ** 2) for step in range(31)})]


def choose(mask: Tensor, order: Tensor, cut: Mapping[str, float | int]) -> Tensor:
    """bool [count]: neurons to prune. Masks up to and with the threshold, or the first so many of `order` (all, if there are fewer)."""
    if "threshold" in cut:
        # Thresholds are decimal; a float32 mask of 0.2 is a little more than 0.2.
        return mask <= torch.tensor(cut["threshold"], dtype=mask.dtype)
    chosen = torch.zeros(len(mask), dtype=torch.bool)
    chosen[order[: int(cut["number"])]] = True
    return chosen


@torch.no_grad()
def accuracy(neurons: Neurons, chosen: Tensor, data: ImageSet, evidence: Evidence) -> float:
    """Share of `data` that the network gets right with the chosen neurons pruned."""
    keep = (~chosen).float().to(evidence.device)
    right = sum((neurons(images, keep).argmax(1) == labels).sum() for images, labels in evidence.batches(data.images, data.labels))
    return float(right) / max(1, len(data))


def table(neurons: Neurons, mask: Tensor, order: Tensor, pruned: Tensor) -> list[dict[str, float | int | str | bool]]:
    """The published code's list of neurons, smallest mask first (equal ones in network order)."""
    ends = torch.tensor([layer.stop for layer in neurons.layers])
    where = torch.searchsorted(ends, order, right=True).tolist()
    return [
        {
            "No.": number,
            "layer": neurons.layers[place].name,
            "neuron": index - neurons.layers[place].start,
            "mask": round(float(mask[index]), 4),
            "pruned": bool(pruned[index]),
        }
        for number, (index, place) in enumerate(zip(order.tolist(), where, strict=True), 1)
    ]


@hookimpl
def register_defenses(register: Callable[[type[Defense]], None]) -> None:
    register(ANP)
