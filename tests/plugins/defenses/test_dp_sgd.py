"""DP-SGD: clipping by hand, noise of the right size, and published epsilons."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gatecrash import Backbone, Evidence, ImageSet, Network, NotApplicable, Point, Recipe
from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses.dp_sgd import DPSGD, clipped_sums, epsilon
from gatecrash_plugins.models.airbench import Airbench
from gatecrash_plugins.models.small_cnn import SmallCnn

ONE_STEP = Recipe(epochs=1, batch_size=64, lr=1.0, momentum=0.0, weight_decay=0.0, schedule="constant", crop=0, flip=False)


class OneFeature(Backbone):
    """Two logits that are multiples of the only pixel, zero at first."""

    def __init__(self) -> None:
        super().__init__()
        self.point = Point(1)
        self.head = nn.Linear(1, 2, bias=False)
        nn.init.zeros_(self.head.weight)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.point(images).flatten(1))
        return logits


def data(count: int = 64, shape: tuple[int, int, int] = (1, 16, 16)) -> ImageSet:
    """Half dark, half bright."""
    labels = torch.arange(count) % 2
    images = torch.randint(0, 128, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ImageSet(images + 127 * labels.view(-1, 1, 1, 1).to(torch.uint8), labels, ("dark", "bright"))


def evidence_on(train: ImageSet, recipe: Recipe, model: Any = None, **options: Any) -> tuple[DPSGD, Evidence]:
    defense = DPSGD(DPSGD.Config(**options))
    model = model or SmallCnn(SmallCnn.Config(width=4))
    return defense, make_evidence(defense, Network(OneFeature(), [0.0], [1.0]), train, training_data=train, model=model, recipe=recipe)


def test_each_images_gradient_is_clipped_before_the_sum() -> None:
    """At equal logits an image x of class 0 has the gradient (-x/2, x/2), of norm x / sqrt 2. With x = 1 it is clipped from .707 to .5, to
    (-.354, .354); with x = .2 it stays (-.1, .1)."""
    network = Network(OneFeature(), [0.0], [1.0])
    images, labels = torch.tensor([255, 51], dtype=torch.uint8).view(2, 1, 1, 1), torch.tensor([0, 0])
    loss, [(parameter, total)] = clipped_sums(network, images, labels, clip=0.5, smoothing=0.0)
    assert parameter is network.head.weight
    assert total.flatten().tolist() == pytest.approx([-(0.125**0.5) - 0.1, 0.125**0.5 + 0.1])
    assert loss.item() == pytest.approx(0.6931, abs=1e-4)


def test_many_images_are_worked_off_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = Network(SmallCnn(SmallCnn.Config(width=4)).build(2, (1, 16, 16)), [0.5], [0.25], norm="group")
    few = data(7)
    whole = clipped_sums(network, few.images, few.labels, 1.0, 0.1)
    monkeypatch.setattr("gatecrash_plugins.defenses.dp_sgd.MEMORY", 1)
    for (_, one), (_, other) in zip(whole[1], clipped_sums(network, few.images, few.labels, 1.0, 0.1)[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_noise_has_the_deviation_of_noise_times_clip_over_the_batch() -> None:
    """One step at a rate of 1, with noise and without: the weights differ by 100 * 2 / 64 on the average."""
    noisy, still = (weights(*evidence_on(data(), ONE_STEP, noise=noise, clip=2.0)) for noise in (100, 0))
    assert float((noisy - still).std()) == pytest.approx(100 * 2 / 64, rel=0.05)


def test_it_learns_without_batch_norm_and_says_what_it_spent() -> None:
    recipe = Recipe(epochs=8, batch_size=16, lr=0.5, weight_decay=0.0, crop=0, flip=False)
    defense, evidence = evidence_on(data(128), recipe, noise=0.5, delta=1e-3)
    outcome = defense.defend(evidence)
    assert isinstance(outcome.classifier, Network)
    assert outcome.classifier.norms == {}
    right = outcome.classifier(data(128).images).argmax(1) == data(128).labels
    assert float(right.float().mean()) > 0.95
    assert outcome.tables["privacy"] == [{"epsilon": epsilon(1 / 8, 0.5, 64, 1e-3), "delta": 1e-3, "steps": 64}]


def test_empty_batches_are_steps_of_noise() -> None:
    """At one expected image a step more than a third of the batches are empty; every one of them counts."""
    recipe = ONE_STEP.model_copy(update={"batch_size": 1, "lr": 0.01})
    defense, evidence = evidence_on(data(), recipe, noise=0.1)
    assert defense.defend(evidence).tables["privacy"][0]["steps"] == 64


def test_a_network_that_starts_from_the_images_is_refused() -> None:
    defense, evidence = evidence_on(data(shape=(3, 16, 16)), ONE_STEP, Airbench())
    with pytest.raises(NotApplicable, match="AirbenchBackbone starts from training images, and no noise hides these"):
        defense.defend(evidence)


@pytest.mark.parametrize(
    ("rate", "noise", "steps", "delta", "published"),
    [
        (0.01, 4.0, 10_000, 1e-5, 1.26),  # Abadi et al. 2016, section 5.1 (figure 2)
        (256 / 60_000, 1.1, 14_062, 1e-5, 3.01),  # the MNIST tutorial of TensorFlow Privacy: 60 epochs
    ],
)
def test_epsilons_are_the_published_ones(rate: float, noise: float, steps: int, delta: float, published: float) -> None:
    assert epsilon(rate, noise, steps, delta) == pytest.approx(published, abs=0.005)


def test_without_sampling_epsilon_is_the_gaussian_mechanisms_and_without_noise_there_is_none() -> None:
    """At rate 1 the moment of order n is n (n + 1) / 2 sigma^2; with sigma 2 and delta e^-8, (n + 1) / 8 + 8 / n is least at n = 8."""
    assert epsilon(1.0, 2.0, 1, math.exp(-8)) == pytest.approx(9 / 8 + 1)
    assert epsilon(0.5, 0.0, 1, 1e-5) is None


def weights(defense: DPSGD, evidence: Evidence) -> Tensor:
    classifier = defense.defend(evidence).classifier
    assert isinstance(classifier, Network)
    return torch.cat([parameter.detach().flatten() for parameter in classifier.parameters()])
