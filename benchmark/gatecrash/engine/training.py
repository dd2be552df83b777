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
from gatecrash.contracts.patched import Patched, resident
from gatecrash.contracts.randomness import Streams
from gatecrash.contracts.recipe import Recipe
from gatecrash.contracts.train import Loss, StepFunction, TrainState
from gatecrash.engine.checkpoint import INTERVAL, Checkpoint, Stateful, TorchGenerators, Weights, identity
from gatecrash.engine.compiling import compiled
from gatecrash.engine.feed import PLAIN, Batching, Feed, check_data
from gatecrash.engine.optimizer import Updates, descend
from gatecrash.engine.parts import check_state, epochs_of, hand_over, take_over
from gatecrash.engine.precision import Precision, auto_precision
from gatecrash.engine.watch import SHORT, TrainProgress, Watch, check_better_than_guessing, check_finite, check_learned
from gatecrash.errors import ContractError
from gatecrash.process.mapped import read_at_random


@dataclass(frozen=True)
class History:
    """What a training run did: mean loss per epoch (in training mode, on augmented images), seconds, and how it was computed."""

    losses: tuple[float, ...]
    seconds: float
    images: int
    """Images passed through the network, all epochs together (with batches by Poisson sampling: on the average)."""
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
    """A file to go on from, and to write to every few minutes. Only a training without hooks, in one part, has one."""
    fresh: bool = False
    """The network is untrained: that it has learned nothing after fewer than `watch.SHORT` steps is a warning, no error."""


@dataclass(frozen=True)
class Method:
    """What a plugin changes about a training, beside the recipe: the arguments of `contracts.train.Train` of these names."""

    batching: Batching = PLAIN
    loss: Loss | None = None
    step: StepFunction | None = None
    part: tuple[float, float] = (0.0, 1.0)
    resume: TrainState | None = None
    diverges: bool = False

    def __post_init__(self) -> None:
        if self.batching.views > 1 and self.loss is None:
            raise ContractError(f"views={self.batching.views} gives images [V, B, C, H, W], which needs a loss=")

    @property
    def plain(self) -> bool:
        """Whether all that changes during a training belongs to the engine, so that a checkpoint can hold it."""
        hooks = self.batching.on_batch is None and self.loss is None and self.step is None
        return hooks and self.part == (0.0, 1.0) and self.resume is None


def train(
    network: Network,
    images: Tensor | Patched,
    labels: Tensor,
    recipe: Recipe,
    *,
    streams: Streams,
    flip: bool,
    device: torch.device | str,
    method: Method = Method(),
    execution: Execution = Execution(),
) -> History:
    """Train `network` in place on `images` (uint8 [N, C, H, W]) and `labels` (int64 [N]); it ends on `device`, in eval mode.

    `flip` says whether the data set allows mirroring; the recipe decides whether it is done.
    `streams` gives the order ("order"), crops, mirrorings and rotations ("augment") and dropout ("dropout"). Parameters that do not require
    a gradient stay as they are. Global state (random generators, grad mode) is left untouched.

    Raises what `contracts.train.Train` does.
    """
    device = torch.device(device)
    check_data(network, images, labels)
    span, state = epochs_of(method.part, recipe), method.resume or TrainState()
    check_state(state, network, recipe, span)
    # The weights' format decides how convolutions run; batches may stay as they are.
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    feed = Feed(resident(images, device), labels.to(device), recipe, recipe.flip and flip, streams, method.batching)
    steps = recipe.epochs * len(feed.sizes)
    updates = Updates(network, recipe, steps)
    bfloat16 = recipe.precision == "auto" and (execution.precision or auto_precision(device)) == "bfloat16"
    watch = Watch(recipe.epochs, span, feed.sizes, device, execution.report)
    parts: dict[str, Stateful] = {"updates": updates, "feed": feed, "torch": TorchGenerators(device)}

    kept = None
    if execution.checkpoint is not None and method.plain:
        facts = [recipe.model_dump(mode="json"), flip, bfloat16, str(device), torch.get_num_threads(), torch.__version__]
        started = identity([*facts, method.batching.batches], network.state_dict(), images, labels)
        kept = Checkpoint(execution.checkpoint, started, {**parts, "watch": watch, "network": Weights(network)})

    def one_epoch(epoch: int, done: int) -> None:
        for step, batch in enumerate(feed.epoch(done), done):
            if not network.training:  # a hook has put the network into eval mode
                network.train()
            watch.step(epoch, step, _step(network, updates, method, batch, recipe, bfloat16))
            if kept and kept.is_due():
                kept.write(epoch, step + 1)
        watch.end_epoch(epoch, recipe)

    network.train()
    base = images.base if isinstance(images, Patched) else images
    with compiled(network, base, recipe, bfloat16), _private_state(device, streams), read_at_random(base):
        take_over(state, parts)
        updates.move_to(span.start * len(feed.sizes))
        first, done = kept.resume() if kept else (span.start, 0)
        for epoch in range(first, span.stop):
            one_epoch(epoch, done if epoch == first else 0)
        if kept and watch.seconds >= INTERVAL:  # its task may go on to other trainings
            kept.write(recipe.epochs, 0)
        hand_over(state, network, recipe, span, parts)
        if span.stop == recipe.epochs:
            updates.end()

    # The stored form of a network is contiguous: leave it as it will be loaded, so that both give the same logits.
    network.to(memory_format=torch.contiguous_format)
    network.zero_grad(set_to_none=True)
    network.eval()
    check_finite(network, recipe)
    too_short = span.stop < recipe.epochs or (execution.fresh and steps < SHORT)
    warning: str | None
    if not span:
        warning = f"part={method.part} of {recipe.epochs} epochs is none, so that nothing was trained; raise epochs"
    else:
        warning = _warning(network, images, labels, recipe, streams, method, watch.losses[-1], too_short=too_short)
    precision = "bfloat16" if bfloat16 else "float32"
    return History(tuple(watch.losses), watch.seconds, len(span) * len(images), precision, str(device), warning)


def _warning(
    network: Network,
    images: Tensor | Patched,
    labels: Tensor,
    recipe: Recipe,
    streams: Streams,
    method: Method,
    last_loss: float,
    *,
    too_short: bool,
) -> str | None:
    """What is wrong with a network that learned nothing, where its training was `too_short` to judge it; else that is an error."""
    if method.diverges:
        return None
    if method.loss is not None:
        return check_better_than_guessing(network, images, labels, recipe, streams, too_short=too_short)
    known = None if method.batching.on_batch is not None else labels
    return check_learned(last_loss, known, network.num_classes, recipe, too_short=too_short)


def _step(
    network: Network, updates: Updates, method: Method, batch: tuple[Tensor, Tensor, Tensor], recipe: Recipe, bfloat16: bool
) -> Tensor:
    """One step on a batch; gives its loss."""
    images, labels, rows = batch
    own = method.step

    def loss() -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
            if method.loss is not None:
                return method.loss(network, images, labels, rows)
            return F.cross_entropy(network(images).float(), labels, label_smoothing=recipe.label_smoothing)

    if own is not None:
        return updates.step(loss, lambda optimizer, closure: own(network, optimizer, closure, images, labels, rows))
    if not len(rows):
        return updates.step(loss, lambda _optimizer, _closure: torch.zeros((), device=images.device))
    return updates.step(loss, descend)


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
