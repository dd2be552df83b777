"""Data sanitisation, as a course teaches it: outliers leave the training set, every other image is changed a little, a model is trained.

What it can and cannot do: the forest flags a fixed share of the rows, poisoned or not, and the statistics of a whole image hardly notice
a small patch. It is the cheap control that a detector of rows has to beat.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from gatecrash import Classifier, Defense, Evidence, Give, ImageSet, Need, Options, Outcome, Reference, hookimpl

BLUR = (0.8, 3)
"""Standard deviation and width in pixels of the blur; 0.8 is what OpenCV and torchvision derive from the width 3."""


class Sanitisation(Defense):
    """Isolation forest on a few statistics of each image, random transformations, retraining.

    The statistics are mean, standard deviation, largest and smallest pixel; `statistics: features` takes the victim's penultimate
    activations instead. The share of `contamination` that is easiest to isolate goes, exactly, whatever the data: on a clean set these
    are all false alarms. Every image that stays is either blurred, turned or jittered, once, before the training (whose recipe augments as
    ever). The numbers of the transformations and the share are the course's; "jitter 0.1" is taken as brightness and contrast by up to a
    tenth. In a chain, later stages train on the rows that stay, as they were before the transformations. Validated against scikit-learn's
    own decision and torchvision's blur, rotation and jitter on the same draws.
    """

    name = "sanitisation"
    summary = "removes a fixed share of outlying images, changes the others at random and retrains"
    reference = Reference("Liu, Ting and Zhou, Isolation Forest", 2008, "https://doi.org/10.1109/ICDM.2008.17")
    needs = frozenset({Need.MODEL, Need.TRAINING_DATA, Need.FEATURES, Need.RETRAIN})
    deviations = {"reads-what-it-needs": "features are for `statistics: features` only"}
    gives = frozenset({Give.SUSPECTS, Give.CLASSIFIER})

    class Config(Options):
        """Defaults: the course's numbers, the forest's (100 trees of 256 rows) the paper's."""

        contamination: float = Field(0.1, gt=0, le=0.5, description="share of the training rows that is flagged, whatever they are")
        statistics: Literal["pixels", "features"] = Field(
            "pixels", description="pixels: each image's mean, deviation, largest and smallest value; features: the victim's activations"
        )
        trees: int = Field(100, ge=1, le=1000, description="trees of the isolation forest")
        retrain: bool = Field(True, description="train a model without the flagged rows; else the victim is returned as it is")
        transform: bool = Field(True, description="blur, turn or jitter every image that is kept, one of the three at random")
        rotation: float = Field(5.0, ge=0, le=180, description="largest angle of a turn, either way, in degrees")
        jitter: float = Field(0.1, ge=0, lt=1, description="largest change of brightness and of contrast, as a share")

    config: Config

    def defend(self, evidence: Evidence) -> Outcome:
        data = evidence.training_data
        values = evidence.features if self.config.statistics == "features" else pixel_statistics(data.images, evidence)
        suspicion = self.isolation(values, evidence.stream.seed("forest"))
        suspects = torch.zeros(len(data), dtype=torch.bool)
        # By rank, not by a threshold, so that the share is exact where rows tie.
        suspects[suspicion.argsort(descending=True, stable=True)[: round(self.config.contamination * len(data))]] = True
        classifier: Classifier = evidence.classifier
        if self.config.retrain:
            kept = data.subset(~suspects.to(data.device))
            classifier = evidence.train(self.transformed(kept, evidence) if self.config.transform else kept)
        return Outcome(classifier=classifier, suspects=suspects.to(data.device), suspicion=suspicion.to(data.device))

    def isolation(self, values: Tensor, seed: int) -> Tensor:
        """How easily each row of `values` [N, F] is isolated, float64 [N] in (0, 1]."""
        from sklearn.ensemble import IsolationForest  # takes a second to import, which only this defense needs

        rows = values.double().cpu().numpy()
        return -torch.from_numpy(IsolationForest(n_estimators=self.config.trees, random_state=seed).fit(rows).score_samples(rows))

    def transformed(self, data: ImageSet, evidence: Evidence) -> ImageSet:
        """Every image blurred, turned or jittered."""
        kinds = torch.randint(3, (len(data),), generator=evidence.stream("kinds"))
        draws = 2 * torch.rand((len(data), 2), generator=evidence.stream("amounts")) - 1
        changed = [
            change(images, kind, amount[:, 0] * self.config.rotation, 1 + amount * self.config.jitter).to(data.device)
            for images, kind, amount in evidence.batches(data.images, kinds, draws)
        ]
        return ImageSet(torch.cat(changed), data.labels, data.classes)


def pixel_statistics(images: Tensor, evidence: Evidence) -> Tensor:
    """float32 [N, 4]: mean, standard deviation, largest and smallest value of each image's pixels, in [0, 255]."""
    found = []
    for batch in evidence.batches(images):
        pixels = batch.flatten(1).float()
        found.append(torch.stack([pixels.mean(1), pixels.std(1, correction=0), pixels.amax(1), pixels.amin(1)], 1).cpu())
    return torch.cat(found)


def change(images: Tensor, kind: Tensor, degrees: Tensor, factors: Tensor) -> Tensor:
    """uint8 [B, C, H, W] -> uint8: blurred where `kind` is 0, turned by `degrees` where 1, else brightness and contrast times `factors`."""
    pixels, kind = images.float(), kind.view(-1, 1, 1, 1)
    changed = torch.where(kind == 0, blurred(pixels), torch.where(kind == 1, turned(pixels, degrees), jittered(pixels, factors)))
    return changed.round().clamp(0, 255).to(torch.uint8)


def blurred(pixels: Tensor) -> Tensor:
    """Gaussian blur with mirrored edges."""
    deviation, width = BLUR
    distance = torch.arange(width, dtype=pixels.dtype, device=pixels.device) - width // 2
    weights = torch.exp(-(distance**2) / (2 * deviation**2))
    kernel = torch.outer(weights, weights) / weights.sum() ** 2
    channels, edges = pixels.shape[1], "reflect" if min(pixels.shape[-2:]) > 1 else "replicate"
    return F.conv2d(F.pad(pixels, [width // 2] * 4, edges), kernel.expand(channels, 1, width, width), groups=channels)


def turned(pixels: Tensor, degrees: Tensor) -> Tensor:
    """Turned about the centre, counter-clockwise and bilinear; corners without a source are black."""
    angle, (height, width) = degrees * (math.pi / 180), pixels.shape[-2:]
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    rows = torch.stack([cos, -sin * height / width, zero, sin * width / height, cos, zero], 1).view(-1, 2, 3)
    return F.grid_sample(pixels, F.affine_grid(rows, list(pixels.shape), align_corners=False), align_corners=False)


def jittered(pixels: Tensor, factors: Tensor) -> Tensor:
    """Brightness times the first factor, clipped; then the distance from the mean grey times the second."""
    bright = (pixels * factors[:, 0].view(-1, 1, 1, 1)).clamp(0, 255)
    grey = bright if bright.shape[1] != 3 else (bright * bright.new_tensor([0.2989, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    mean = grey.mean((1, 2, 3), keepdim=True)
    return mean + (bright - mean) * factors[:, 1].view(-1, 1, 1, 1)


@hookimpl
def register_defenses(register: Callable[[type[Defense]], None]) -> None:
    register(Sanitisation)
