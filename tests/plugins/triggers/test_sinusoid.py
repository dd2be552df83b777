"""The sinusoid by hand: which columns, how much, rounding and clipping."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from gatecrash import TriggerContext, UserError
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from gatecrash_plugins.triggers.sinusoid import Sinusoid, SinusoidMaker


def grey(level: int, shape: tuple[int, int, int]) -> torch.Tensor:
    return torch.full((2, *shape), level, dtype=torch.uint8)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 8), (3, 20, 8)])
def test_two_waves_in_eight_columns(shape: tuple[int, int, int]) -> None:
    made = Sinusoid(40, 2)(grey(100, shape))
    assert made[0, 0, 0].tolist() == [100, 140, 100, 60, 100, 140, 100, 60]
    assert (made == made[:1, :1, :1]).all()  # rows, channels and images alike: the wave runs over the width, whatever the height


def test_values_are_rounded_and_clipped_never_truncated_or_wrapped() -> None:
    assert Sinusoid(40, 2)(grey(250, (1, 1, 8)))[0, 0, 0].tolist() == [250, 255, 250, 210, 250, 255, 250, 210]
    assert Sinusoid(40, 2)(grey(10, (1, 1, 8)))[0, 0, 0].tolist() == [10, 50, 10, 0, 10, 50, 10, 0]
    assert Sinusoid(10, 1)(grey(100, (1, 1, 8)))[0, 0, 0].tolist() == [100, 107, 110, 107, 100, 93, 90, 93]  # 7.07 both ways


def test_a_wave_of_no_height_gives_equal_bytes() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 7)
    assert Sinusoid(0, 6)(levels).equal(levels)


def test_training_and_test_have_amplitudes_of_their_own() -> None:
    maker, seen = SinusoidMaker(SinusoidMaker.Config(frequency=2, delta_train=20, delta_test=60)), TriggerContext((3, 8, 8))
    assert maker.make_train(seen)(grey(100, (3, 8, 8)))[0, 0, 0, 1] == 120
    assert maker.make(seen)(grey(100, (3, 8, 8)))[0, 0, 0, 1] == 160
    assert (SinusoidMaker().config.frequency, SinusoidMaker().config.delta_train, SinusoidMaker().config.delta_test) == (6, 40, 40)


@pytest.mark.parametrize(
    ("width", "options"),
    [(12, {}), (6, {}), (4, {"frequency": 2}), (32, {"delta_train": 0.4}), (32, {"delta_test": 0.4})],
)
def test_a_wave_that_shows_nowhere_is_refused_when_planning(width: int, options: dict[str, Any]) -> None:
    """Frequency 6 in 12 columns is sin(pi j) = 0 everywhere."""
    with pytest.raises(UserError, match=f"changes no pixel of images {width} wide"):
        SinusoidMaker(SinusoidMaker.Config(**options)).check((3, 8, width))
    SinusoidMaker().check((3, width, 32))


@pytest.mark.parametrize("options", [{"frequency": 0}, {"delta_train": 0}, {"delta_test": 256}])
def test_options_are_bounded(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SinusoidMaker.Config(**options)


def test_it_is_rebuilt_from_its_stored_form_and_lets_gradients_through() -> None:
    trigger = SinusoidMaker().make(TriggerContext((3, 8, 9)))
    again = rebuild(spec_of(trigger), state_of(trigger))
    assert isinstance(again, Sinusoid)
    assert again(grey(99, (3, 8, 9))).equal(trigger(grey(99, (3, 8, 9))))
    images = torch.rand(1, 1, 4, 9, requires_grad=True)
    (gradient,) = torch.autograd.grad(trigger.transform(images).sum(), images)
    assert (gradient == 1).all()
