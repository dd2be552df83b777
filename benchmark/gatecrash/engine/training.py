"""The training engine: one loop for victims, retrained and fine-tuned models.

The whole set lives on the device as uint8; every batch is one gather (crop and mirroring included, see `augmentation`), a forward and
backward pass and one fused optimiser step. Nothing in the loop waits for the device: losses stay there and are read at most four times a
second for the progress report, and once per epoch for the check that training is still finite. All random choices are drawn on the CPU,
epoch by epoch, so that every device sees the same images in the same order; on one CPU machine equal thread counts give equal weights to
the last bit.

The last, incomplete batch of an epoch is trained on like any other, but a single left-over image joins the batch before it: BatchNorm has
no variance over one image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from gatecrash.contracts.classifier import Network
from gatecrash.contracts.randomness import Streams
from gatecrash.contracts.recipe import Recipe
from gatecrash.contracts.train import Loss, OnBatch
from gatecrash.engine.checkpoint import INTERVAL, Checkpoint, Stateful, TorchGenerators, Weights, identity
from gatecrash.engine.feed import Feed, check_data
from gatecrash.engine.optimizer import Updates
from gatecrash.engine.precision import Precision, auto_precision
from gatecrash.engine.watch import SHORT, TrainProgress, Watch, check_finite, check_learned


@dataclass(frozen=True)
class History:
    """What a training run did: mean loss per epoch (in training mode, on augmented images), seconds, and how it was computed."""

    losses: tuple[float, ...]
    seconds: float
    images: int
    """Images passed through the network, all epochs together."""
    precision: str
    """"bfloat16" (autocast) or "float32"."""
    device: str
    warning: str | None = None
    """What the run's result should be read with: one of a few steps has not learned."""


@dataclass(frozen=True)
class Execution:
    """How a training is carried out, beside what it is."""

    report: Callable[[TrainProgress], None] | None = None
    """Told how far it is, at most four times a second."""
    precision: Precision | None = None
    """What the recipe's `auto` means; by default what this machine has measured."""
    checkpoint: Path | None = None
    """A file to go on from, and to write to every few minutes. A training with `on_batch` or `loss` has none."""
    fresh: bool = False
    """The network is untrained: that it has learned nothing after fewer than `watch.SHORT` steps is a warning, no error."""


def train(
    network: Network,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    *,
    streams: Streams,
    flip: bool,
    device: torch.device | str,
    on_batch: OnBatch | None = None,
    loss: Loss | None = None,
    execution: Execution = Execution(),
) -> History:
    """Train `network` in place on `images` (uint8 [N, C, H, W]) and `labels` (int64 [N]); it ends on `device`, in eval mode.

    `flip` says whether the data set allows mirroring; the recipe decides whether it is done. `on_batch` gets the images of a batch before
    augmentation, which is then applied to what it returns. `loss` replaces cross-entropy (and its label smoothing).
    `streams` gives the order ("order"), the crops and mirrorings ("augment") and dropout ("dropout"). Parameters that do not require a
    gradient stay as they are. Global state (random generators, grad mode) is left untouched.

    Raises ContractError for data that cannot be trained on or a broken `on_batch`; TrainingDiverged if the loss becomes NaN or infinite
    or, for cross-entropy, if the last epoch is worse than always predicting the labels' frequencies.
    """
    device = torch.device(device)
    check_data(network, images, labels)
    # The weights' format decides how convolutions run; batches may stay as they are.
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    feed = Feed(images.to(device), labels.to(device), recipe, recipe.flip and flip, streams, on_batch)
    steps = recipe.epochs * len(feed.sizes)
    updates = Updates(network, recipe, steps)
    loss_of = loss or _cross_entropy(recipe.label_smoothing)
    bfloat16 = recipe.precision == "auto" and (execution.precision or auto_precision(device)) == "bfloat16"
    watch = Watch(recipe.epochs, feed.sizes, device, execution.report)

    kept = None
    if execution.checkpoint is not None and on_batch is None and loss is None:
        facts = [recipe.model_dump(mode="json"), flip, bfloat16, str(device), torch.get_num_threads(), torch.__version__]
        started = identity(facts, network.state_dict(), images, labels)
        parts: dict[str, Stateful] = {"updates": updates, "feed": feed, "watch": watch}
        kept = Checkpoint(execution.checkpoint, started, {**parts, "network": Weights(network), "torch": TorchGenerators(device)})

    network.train()
    with _private_state(device, streams):
        first, done = kept.resume() if kept else (0, 0)
        for epoch in range(first, recipe.epochs):
            for step, (batch, targets, rows) in enumerate(feed.epoch(done), done):
                if not network.training:  # `on_batch` or `loss` has put the network into eval mode
                    network.train()
                with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                    value = loss_of(network, batch, targets, rows)
                updates.step(value)
                watch.step(epoch, step, value)
                if kept and kept.is_due():
                    kept.write(epoch, step + 1)
            watch.end_epoch(epoch, recipe)
            done = 0
        if kept and watch.seconds >= INTERVAL:  # its task may go on to other trainings
            kept.write(recipe.epochs, 0)
        updates.end()

    # The stored form of a network is contiguous: leave it as it will be loaded, so that both give the same logits.
    network.to(memory_format=torch.contiguous_format)
    network.zero_grad(set_to_none=True)
    network.eval()
    check_finite(network, recipe)
    warning = None
    if loss is None:
        known = None if on_batch is not None else labels
        warning = check_learned(watch.losses[-1], known, network.num_classes, recipe, too_short=execution.fresh and steps < SHORT)
    precision = "bfloat16" if bfloat16 else "float32"
    return History(tuple(watch.losses), watch.seconds, recipe.epochs * len(images), precision, str(device), warning)


def _cross_entropy(label_smoothing: float) -> Loss:
    def loss(network: Network, images: Tensor, labels: Tensor, _rows: Tensor) -> Tensor:
        return F.cross_entropy(network(images).float(), labels, label_smoothing=label_smoothing)

    return loss


@contextmanager
def _private_state(device: torch.device, streams: Streams) -> Iterator[None]:
    """Grad mode on, torch's generators seeded from the stream "dropout", cuDNN deterministic; all of it restored afterwards."""
    cuda = device.type == "cuda"
    deterministic = torch.backends.cudnn.deterministic
    with torch.random.fork_rng([device] if cuda else []), torch.enable_grad():
        torch.default_generator.manual_seed(streams.seed("dropout"))
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(streams.seed("dropout"))
        torch.backends.cudnn.deterministic = True
        try:
            yield
        finally:
            torch.backends.cudnn.deterministic = deterministic
