"""The `Train` of attacks and defenses: the engine with a run's recipe, streams and device set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Literal

import torch

from gatecrash.contracts.classifier import Network
from gatecrash.contracts.data import ImageSet, Poisoned, patched
from gatecrash.contracts.randomness import Streams
from gatecrash.contracts.recipe import Recipe
from gatecrash.contracts.train import Loss, NewModel, OnBatch, StepFunction, Train, TrainState
from gatecrash.engine.feed import Batching
from gatecrash.engine.precision import Precision
from gatecrash.engine.training import Execution, History, Method, train
from gatecrash.errors import ContractError

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

    def autocast(self) -> torch.autocast:
        """The arithmetic of a training with this recipe, for a pass outside of one."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "auto" and self.precision == "bfloat16")


def new_models(make: Callable[..., Network], streams: Streams) -> NewModel:
    """The factory of networks as attacks and defenses call it; `make(seed, norm=...)` builds one. The first has the streams' own seed."""
    unnamed = count()

    def new_model(name: str | None = None, *, norm: Literal["group"] | None = None) -> Network:
        seed = _of_call(streams, "model", name, unnamed).seed("init", 63)
        return make(seed) if norm is None else make(seed, norm=norm)

    return new_model


def trainer(new_model: Callable[[], Network], streams: Streams, setup: TrainingSetup) -> Train:
    """The engine as attacks and defenses call it; every training is added to `setup.histories`. The first has the streams themselves."""
    unnamed = count()

    def fit(
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
        method = Method(Batching(on_batch, when, batches, views), loss, step, part, resume, diverges)
        fresh = network is None
        begun = resume is not None and resume.network is not None
        if resume is not None:
            name = _name_in(resume, name)
            network = resume.network if network is None else network
            resume._fresh = fresh = resume._fresh if begun else fresh
        history = train(
            model := new_model() if network is None else network,
            patched(data) if isinstance(data, Poisoned) else data.images,
            data.labels,
            setup.recipe if recipe is None else recipe.augmented_as(setup.recipe),
            streams=streams if begun else _of_call(streams, "train", name, unnamed),
            flip=setup.flip,
            device=setup.device,
            method=method,
            execution=Execution(
                report=lambda progress: setup.report(asdict(progress)),
                precision=setup.precision,
                checkpoint=setup.checkpoints / f"{len(setup.histories)}.pt" if setup.checkpoints else None,
                fresh=fresh,
            ),
        )
        setup.histories.append(history)
        return model

    return fit


def _of_call(streams: Streams, what: str, name: str | None, unnamed: Iterator[int]) -> Streams:
    """The streams of one call: by its name, or by its number among those without; the first of these has the streams as they are."""
    which = next(unnamed) if name is None else name
    return streams.within(what, which) if which else streams


def _name_in(state: TrainState, name: str | None) -> str | None:
    """The name of the training that a state belongs to; ContractError where a later part has another one."""
    if state.network is None:
        state._name = name
    elif name not in (None, state._name):
        raise ContractError(f"resume= holds the training {state._name!r}, not {name!r}; leave name= out")
    return state._name
