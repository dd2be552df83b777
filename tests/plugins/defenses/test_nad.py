"""Neural Attention Distillation: attention by hand, a student that is its teacher, and a backdoor of the digits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gatecrash import NotApplicable
from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses.nad import NAD, attention
from support.planted_networks import one_channel_per_class, one_pixel_per_class


def test_attention_is_the_normalised_sum_of_squares_over_channels() -> None:
    maps = torch.tensor([[[[1.0, 0.0]], [[1.0, 2.0]]]])  # squares: 1 + 1 and 0 + 4
    torch.testing.assert_close(attention(maps), torch.tensor([[[2.0, 4.0]]]) / 20**0.5)


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.1, 10), seed=st.integers(0, 2**31))
def test_it_knows_where_and_not_how_much(scale: float, seed: int) -> None:
    maps = torch.rand(3, 4, 5, 6, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(attention(scale * maps), attention(maps))
    torch.testing.assert_close(attention(maps.flip(1)), attention(maps))  # channels are alike


def test_maps_without_any_activation_have_no_attention_and_no_nan() -> None:
    assert not bool(attention(torch.zeros(2, 3, 4, 4)).any())


def test_a_network_without_stages_cannot_be_distilled() -> None:
    defense = NAD()
    with pytest.raises(NotApplicable, match="names no stages"):
        defense.defend(make_evidence(defense, one_channel_per_class(), one_pixel_per_class((4, 4, 4, 4, 4))))


def test_the_backdoor_of_the_digits_goes(badnets_on_digits: Any) -> None:
    victim, defense = badnets_on_digits, NAD(NAD.Config(first_beta=5, beta=10))
    outcome = defense.defend(make_evidence(defense, victim.network, victim.clean))
    outcome.check(defense.gives, None, victim.clean.num_classes)
    assert victim.asr(outcome.classifier) < 0.2 < 0.9 < victim.asr(victim.network)
    assert set(outcome.classifier.state_dict()) == set(victim.network.state_dict())
