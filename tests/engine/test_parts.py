"""A training in parts is the training in one piece."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gatecrash import ContractError, Network, TrainState
from gatecrash.engine.parts import epochs_of
from support.small_training import network, recipe, run, weights


def in_parts(bounds: list[float], net: Network, options: Any) -> list[float]:
    """Train in the parts between these bounds; gives all losses."""
    state, losses = TrainState(), []
    for start, end in zip([0.0, *bounds], [*bounds, 1.0], strict=True):
        losses += run(net, options, flip=True, part=(start, end), resume=state).losses
    return losses


@settings(max_examples=12, deadline=None)
@given(
    cuts=st.sets(st.sampled_from([0.1, 0.2, 0.5, 0.8]), max_size=3),
    options=st.sampled_from(
        [
            {"schedule": "cosine", "crop": 1, "flip": True, "rotation": 10},
            {"schedule": "one-cycle", "lookahead": True, "nesterov": True},
            {"optimizer": "adamw", "lr": 0.01, "schedule": "cosine"},
        ]
    ),
)
def test_parts_that_share_a_state_give_one_whole_training_to_the_last_bit(cuts: set[float], options: dict[str, Any]) -> None:
    whole, parts = network(dropout=0.3), network(dropout=0.3)
    settings_of_run = recipe(epochs=10, batch_size=24, **options)
    history = run(whole, settings_of_run, flip=True)
    losses = in_parts(sorted(cuts), parts, settings_of_run)
    assert torch.equal(weights(parts), weights(whole))
    assert losses == list(history.losses)


def test_a_part_keeps_its_place_in_the_schedule_for_other_data() -> None:
    """Half as many images make half as many steps; the learning rate still falls to zero at the end."""
    rates: list[float] = []

    def step(net: Any, optimizer: torch.optim.Optimizer, closure: Any, *_batch: Any) -> torch.Tensor:
        rates.append(optimizer.param_groups[0]["lr"])
        value: torch.Tensor = closure()
        optimizer.step()
        return value

    state, net, options = TrainState(), network(), recipe(epochs=2, schedule="cosine", lr=1e-3)
    run(net, options, part=(0, 0.5), resume=state, step=step)
    run(net, options, part=(0.5, 1), resume=state, step=step, count=32, diverges=True)
    assert len(rates) == 4 + 2
    assert rates[4] == pytest.approx(1e-3 / 2)  # half of the run is done
    assert rates[5] == pytest.approx(1e-3 * (1 - 0.5**0.5) / 2)  # and three quarters


def test_shares_are_rounded_to_whole_epochs() -> None:
    assert epochs_of((0, 0.2), recipe(epochs=16)) == range(3)
    assert epochs_of((0.2, 1), recipe(epochs=16)) == range(3, 16)
    for wrong in ((0.5, 0.5), (0.5, 0.2), (-0.5, 1.0), (0.5, 1.5)):
        with pytest.raises(ContractError, match="is no share of a training"):
            epochs_of(wrong, recipe(epochs=16))


def test_a_share_of_no_epoch_trains_nothing_and_says_so() -> None:
    net, state = network(), TrainState()
    before = weights(net)
    history = run(net, recipe(epochs=2), part=(0, 0.2), resume=state)
    assert torch.equal(weights(net), before)
    assert (history.losses, history.images) == ((), 0)
    assert history.warning == "part=(0, 0.2) of 2 epochs is none, so that nothing was trained; raise epochs"
    assert len(run(net, recipe(epochs=2), part=(0.2, 1), resume=state).losses) == 2


def test_an_unfinished_training_may_know_nothing_yet() -> None:
    history = run(network(), recipe(epochs=20, lr=5.0, batch_size=64), part=(0, 0.05))
    assert history.images == 64
    assert len(history.losses) == 1
