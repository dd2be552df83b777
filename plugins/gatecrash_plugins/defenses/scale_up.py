"""SCALE-UP: an input whose class survives when its pixels are multiplied and clipped carries a trigger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from gatecrash import Classifier, Defense, Evidence, Give, InputDetector, Need, Options, Outcome, Reference, hookimpl

Factor = Annotated[float, Field(gt=0, le=255)]


class ScaledConsistency(InputDetector):
    """The share of `factors` under which the classifier's answer stays what it is (SPC), minus `mean` and over `deviation` of that answer.

    Both are float32 [K + 1], so that a classifier that rejects by itself may stand behind it.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, classifier: Classifier, factors: Sequence[float], threshold: float) -> None:
        super().__init__()
        self.classifier, self.factors, self.threshold = classifier, list(factors), threshold
        self.register_buffer("mean", torch.zeros(classifier.num_classes + 1))
        self.register_buffer("deviation", torch.ones(classifier.num_classes + 1))

    def config(self) -> dict[str, Any]:
        return {"classifier": self.classifier, "factors": self.factors, "threshold": self.threshold}

    @torch.no_grad()
    def consistency(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """SPC float32 [N], and the answer int64 [N] for the images as they are."""
        answer = self.classifier(images).argmax(1)
        kept = torch.zeros(len(images), device=images.device)
        for factor in self.factors:
            scaled = (images.float() * factor).round().clamp(max=255).to(torch.uint8)
            kept += self.classifier(scaled).argmax(1) == answer
        return kept / len(self.factors), answer

    def score(self, images: Tensor) -> Tensor:
        share, answer = self.consistency(images)
        return (share - self.mean[answer]) / self.deviation[answer]


class ScaleUp(Defense):
    """Scaled prediction consistency (section 4 of the paper), black-box: only the classifier's answers are used.

    A trigger's answer outlives the multiplication of all pixels by 3, 5, 7, 9 and 11, clipped at white; a clean image's seldom does. With
    clean data (the paper's data-limited setting) the share is taken relative to clean images of the same class: minus their mean, over
    their deviation. `normalise: all` takes one mean and deviation of all classes, as the authors' BackdoorBox does, and `none` is the
    paper's data-free setting. The threshold 0.5 is the paper's, the same for all three.

    Classes are the classifier's answers, for the hold-out as for inputs: BackdoorBox and the backdoor-toolbox compare scaled hold-out
    images with their labels, and inputs with their answers. Where a class's shares do not vary, or fewer than two images of the hold-out
    have that answer, the deviation is that of the whole hold-out, and the step between two shares at the least: nothing is divided by
    zero. Beside the code of BackdoorBox: see docs/measured/scale-up.md.
    """

    name = "scale-up"
    summary = "rejects inputs whose class survives multiplied pixels"
    reference = Reference(
        "Guo et al., SCALE-UP: An Efficient Black-box Input-level Backdoor Detection via Analyzing Scaled Prediction Consistency",
        2023,
        "https://arxiv.org/abs/2302.03251",
    )
    needs = frozenset({Need.MODEL, Need.CLEAN_DATA})
    gives = frozenset({Give.DETECTOR})
    deviations = {"benign-victim-survives": "on black and white images brighter pixels change little, so that benign images are rejected"}

    class Config(Options):
        """Defaults: the paper's."""

        factors: tuple[Factor, ...] = Field(
            (3, 5, 7, 9, 11), min_length=1, max_length=100, description="numbers that all pixels are multiplied with, one at a time"
        )
        threshold: float = Field(0.5, ge=-100, le=100, description="score above which an input is rejected")
        normalise: Literal["class", "all", "none"] = Field(
            "class", description="clean images that the score is relative to: those with the same answer, all, or none (score in [0, 1])"
        )

    config: Config

    def defend(self, evidence: Evidence) -> Outcome:
        detector = ScaledConsistency(evidence.classifier, self.config.factors, self.config.threshold).to(evidence.device).eval()
        if self.config.normalise != "none":
            found = [detector.consistency(images) for images in evidence.batches(evidence.clean.images)]
            shares, answers = (torch.cat(parts) for parts in zip(*found, strict=True))
            self.calibrate(detector, shares, answers)
        return Outcome(detector=detector)

    def calibrate(self, detector: ScaledConsistency, shares: Tensor, answers: Tensor) -> None:
        """Mean and deviation of the shares: of all of them, then of each answer that has enough."""
        step = 1 / len(self.config.factors)
        spread = float(shares.std()) if len(shares) > 1 else 0.0
        detector.mean.fill_(float(shares.mean()))
        detector.deviation.fill_(spread if spread > 1e-6 else step)
        for answer in range(len(detector.mean)) if self.config.normalise == "class" else ():
            own = shares[answers == answer]
            if len(own) > 1:
                detector.mean[answer] = own.mean()
                if float(own.std()) > 1e-6:
                    detector.deviation[answer] = own.std()


@hookimpl
def register_defenses(register: Callable[[type[Defense]], None]) -> None:
    register(ScaleUp)
