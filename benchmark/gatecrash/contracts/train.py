"""The training engine as attacks and defenses call it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from gatecrash.contracts.classifier import Network
from gatecrash.contracts.data import ImageSet, Poisoned
from gatecrash.contracts.recipe import Recipe

OnBatch = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(images, labels int64 [B], rows int64 [B]) -> images and labels to train on, in the same shapes.

Before augmentation (`when="before"`) images are uint8 [B, C, H, W] and stay uint8. After it (`when="after"`) they are what the network
would see, uint8 [B, C, H, W] or, with several views, [V, B, C, H, W]; what is returned is uint8 or float in [0, 1], through which gradients
flow. `rows` are the rows of the data that `train` was given. An attack that triggers a tenth of every batch while training:

    def on_batch(images, labels, rows):
        chosen = rows % 10 == 0
        return torch.where(chosen.view(-1, 1, 1, 1), trigger(images), images), labels.masked_fill(chosen, target)
"""


Loss = Callable[[Network, Tensor, Tensor, Tensor], Tensor]
"""(network, images, labels int64 [B], rows int64 [B]) -> scalar loss, in place of cross-entropy and its label smoothing.

Images come after augmentation: uint8 [B, C, H, W], with `views=V` [V, B, C, H, W], or what an `on_batch` after augmentation made of them.
It runs under the run's autocast: logits may be bfloat16, so turn them into float32 before a loss is computed. Local gradient ascent (ABL),
which keeps losses from falling below 0.5:

    def loss(network, images, labels, rows):
        value = F.cross_entropy(network(images).float(), labels)
        return (value - 0.5).sign() * value
"""


StepFunction = Callable[[Network, torch.optim.Optimizer, Callable[[], Tensor], Tensor, Tensor, Tensor], Tensor]
"""(network, optimizer, closure, images, labels, rows) -> the loss to report: what one step does, in place of a backward pass and an update.

`closure()` computes the loss of the batch, sets the gradients of the network to those of this loss alone, and returns it; it may be called
several times. `optimizer` is the recipe's, with the rate of this step. The default is `value = closure(); optimizer.step(); return value`.
Weights that are kept within bounds:

    def step(network, optimizer, closure, images, labels, rows):
        value = closure()
        optimizer.step()
        with torch.no_grad():
            network.head.weight.clamp_(-1, 1)
        return value
"""


@dataclass
class TrainState:
    """Where a training stopped, for the call of `train` that goes on from there: optimiser and momentum, learning rate, Lookahead, and the
    random streams of batches, augmentation and dropout.

    Make an empty one and hand it to calls that follow each other; each call leaves it at its end. A first fifth, then the rest, with
    something in between:

        state = TrainState()
        network = ctx.train(data, part=(0, 0.2), resume=state)
        ctx.train(changed(data, network), part=(0.2, 1), resume=state)
    """

    network: Network | None = None
    """What is being trained, once a call has begun it; later calls need not name it."""
    epoch: int = 0
    """Epochs of the recipe that are done."""
    _name: str | None = None
    _fresh: bool = False
    _recipe: Recipe | None = None
    _parts: dict[str, Any] = field(default_factory=dict, repr=False)


class NewModel(Protocol):
    """Makes freshly initialised networks of the grid's model, on the run's device.

    Calls without a name are numbered in their order, calls of `train` without `network` among them: each begins from other weights. A name
    stands for one initialisation: equal names give equal weights, and a call with a name moves no number.
    """

    def __call__(self, name: str | None = None, *, norm: Literal["group"] | None = None) -> Network:
        """A fresh network; `norm="group"` with GroupNorm in place of BatchNorm, so that no image depends on the others of its batch."""


class Train(Protocol):
    """The training engine, with the recipe, device and random streams of this run already set.

    Every call has random streams of its own (batch order, augmentation, dropout): calls without a name are numbered in their order; a name
    stands for one set of streams, and a call with a name moves no number.
    """

    def __call__(
        self,
        data: Poisoned | ImageSet,
        *,
        network: Network | None = None,
        recipe: Recipe | None = None,
        name: str | None = None,
        part: tuple[float, float] = (0.0, 1.0),
        resume: TrainState | None = None,
        batches: Literal["shuffled", "poisson"] = "shuffled",
        views: int = 1,
        on_batch: OnBatch | None = None,
        when: Literal["before", "after"] = "before",
        loss: Loss | None = None,
        step: StepFunction | None = None,
        diverges: bool = False,
    ) -> Network:
        """Train `network` (in place; by default a new model) on `data` and return it in eval mode.

        - `recipe`: by default the grid's. Crop, flip and rotation that it does not state are the grid's: those the victim was trained with.
        - `part`: the share of the recipe's epochs (rounded to whole ones, perhaps none) and of its schedule that this call runs.
        - `resume`: go on where the call before left this state, and leave it at the end of this call; `part` must go on from there. All
          parts of a training give its weights, to the last bit.
        - `batches="poisson"`: each row joins each batch with probability batch size / rows, so that batches differ in size. An empty one is
          passed to `step` alone; without `step` nothing happens in it.
        - `views`: this many augmentations of the same rows, as images [V, B, C, H, W]; needs `loss`.
        - `on_batch` changes batches, before or after augmentation as `when` says; `loss` replaces cross-entropy; `step` what follows it.
        - `diverges=True`: the result may be worse than guessing, as where a loss is raised on purpose.

        Raises ContractError for data, hooks or states that do not fit; TrainingDiverged if loss or weights become infinite or NaN, and,
        unless `diverges`, if a finished training is worse than guessing: by its loss where this is cross-entropy, by its accuracy on
        (at most 2,000 of) the images it was given where `loss` replaced that.
        """
