"""FT-SAM: the climb and the step by hand, whose statistics count, and the schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gatecrash import Network, Outcome
from gatecrash.engine.optimizer import learning_rates
from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses.ft_sam import FTSAM, climbs, sharpness_aware, swinging
from gatecrash_plugins.models.small_cnn import SmallCnnBackbone
from support.defending import defended
from support.planted_networks import one_channel_per_class, one_pixel_per_class

CLEAN = one_pixel_per_class((10, 1, 2, 3, 4))


def with_norms() -> Network:
    """A net with BatchNorms, for images of 8 pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Network(SmallCnnBackbone(3, (1, 8, 8), 2), [0.4], [0.2])


def closure_of(network: Network, loss: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """What the engine hands to a step."""

    def closure() -> Tensor:
        network.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach()

    return closure


def taken(network: Network, lr: float, rho: float, loss: Callable[[], Tensor]) -> Tensor:
    """One step of plain SGD at w + e; the loss it reports."""
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    return sharpness_aware(rho)(network, optimizer, closure_of(network, loss), CLEAN.images, CLEAN.labels, CLEAN.labels)


class TestClimb:
    def test_each_weight_climbs_by_its_square(self) -> None:
        """w = (1, 2), g = (1, 1), rho 2: e = 2 (1, 4) / sqrt 5."""
        weight = nn.Parameter(torch.tensor([1.0, 2.0]))
        weight.grad = torch.ones(2)
        torch.testing.assert_close(climbs([weight], 2.0)[0], 2 * torch.tensor([1.0, 4.0]) / 5**0.5)

    def test_the_norm_is_that_of_all_parameters_together(self) -> None:
        one, two = nn.Parameter(torch.tensor([1.0])), nn.Parameter(torch.tensor([[2.0]]))
        one.grad, two.grad = torch.ones(1), torch.ones(1, 1)
        assert [float(climb.detach()) for climb in climbs([one, two], 2.0)] == pytest.approx([2 / 5**0.5, 8 / 5**0.5])

    def test_without_a_gradient_it_stays_where_it_is(self) -> None:
        weight = nn.Parameter(torch.ones(3))
        weight.grad = torch.zeros(3)
        assert not bool(climbs([weight], 2.0)[0].any())


class TestStep:
    def test_the_gradient_is_taken_at_the_top_and_applied_at_the_bottom(self) -> None:
        """Loss |b|^2 / 2 at b = (1, 2, 0, ...): e = 2 (1, 8) / sqrt 17, and b becomes b - 0.1 (b + e)."""
        network = one_channel_per_class()
        start = torch.tensor([1.0, 2.0, 0, 0, 0, 0])
        with torch.no_grad():
            network.head.bias.copy_(start)
        value = taken(network, 0.1, 2.0, lambda: network.head.bias.square().sum() / 2)
        climb = 2 * torch.tensor([1.0, 8.0, 0, 0, 0, 0]) / 17**0.5
        torch.testing.assert_close(network.head.bias.detach(), start - 0.1 * (start + climb))
        assert float(value) == 2.5  # at the bottom
        assert torch.equal(network.head.weight, one_channel_per_class().head.weight)  # had no gradient

    def test_the_climb_is_undone_to_the_last_bit(self) -> None:
        network = with_norms().train()
        before = [parameter.clone() for parameter in network.parameters()]
        images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        taken(network, 0.0, 1000.0, lambda: F.cross_entropy(network(images), torch.arange(6) % 3))
        assert all(torch.equal(one, other) for one, other in zip(before, network.parameters(), strict=True))

    def test_statistics_are_those_of_the_first_pass_alone(self) -> None:
        network, once = with_norms().train(), with_norms().train()
        images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        once(images)
        taken(network, 0.0, 50.0, lambda: F.cross_entropy(network(images), torch.arange(6) % 3))
        assert all(torch.equal(value, dict(once.named_buffers())[name]) for name, value in network.named_buffers())
        assert all(norm.track_running_stats for norm in network.norms.values())

    def test_at_the_top_norms_still_normalise_by_the_batch(self) -> None:
        network = with_norms().train()
        images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        seen: list[Tensor] = []

        def loss() -> Tensor:
            logits = network(images)
            seen.append(logits.detach())
            return F.cross_entropy(logits, torch.arange(6) % 3)

        taken(network, 0.0, 0.0, loss)  # without a climb, both passes are one
        assert torch.equal(seen[0], seen[1])


class TestSchedule:
    def test_the_rate_falls_once_over_all_steps(self) -> None:
        """Published: moved on at every batch though made for 100 epochs, so that it swings and ends at its peak."""
        recipe = FTSAM().recipe(10)
        rates = learning_rates(recipe, recipe.epochs * 10)
        assert rates[0] == 0.01
        assert rates == sorted(rates, reverse=True)
        assert rates[-1] < 1e-6

    def test_published_is_the_schedule_of_the_public_code(self) -> None:
        defense = FTSAM(FTSAM.Config(variant="published"))
        rates: list[float] = []
        network = one_channel_per_class()
        optimizer = torch.optim.SGD(network.parameters(), lr=1.0)

        def record(_network: Network, optimizer: torch.optim.Optimizer, *_others: Any) -> Tensor:
            rates.append(optimizer.param_groups[0]["lr"])
            return torch.zeros(())

        step = swinging(record)
        for rate in learning_rates(defense.recipe(10), 1000):
            optimizer.param_groups[0]["lr"] = rate
            step(network, optimizer, lambda: torch.zeros(()), CLEAN.images, CLEAN.labels, CLEAN.labels)
        # What torch's own schedule gives where it is moved on at every batch.
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(theirs := torch.optim.SGD(network.parameters(), lr=0.01), T_max=100)
        expected = []
        for _ in rates:
            expected.append(theirs.param_groups[0]["lr"])
            theirs.step()
            schedule.step()
        assert rates == pytest.approx(expected, abs=1e-9)
        assert [step for step, rate in enumerate(rates) if rate < 1e-12] == [100, 300, 500, 700, 900]
        assert rates[-1] == pytest.approx(0.01, rel=1e-3)


class TestLoss:
    @pytest.mark.parametrize("classes", [2, 3, 10])
    def test_what_is_smoothed_away_goes_to_the_other_classes(self, classes: int) -> None:
        logits = torch.randn(5, classes, generator=torch.Generator().manual_seed(0))
        labels = torch.arange(5) % classes
        wanted = torch.full((5, classes), 0.1 / (classes - 1)).scatter_(1, labels[:, None], 0.9)
        expected = -(wanted * logits.log_softmax(1)).sum(1).mean()
        torch.testing.assert_close(F.cross_entropy(logits, labels, label_smoothing=FTSAM().recipe(classes).label_smoothing), expected)

    def test_without_a_radius_it_is_fine_tuning_with_smoothed_labels(self) -> None:
        defense, victim = FTSAM(FTSAM.Config(rho=0, epochs=3, crop=0, flip=False)), one_channel_per_class()
        evidence = make_evidence(defense, victim, CLEAN)
        expected = evidence.train(evidence.clean, network=evidence.network, recipe=defense.recipe(6)).state_dict()
        found = state(defended(defense, victim, CLEAN))
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert not torch.equal(found["backbone.head.weight"], victim.head.weight)


def state(outcome: Outcome) -> dict[str, Tensor]:
    assert outcome.classifier is not None
    return outcome.classifier.state_dict()


@pytest.mark.parametrize("variant", ["corrected", "published"])
def test_it_changes_a_victim_of_the_digits_and_keeps_what_it_knows(variant: str, badnets_on_digits: Any) -> None:
    victim, defense = badnets_on_digits, FTSAM(FTSAM.Config.model_validate({"variant": variant, "epochs": 10, "batch_size": 50}))
    outcome = defended(defense, victim.network, victim.clean)
    before, after = outcome.tables["holdout"]
    assert after["acc"] > before["acc"] - 0.1
    assert victim.asr(outcome.classifier) < victim.asr(victim.network)
