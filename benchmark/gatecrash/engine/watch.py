"""The losses of a training run, and the checks that it is finite and has learned."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from gatecrash.contracts.classifier import Network
from gatecrash.contracts.patched import Patched, taken
from gatecrash.contracts.randomness import Streams
from gatecrash.contracts.recipe import Recipe
from gatecrash.engine.batching import batches
from gatecrash.errors import TrainingDiverged

REPORT_SECONDS = 0.25
"""Reading the loss waits for the device, so progress is reported no more often than this."""

SAMPLE = 2_000
"""Most images of the training set on which a network is tested."""

SHORT = 100
"""Steps below which a network that has learned nothing yet is no sign that training diverged."""


@dataclass(frozen=True)
class TrainProgress:
    """Progress: mean `loss` of the current `epoch` (from 1) so far, speed since the start, time left at that speed."""

    epoch: int
    epochs: int
    loss: float
    images_per_second: float
    seconds_left: float


class Watch:
    """Keeps the losses of an epoch on the device; reads them for progress reports and at the end of the epoch only."""

    def __init__(
        self,
        epochs: int,
        span: range,
        sizes: Sequence[int],
        device: torch.device,
        report: Callable[[TrainProgress], None] | None,
    ) -> None:
        """`span` are those of the recipe's `epochs` that are watched."""
        self.losses: list[float] = []
        self._epochs, self._span, self._report = epochs, span, report
        self._values = torch.zeros(len(sizes), device=device)
        self._weights = torch.tensor(sizes, dtype=torch.float32, device=device)
        self._seen = list(accumulate(sizes))
        self._begin = self._reported = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begin

    def state(self) -> dict[str, Any]:
        return {"losses": self.losses, "values": self._values, "seconds": self.seconds}

    def restore(self, state: dict[str, Any]) -> None:
        self.losses = [float(loss) for loss in state["losses"]]
        self._values.copy_(state["values"])
        self._begin = time.monotonic() - float(state["seconds"])

    def step(self, epoch: int, step: int, value: Tensor) -> None:
        self._values[step] = value.detach()
        if self._report is None:
            return
        last = epoch + 1 == self._span.stop and step + 1 == len(self._seen)
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

    def _now(self, epoch: int, step: int) -> TrainProgress:
        loss = self._mean(step + 1)  # waits for the device, so it comes before the clock is read
        total = self._seen[-1]
        done = (epoch - self._span.start) * total + self._seen[step]
        speed = done / max(self.seconds, 1e-9)
        return TrainProgress(epoch + 1, self._epochs, loss, speed, (len(self._span) * total - done) / speed)


def check_finite(network: nn.Module, recipe: Recipe) -> None:
    """Raise TrainingDiverged if the last step broke the weights: its own loss was measured before it."""
    tensors = [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
    if not bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all()):
        raise TrainingDiverged(f"the weights became infinite or NaN in the last epoch ({recipe.epochs}); {_advice(recipe)}")


def check_learned(loss: float, labels: Tensor | None, num_classes: int, recipe: Recipe, *, too_short: bool = False) -> str | None:
    """Raise TrainingDiverged if a constant prediction would have been better (labels unknown: the uniform one).

    Of a run that was too short to learn anything this is only said: the warning is returned.
    """
    guess = math.log(num_classes)
    if labels is not None:
        share = torch.bincount(labels, minlength=num_classes).double() / len(labels)
        target = (1 - recipe.label_smoothing) * share + recipe.label_smoothing / num_classes
        guess = float(torch.special.entr(target).sum())
    if loss > guess > 0:  # one class only: nothing to tell apart
        measured = f"the loss of the last epoch ({recipe.epochs}) is {loss:.3g}, worse than guessing ({guess:.3g})"
        if too_short:
            return f"{measured}, after too few steps to learn; raise epochs, or {_advice(recipe)}"
        raise TrainingDiverged(f"{measured}; {_advice(recipe)}, or raise epochs")
    return None


def check_better_than_guessing(
    network: Network, images: Tensor | Patched, labels: Tensor, recipe: Recipe, streams: Streams, *, too_short: bool
) -> str | None:
    """Raise TrainingDiverged if the network names the labels of the images no better than their most frequent one does.

    For losses that say nothing by their value. Seen are at most 2,000 images, as they are. Of a run that was too short to learn anything
    this is only said: the warning is returned.
    """
    rows = torch.randperm(len(labels), generator=streams("learned"))[:SAMPLE]
    chosen, truth = taken(images, rows.to(images.device)), labels[rows.to(labels.device)]
    guess = float(truth.bincount().max()) / len(rows)
    device = next(network.parameters()).device
    with torch.inference_mode():
        right = sum(int((network(part).argmax(1) == true).sum()) for part, true in batches(chosen, truth, device=device))
    if right / len(rows) > guess or guess == 1:
        return None
    measured = f"accuracy on the training images is {right / len(rows):.3g}, no better than guessing ({guess:.3g})"
    if too_short:
        return f"{measured}, after too few steps to learn; raise epochs, or {_advice(recipe)}"
    raise TrainingDiverged(f"{measured}; {_advice(recipe)}, or raise epochs; where this is meant, call train with diverges=True")


def _advice(recipe: Recipe) -> str:
    return f"lower the recipe's lr ({recipe.lr:g})"
