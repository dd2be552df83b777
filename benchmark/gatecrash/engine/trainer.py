"""The `Train` of attacks and defenses: the engine with a run's recipe, streams and device set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from gatecrash.contracts.classifier import Network
from gatecrash.contracts.data import ImageSet, Poisoned
from gatecrash.contracts.randomness import Streams
from gatecrash.contracts.recipe import Recipe
from gatecrash.contracts.train import Loss, OnBatch, Train
from gatecrash.engine.precision import Precision
from gatecrash.engine.training import Execution, History, train

ReportProgress = Callable[[Mapping[str, Any]], None]
"""Takes the progress of a task, for the live view: epoch, epochs, loss, images_per_second, seconds_left, or a note."""


def no_report(_progress: Mapping[str, Any]) -> None:
    """A `ReportProgress` that ignores what it is told."""


@dataclass(frozen=True)
class TrainingSetup:
    """What is settled before an attack or a defense trains anything."""

    dataset: str
    """The dataset's name: with `seed`, it chooses the initialisation and the batches of a victim."""
    seed: int
    recipe: Recipe
    flip: bool
    """Whether the dataset allows mirroring."""
    device: torch.device
    precision: Precision
    """What `precision: auto` of a recipe means here."""
    checkpoints: Path | None = None
    """The folder in which the task's trainings, numbered from 0, have their checkpoints while they last."""
    report: ReportProgress = no_report
    histories: list[History] = field(default_factory=list)
    """Of all trainings so far, in order."""


def trainer(new_model: Callable[[], Network], streams: Streams, setup: TrainingSetup) -> Train:
    """The engine as attacks and defenses call it; every training is added to `setup.histories`."""

    def fit(
        data: Poisoned | ImageSet,
        *,
        network: Network | None = None,
        recipe: Recipe | None = None,
        on_batch: OnBatch | None = None,
        loss: Loss | None = None,
    ) -> Network:
        model = new_model() if network is None else network
        history = train(
            model,
            data.images,
            data.labels,
            setup.recipe if recipe is None else recipe,
            streams=streams,
            flip=setup.flip,
            device=setup.device,
            on_batch=on_batch,
            loss=loss,
            execution=Execution(
                report=lambda progress: setup.report(asdict(progress)),
                precision=setup.precision,
                checkpoint=setup.checkpoints / f"{len(setup.histories)}.pt" if setup.checkpoints else None,
                fresh=network is None,
            ),
        )
        setup.histories.append(history)
        return model

    return fit
