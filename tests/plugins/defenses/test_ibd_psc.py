"""IBD-PSC: amplified copies by hand, where the search starts, how few BatchNorms are enough, and what is stored."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gatecrash import Backbone, ImageSet, Network, NotApplicable, Outcome
from gatecrash.contracts.portable import rebuild, spec_of, state_of
from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses.ibd_psc import IBDPSC, AmplifiedConfidence, amplified


class Norms(Backbone):
    """Three pixels through `layers` BatchNorms with the weights and biases given, and a head."""

    def __init__(self, weights: list[float], biases: list[float], affine: bool = True) -> None:
        super().__init__()
        self._config = {"weights": weights, "biases": biases, "affine": affine}
        made = [nn.BatchNorm2d(3, eps=0, affine=affine) for _ in weights]
        self.norms = nn.ModuleList(made)
        for norm, weight, bias in zip(made, weights, biases, strict=True) if affine else ():
            nn.init.constant_(norm.weight, weight)
            nn.init.constant_(norm.bias, bias)
        self.head = nn.Linear(3, 3)
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(3))
            self.head.bias.copy_(torch.tensor([0.0, 0.0, 4.0]))

    def config(self) -> dict[str, Any]:
        return self._config

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for norm in self.norms:
            x = norm(x)
        logits: Tensor = self.head(x.flatten(1))
        return logits


def network(weights: list[float], biases: list[float] | None = None, affine: bool = True) -> Network:
    return Network(Norms(weights, biases or [0.0] * len(weights), affine), [0.0] * 3, [1.0] * 3).eval()


def pixels(*rows: tuple[int, int, int]) -> Tensor:
    return torch.tensor(rows, dtype=torch.uint8).view(-1, 3, 1, 1)


CLEAN = ImageSet(pixels((255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)), torch.tensor([0, 1, 2, 2]), ("a", "b", "c"))


def defend(victim: Network, clean: ImageSet = CLEAN, **options: Any) -> Outcome:
    defense = IBDPSC(IBDPSC.Config.model_validate(options))
    outcome = defense.defend(make_evidence(defense, victim, clean))
    outcome.check(frozenset(IBDPSC.gives), None, 3)
    return outcome


def depths(outcome: Outcome) -> list[int]:
    assert isinstance(outcome.detector, AmplifiedConfidence)
    return outcome.detector.depths


def test_scale_one_is_the_plain_confidence() -> None:
    victim = network([5.0, 1.0])
    detector = AmplifiedConfidence(victim, [1, 2], 1.0, 0.9)
    assert detector.score(CLEAN.images).tolist() == pytest.approx(victim(CLEAN.images).softmax(1).amax(1).tolist())


def test_the_score_is_the_mean_confidence_in_the_first_answer_by_hand() -> None:
    """Logits (6, 0, 4): answer 0. With the last norm times 0.5 they are (3, 0, 4), with both (1.5, 0, 4): class 2 wins, 0 is asked for."""
    detector = AmplifiedConfidence(network([2.0, 3.0]), [1, 2], 0.5, 0.9)
    expected = [torch.tensor([first, 0.0, 4.0]).softmax(0)[0] for first in (3.0, 1.5)]
    assert detector.score(pixels((255, 0, 0))).tolist() == pytest.approx([float(sum(expected)) / 2])


def test_weight_and_bias_are_scaled_of_the_last_norms_alone_and_the_victim_stays() -> None:
    """x -> 2x + 1 -> 3x + 2, with the last one doubled 6x + 4, with both (4x + 2) -> 6 (4x + 2) + 4."""
    victim = network([2.0, 3.0], [1.0, 2.0])
    before = copy.deepcopy(victim.state_dict())
    images = pixels((255, 0, 0))
    for depth, one in ((0, 3 * 3 + 2), (1, 6 * 3 + 4), (2, 6 * 6 + 4)):
        assert float(amplified(victim, depth, 2.0, images)[0, 0]) == pytest.approx(one)
    assert all(victim.state_dict()[name].equal(value) for name, value in before.items())


def test_a_head_that_ignores_the_last_norm_scores_the_same() -> None:
    victim = network([5.0])
    with torch.no_grad():
        victim.head.weight.zero_()
    plain = victim(CLEAN.images).softmax(1).amax(1)
    assert AmplifiedConfidence(victim, [1], 1.5, 0.9).score(CLEAN.images).tolist() == pytest.approx(plain.tolist())


def test_the_search_starts_at_the_first_copy_above_the_error() -> None:
    """Product 12 x 0.8^k against the bias 4: wrong from 0.8^k < 1/3 on, so at k = 5; then classes 0 and 1 are lost, half of the images."""
    victim = network([12.0] + [1.0] * 9)
    outcome = defend(victim, scale=0.8, error=0.4, copies=3)
    assert depths(outcome) == [5, 6, 7]
    assert [row["error"] for row in outcome.tables["search"]] == [0, 0, 0, 0, 0.5]
    assert depths(defend(victim, scale=0.8, error=0.4, copies=1)) == [5]


def test_few_norms_give_fewer_copies_and_the_table_says_so() -> None:
    outcome = defend(network([12.0] + [1.0] * 5), scale=0.8, error=0.4)
    assert depths(outcome) == [5, 6]
    assert [row["amplified"] for row in outcome.tables["depths"]] == [5, 6]
    assert depths(defend(network([6.0]), scale=0.5, error=0.4)) == [1]


def test_published_counts_one_norm_more_and_the_last_copy_again() -> None:
    outcome = defend(network([12.0] + [1.0] * 6), scale=0.8, error=0.4, variant="published")
    assert depths(outcome) == [6, 7, 7, 7, 7]
    with pytest.raises(NotApplicable):
        defend(network([6.0]), scale=0.5, error=0.4, variant="published")  # the only k is that of all BatchNorms


@pytest.mark.parametrize(
    ("victim", "reason"),
    [
        (network([12.0, 1.0]), r"of 2\) exceeds an error of 0.6: .* 0.00 at the most"),
        (network([12.0], affine=False), r"of 0\) exceeds an error of 0.6: there is none to amplify"),
    ],
)
def test_without_a_start_it_does_not_apply(victim: Network, reason: str) -> None:
    """Elsewhere the start is None there, and the detection fails."""
    with pytest.raises(NotApplicable, match=reason):
        defend(victim)


def test_stored_it_scores_as_before_and_as_the_batch_does(badnets_on_digits: Any) -> None:
    defense = IBDPSC(IBDPSC.Config(error=0.0, scale=3.0))
    detector = defense.defend(make_evidence(defense, badnets_on_digits.network, badnets_on_digits.clean)).detector
    assert isinstance(detector, AmplifiedConfidence)
    again = rebuild(spec_of(detector), state_of(detector))
    assert isinstance(again, AmplifiedConfidence)
    images = badnets_on_digits.test.images[:20]
    assert again.score(images).equal(detector.score(images))
    assert (again.threshold, again.depths) == (detector.threshold, detector.depths)
    assert detector.score(images[7:8]).tolist() == pytest.approx(detector.score(images)[7:8].tolist(), rel=1e-4)
