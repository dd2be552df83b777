"""Trainings in several parts: which epochs a part runs, and what it takes over from the one before."""

from __future__ import annotations

from collections.abc import Mapping

from gatecrash.contracts.classifier import Network
from gatecrash.contracts.recipe import Recipe
from gatecrash.contracts.train import TrainState
from gatecrash.engine.checkpoint import Stateful
from gatecrash.errors import ContractError


def epochs_of(part: tuple[float, float], recipe: Recipe) -> range:
    """The epochs of the recipe that this share of it stands for: none where it is less than half an epoch."""
    start, end = part
    if not 0 <= start < end <= 1:
        raise ContractError(f"part={part} is no share of a training; give (start, end) with 0 <= start < end <= 1")
    return range(round(start * recipe.epochs), round(end * recipe.epochs))


def check_state(state: TrainState, network: Network, recipe: Recipe, span: range) -> None:
    """Raise ContractError if a begun training cannot go on with these."""
    if state.network is None:
        return
    if network is not state.network:
        raise ContractError("resume= holds the training of another network; leave network= out, or begin with an empty TrainState()")
    if recipe != state._recipe:
        raise ContractError("resume= holds a training by another recipe; give the same one, or begin with an empty TrainState()")
    if span.start != state.epoch:
        raise ContractError(f"part= begins at epoch {span.start}, but what resume= holds stopped at epoch {state.epoch}; go on from there")


def take_over(state: TrainState, parts: Mapping[str, Stateful]) -> None:
    """Put the parts of a training where the state has them; nothing where it is empty."""
    for name, part in parts.items() if state.network is not None else ():
        part.restore(state._parts[name])


def hand_over(state: TrainState, network: Network, recipe: Recipe, span: range, parts: Mapping[str, Stateful]) -> None:
    """Leave in the state all that the next part needs."""
    state.network, state._recipe, state.epoch = network, recipe, span.stop
    state._parts = {name: part.state() for name, part in parts.items()}
