"""The training engine: one loop for victims, retrained and fine-tuned models.

The whole set lives on the device as uint8; every batch is one gather (crop and mirroring included, see `augment`), a forward and
backward pass and one fused optimiser step. Nothing in the loop waits for the device: losses stay there and are read at most four times a
second for the progress report, and once per epoch for the check that training is still finite. All random choices are drawn on the CPU,
epoch by epoch, so that every device sees the same images in the same order; on one CPU machine equal thread counts give equal weights to
the last bit.

The last, incomplete batch of an epoch is trained on like any other, but a single left-over image joins the batch before it: BatchNorm has
no variance over one image.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gatecrash import augment
from gatecrash.attack import Loss, OnBatch
from gatecrash.classifier import Network
from gatecrash.errors import ContractError, TrainingDiverged, UserError
from gatecrash.lookahead import Lookahead
from gatecrash.randomness import Streams
from gatecrash.recipe import Recipe

REPORT_SECONDS = 0.25
"""Reading the loss waits for the device, so progress is reported no more often than this."""


@dataclass(frozen=True)
class TrainReport:
    """Progress: mean `loss` of the current `epoch` (from 1) so far, speed since the start, time left at that speed."""

    epoch: int
    epochs: int
    loss: float
    images_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class History:
    """What a training run did: mean loss per epoch (of the training mode, augmented images), cost, and how it was computed."""

    losses: tuple[float, ...]
    seconds: float
    images: int
    """Images passed through the network, all epochs together."""
    precision: str
    """"bfloat16" (autocast) or "float32"."""
    device: str

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds


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
    report: Callable[[TrainReport], None] | None = None,
) -> History:
    """Train `network` in place on `images` (uint8 [N, C, H, W]) and `labels` (int64 [N]); it ends on `device`, in eval mode.

    `flip` says whether the data set allows mirroring; the recipe decides whether it is done. `on_batch` sees the images of a batch before
    augmentation, which treats whatever it returns like every other image. `loss` replaces cross-entropy (and its label smoothing).
    `streams` gives the order ("order"), the crops and mirrorings ("augment") and dropout ("dropout"). Parameters that do not require a
    gradient stay as they are. Global state (random generators, grad mode) is left untouched.

    Raises ContractError for data that cannot be trained on or a broken `on_batch`; TrainingDiverged if the loss becomes NaN or infinite
    or, for cross-entropy, if the last epoch is worse than always predicting the labels' frequencies.
    """
    device = torch.device(device)
    _check_data(network, images, labels)
    # The weights' format decides how convolutions run; batches may stay as they are.
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(network, recipe)
    feed = _Feed(images.to(device), labels.to(device), recipe, recipe.flip and flip, streams, on_batch)
    steps = recipe.epochs * len(feed.sizes)
    rates = iter(learning_rates(recipe, steps))
    slow = Lookahead(network, steps) if recipe.lookahead else None
    bfloat16 = recipe.precision == "auto" and supports_bfloat16(device)
    watch = _Watch(recipe.epochs, feed.sizes, device, report)

    network.train()
    with _private_state(device, streams):
        for epoch in range(recipe.epochs):
            for step, (batch, targets, rows) in enumerate(feed.epoch()):
                if not network.training:  # `on_batch` or `loss` has looked at the network in eval mode
                    network.train()
                with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                    if loss is None:
                        value = F.cross_entropy(network(batch).float(), targets, label_smoothing=recipe.label_smoothing)
                    else:
                        value = loss(network, batch, targets, rows)
                optimizer.zero_grad(set_to_none=True)
                value.backward()  # type: ignore[no-untyped-call]
                rate = next(rates)
                for group in optimizer.param_groups:
                    group["lr"] = rate * group["scale"]
                optimizer.step()
                if slow is not None:
                    slow.step()
                watch.step(epoch, step, value)
            watch.end_epoch(epoch, recipe)
        if slow is not None:
            slow.end()

    # The stored form of a network is contiguous: leave it as it will be loaded, so that both give the same logits.
    network.to(memory_format=torch.contiguous_format)
    network.zero_grad(set_to_none=True)
    network.eval()
    _check_finite(network, recipe)
    if loss is None:
        _check_learned(watch.losses[-1], None if on_batch is not None else labels, network.num_classes, recipe)
    return History(tuple(watch.losses), watch.seconds, recipe.epochs * len(images), "bfloat16" if bfloat16 else "float32", str(device))


def batch_sizes(count: int, batch_size: int) -> list[int]:
    """Sizes of the batches of one epoch: all images, the last batch incomplete, a single left-over image in the batch before."""
    sizes = [min(batch_size, count - start) for start in range(0, count, batch_size)]
    if len(sizes) > 1 and sizes[-1] == 1 < batch_size:
        sizes[-2:] = [batch_size + 1]
    return sizes


def learning_rates(recipe: Recipe, steps: int) -> list[float]:
    """The learning rate of every step.

    cosine: `lr (1 + cos(pi t / steps)) / 2` at step t from 0 (Loshchilov and Hutter 2017, without restarts). one-cycle: a straight line up
    over the share `warmup` and another down to zero (the "slanted triangle" of Howard and Ruder 2018, section 3.2); no step has rate zero.
    """
    if recipe.schedule == "constant":
        return [recipe.lr] * steps
    if recipe.schedule == "cosine":
        return [recipe.lr * (1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]
    end = steps + 1
    corners = [0.0, recipe.warmup * end, end]
    return [float(rate) for rate in np.interp(np.arange(1, end), corners, [0.0, recipe.lr, 0.0])]


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over the trainable parameters, fused where torch has a fused kernel.

    Raises ContractError if nothing can be trained.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        # Biases and the scales and shifts of normalisation layers are the parameters with one dimension.
        decay = recipe.weight_decay if recipe.decay_norms or parameter.ndim > 1 else 0.0
        scale = recipe.bias_lr if name.rpartition(".")[2] == "bias" else 1.0
        groups.setdefault((scale, decay / scale), []).append(parameter)
    if not groups:
        raise ContractError("no parameter of the network requires a gradient: there is nothing to train")
    options = [
        {"params": parameters, "lr": recipe.lr * scale, "scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in groups.items()
    ]
    fused = next(network.parameters()).device.type in {"cpu", "cuda"}
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(options, lr=recipe.lr, betas=(recipe.momentum, 0.999), fused=fused)
    nesterov = recipe.nesterov and recipe.momentum > 0
    return torch.optim.SGD(options, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov, fused=fused)


def choose_device(requested: str | None = None) -> torch.device:
    """The device to work on: the requested one, else a CUDA device where there is one, else the CPU.

    Raises UserError if the requested device does not exist here.
    """
    if requested is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(requested)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(f"device {requested!r} cannot be used here; leave it out to use {choose_device()}") from None
    return device


def supports_bfloat16(device: torch.device | str) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware; emulation is many times slower than float32."""
    device = torch.device(device)
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def _check_data(network: Network, images: Tensor, labels: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ContractError(f"training images must be uint8 [N, C, H, W]; got {images.dtype} {list(images.shape)}")
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise ContractError(f"training labels must be int64 [{len(images)}]; got {labels.dtype} {list(labels.shape)}")
    if not len(images):
        raise ContractError("there is no image to train on")
    if not 0 <= int(labels.min()) <= int(labels.max()) < network.num_classes:
        raise ContractError(f"training labels must lie in [0, {network.num_classes}); got {int(labels.min())} to {int(labels.max())}")


class _Feed:
    """The set on the device, given out in augmented batches: images uint8 [B, C, H, W], labels and rows int64 [B]."""

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        recipe: Recipe,
        flip: bool,
        streams: Streams,
        on_batch: OnBatch | None,
    ) -> None:
        self.sizes = batch_sizes(len(images), recipe.batch_size)
        self._images, self._labels, self._crop, self._flip, self._on_batch = images, labels, recipe.crop, flip, on_batch
        self._order, self._augment = streams("order"), streams("augment")
        # Where batches change before they are augmented, there is nothing to pad in advance.
        self._windows = augment.windows(images, recipe.crop) if on_batch is None else None

    def epoch(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        device = self._images.device
        order = torch.randperm(len(self._images), generator=self._order).to(device)
        draws = augment.draw(self.sizes, self._crop, self._flip, self._augment, device)
        batches = zip(*(torch.split(part, self.sizes) for part in (order, draws.tops, draws.lefts)), draws.mirrored, strict=True)
        for rows, tops, lefts, mirrored in batches:
            windows, picks, labels = self._windows, rows, self._labels[rows]
            if windows is None:
                images, labels = self._changed(rows, labels)
                windows, picks = augment.windows(images, self._crop), torch.arange(len(rows), device=device)
            yield augment.augmented(windows, picks, tops, lefts, mirrored), labels, rows

    def _changed(self, rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """What `on_batch` makes of a batch, or ContractError."""
        assert self._on_batch is not None
        images = self._images[rows]
        new_images, new_labels = self._on_batch(images, labels, rows)
        for what, new, old in (("images", new_images, images), ("labels", new_labels, labels)):
            if new.dtype != old.dtype or new.shape != old.shape:
                raise ContractError(f"on_batch must return {what} as {old.dtype} {list(old.shape)}; got {new.dtype} {list(new.shape)}")
        return new_images, new_labels


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


class _Watch:
    """Keeps the losses of an epoch on the device, and reads them as rarely as it can."""

    def __init__(
        self,
        epochs: int,
        sizes: Sequence[int],
        device: torch.device,
        report: Callable[[TrainReport], None] | None,
    ) -> None:
        self.losses: list[float] = []
        self._epochs, self._report = epochs, report
        self._values = torch.zeros(len(sizes), device=device)
        self._weights = torch.tensor(sizes, dtype=torch.float32, device=device)
        self._seen = list(accumulate(sizes))
        self._begin = self._reported = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begin

    def step(self, epoch: int, step: int, value: Tensor) -> None:
        self._values[step] = value.detach()
        if self._report is None:
            return
        last = epoch + 1 == self._epochs and step + 1 == len(self._seen)
        if last or time.monotonic() - self._reported >= REPORT_SECONDS:
            self._report(self._now(epoch, step))
            self._reported = time.monotonic()

    def end_epoch(self, epoch: int, recipe: Recipe) -> None:
        mean = self._mean(len(self._seen))
        if not math.isfinite(mean):
            raise TrainingDiverged(f"the loss became {mean} in epoch {epoch + 1} of {self._epochs}; {_advice(recipe)}")
        self.losses.append(mean)

    def _mean(self, steps: int) -> float:
        weights = self._weights[:steps]
        return float((self._values[:steps] * (weights / weights.sum())).sum())

    def _now(self, epoch: int, step: int) -> TrainReport:
        loss = self._mean(step + 1)  # waits for the device, so it comes before the clock is read
        total = self._seen[-1]
        done = epoch * total + self._seen[step]
        speed = done / max(self.seconds, 1e-9)
        return TrainReport(epoch + 1, self._epochs, loss, speed, (self._epochs * total - done) / speed)


def _check_finite(network: nn.Module, recipe: Recipe) -> None:
    """Raise TrainingDiverged if the last step broke the weights: its own loss was measured before it."""
    tensors = [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
    if not bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all()):
        raise TrainingDiverged(f"the weights became infinite or NaN in the last epoch ({recipe.epochs}); {_advice(recipe)}")


def _check_learned(loss: float, labels: Tensor | None, num_classes: int, recipe: Recipe) -> None:
    """Raise TrainingDiverged if a constant prediction would have been better (labels unknown: the uniform one)."""
    guess = math.log(num_classes)
    if labels is not None:
        share = torch.bincount(labels, minlength=num_classes).double() / len(labels)
        target = (1 - recipe.label_smoothing) * share + recipe.label_smoothing / num_classes
        guess = float(torch.special.entr(target).sum())
    if loss > guess > 0:  # one class only: nothing to tell apart
        measured = f"the loss of the last epoch ({recipe.epochs}) is {loss:.3g}, worse than guessing ({guess:.3g})"
        raise TrainingDiverged(f"{measured}; {_advice(recipe)}, or raise epochs")


def _advice(recipe: Recipe) -> str:
    return f"lower the recipe's lr ({recipe.lr:g})"
