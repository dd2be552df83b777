"""The `Train` of attacks and defenses: the engine with a run's recipe, streams and device set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch

from gatecrash.contracts.classifier import Network
from gatecrash.contracts.randomness import Streams
from gatecrash.contracts.recipe import Recipe
from gatecrash.engine.training import History, train

ReportProgress = Callable[[Mapping[str, Any]], None]
"""Takes the progress of a task, for the live view: epoch, epochs, loss, images_per_second, seconds_left, or a note."""


def trainer(
    new_model: Callable[[], Network],
    recipe: Recipe,
    streams: Streams,
    flip: bool,
    device: torch.device,
    report: ReportProgress,
    histories: list[History],
) -> Callable[..., Network]:
    """The `Train` of a context: the engine with this run's recipe, streams and device set."""

    def fit(data: Any, *, network: Network | None = None, recipe: Recipe = recipe, on_batch: Any = None, loss: Any = None) -> Network:
        model = new_model() if network is None else network
        history = train(
            model,
            data.images,
            data.labels,
            recipe,
            streams=streams,
            flip=flip,
            device=device,
            on_batch=on_batch,
            loss=loss,
            report=lambda progress: report(asdict(progress)),
        )
        histories.append(history)
        return model

    return fit
