"""Sanitisation: a fixed share by scikit-learn's ranking, transformations as torchvision makes them, and what is trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from sklearn.ensemble import IsolationForest
from torch import Tensor, nn
from torchvision.transforms import functional as TF

from gatecrash import Backbone, Evidence, ImageSet, Model, Network, Outcome, Recipe
from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses import sanitisation
from gatecrash_plugins.defenses.sanitisation import Sanitisation

RECIPE = Recipe(epochs=1, batch_size=16, crop=0, flip=False)


class Linear(Backbone):
    """Logits of the pixels, from 12 of which the head is fed."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 2)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(images.flatten(1))
        return logits


class LinearModel(Model):
    """Linear."""

    name = "linear"
    summary = "logits of the pixels"

    def build(self, num_classes: int, shape: tuple[int, int, int]) -> Backbone:
        return Linear()


def noise(rows: int, seed: int = 0) -> Tensor:
    return torch.randint(60, 190, (rows, 1, 3, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def images_of(images: Tensor) -> ImageSet:
    return ImageSet(images, torch.arange(len(images)) % 2, ("a", "b"))


def evidence_for(defense: Sanitisation, data: ImageSet, seed: int = 0) -> Evidence:
    return make_evidence(
        defense, Network(Linear(), [0.0], [1.0]).eval(), data, training_data=data, model=LinearModel(), recipe=RECIPE, seed=seed
    )


def defend(data: ImageSet, seed: int = 0, **options: Any) -> Outcome:
    defense = Sanitisation(Sanitisation.Config.model_validate({"retrain": False, **options}))
    outcome = defense.defend(evidence_for(defense, data, seed))
    outcome.check(frozenset(Sanitisation.gives), len(data), 2)
    return outcome


def suspects_of(outcome: Outcome) -> Tensor:
    assert outcome.suspects is not None
    return outcome.suspects


@pytest.mark.parametrize(("rows", "flagged"), [(100, 10), (14, 1), (4, 0), (1, 0)])
@pytest.mark.parametrize("alike", [False, True])
def test_the_share_is_fixed_whatever_the_rows_are(rows: int, flagged: int, alike: bool) -> None:
    images = noise(1).expand(rows, -1, -1, -1).contiguous() if alike else noise(rows)
    assert int(suspects_of(defend(images_of(images))).sum()) == flagged


def test_flags_the_rows_that_scikit_learn_flags() -> None:
    data = images_of(noise(100))
    defense = Sanitisation()
    pixels = data.images.flatten(1).double().numpy()
    rows = torch.tensor([[row.mean(), row.std(), row.max(), row.min()] for row in pixels])
    seed = evidence_for(defense, data).stream.seed("forest")
    said = IsolationForest(contamination=0.1, random_state=seed).fit_predict(rows.float().double().numpy())
    assert suspects_of(defend(data)).tolist() == (said == -1).tolist()


def test_statistics_by_hand() -> None:
    defense, images = Sanitisation(), torch.tensor([[[[0, 0], [8, 8]]], [[[5, 5], [5, 5]]]], dtype=torch.uint8)
    evidence = evidence_for(defense, images_of(noise(2)))
    assert sanitisation.pixel_statistics(images, evidence).tolist() == [[4, 4, 8, 0], [5, 0, 5, 5]]


def test_images_of_another_brightness_are_found_and_a_moved_pixel_is_not() -> None:
    """What the four numbers of an image cannot see: a permutation of its pixels."""
    images = noise(200)
    images[:3] = images[:3] // 4
    found = suspects_of(defend(images_of(images), contamination=0.015))
    assert torch.nonzero(found).flatten().tolist() == [0, 1, 2]
    moved = images.roll(1, 3)
    assert suspects_of(defend(images_of(moved), contamination=0.015)).equal(found)


def test_features_see_what_the_pixels_statistics_do_not() -> None:
    """The victim's features are the pixels here: the same values in the reverse order lie apart from all others."""
    steady = torch.arange(60, 180, 10, dtype=torch.uint8).view(1, 1, 3, 4)
    images = steady.repeat(100, 1, 1, 1) + noise(100) // 64
    images[:5] = images[:5].flip(2, 3)
    suspicion = defend(images_of(images), statistics="features").suspicion
    assert suspicion is not None
    assert suspicion.argsort(descending=True)[:5].sort().values.tolist() == [0, 1, 2, 3, 4]


def test_another_seed_grows_another_forest_and_the_same_seed_the_same() -> None:
    data = images_of(noise(100))
    first, again, other = (defend(data, seed).suspicion for seed in (0, 0, 1))
    assert first is not None
    assert again is not None
    assert other is not None
    assert first.equal(again)
    assert not first.equal(other)


@pytest.mark.parametrize("channels", [1, 3])
def test_transformations_are_torchvisions(channels: int) -> None:
    images = torch.randint(0, 256, (3, channels, 9, 9), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    changed = sanitisation.change(images, torch.tensor([0, 1, 2]), torch.tensor([0.0, 5.0, 0.0]), torch.tensor([[1.08, 0.93]] * 3))
    pixels = images.float() / 255
    bright = TF.adjust_brightness(pixels[2], 1.08)
    said = [
        TF.gaussian_blur(pixels[0], [3, 3], [0.8, 0.8]),
        TF.rotate(pixels[1], 5.0, TF.InterpolationMode.BILINEAR),
        TF.adjust_contrast(bright, 0.93),
    ]
    for ours, theirs in zip(changed, said, strict=True):
        assert (ours.short() - (theirs * 255).round().short()).abs().max() <= 1


def test_a_turn_of_an_oblong_image_keeps_distances() -> None:
    images = torch.zeros(1, 1, 5, 9, dtype=torch.uint8)
    images[0, 0, 2, 6] = 200  # two right of the centre
    turned = sanitisation.change(images, torch.tensor([1]), torch.tensor([90.0]), torch.ones(1, 2))
    assert torch.nonzero(turned[0, 0] > 100).tolist() == [[0, 4]]


def test_each_image_is_changed_in_one_of_three_ways_and_white_stays_white() -> None:
    defense, data = Sanitisation(), images_of(torch.full((60, 1, 9, 9), 250, dtype=torch.uint8))
    changed = defense.transformed(data, evidence_for(defense, images_of(noise(2))))
    assert changed.labels.equal(data.labels)
    blurred = (changed.images == 250).flatten(1).all(1)
    turned = (changed.images[:, :, 0, 0] < 250).flatten() & (changed.images[:, :, 4, 4] == 250).flatten()
    assert 10 < int(blurred.sum()) < 30
    assert 10 < int(turned.sum()) < 30
    assert int(changed.images.min()) < 200  # a corner
    assert (changed.images[~blurred & ~turned] >= 225).all()


@pytest.mark.parametrize("transform", [True, False])
def test_a_model_is_trained_on_what_is_kept(transform: bool) -> None:
    data = images_of(noise(40))
    defense = Sanitisation(Sanitisation.Config(transform=transform))
    evidence, trained = evidence_for(defense, data), []

    def train(rows: ImageSet) -> Network:
        trained.append(rows)
        return evidence.train(rows)

    outcome = defense.defend(replace(evidence, train=train))  # type: ignore[arg-type]
    kept = data.subset(~suspects_of(outcome))
    assert len(kept) == 36
    assert trained[0].labels.equal(kept.labels)
    assert trained[0].images.equal(kept.images) is not transform
