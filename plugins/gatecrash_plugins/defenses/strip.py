"""STRIP: an input whose class survives whatever is laid over it carries a trigger."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from gatecrash import Classifier, Config, Defense, Evidence, Give, InputDetector, Need, Outcome, Reference, hookimpl


class OverlayEntropy(InputDetector):
    """Minus the mean entropy, in bits, of the classifier's answers for the image with each of `overlays` (uint8 [M, C, H, W]) on it.

    `sum` clips at white, as the authors' `cv2.addWeighted(image, 1, overlay, 1, 0)` does; `mean` gives both half the weight.
    """

    overlays: Tensor
    max_images = 4000  # the paper's 2,000 clean and 2,000 triggered ones; each costs as many passes as there are overlays

    def __init__(self, classifier: Classifier, shape: list[int], threshold: float, blend: Literal["sum", "mean"] = "sum") -> None:
        super().__init__()
        self.classifier, self.threshold, self.blend = classifier, threshold, blend
        self.register_buffer("overlays", torch.zeros(shape, dtype=torch.uint8))

    def config(self) -> dict[str, Any]:
        return {"classifier": self.classifier, "shape": list(self.overlays.shape), "threshold": self.threshold, "blend": self.blend}

    @torch.no_grad()
    def score(self, images: Tensor) -> Tensor:
        total = torch.zeros(len(images), device=images.device)
        for overlay in self.overlays:
            both = images.short() + overlay
            blended = (both.clamp(max=255) if self.blend == "sum" else (both + 1) // 2).to(torch.uint8)
            total += torch.special.entr(self.classifier(blended).softmax(1)).sum(1)
        return -total / (len(self.overlays) * math.log(2))


class Strip(Defense):
    """Rejects inputs whose class hardly changes when other images are laid over them.

    The overlays are drawn once, from the hold-out, and are the same for every input, so that scores repeat. The threshold is the quantile
    of the hold-out's own scores above which `false_rejections` of them lie; the paper takes that of a normal distribution fitted to them.
    """

    name = "strip"
    summary = "rejects inputs whose class survives other images laid over them"
    reference = Reference(
        "Gao et al., STRIP: a defence against trojan attacks on deep neural networks", 2019, "https://arxiv.org/abs/1902.06531"
    )
    needs = frozenset({Need.MODEL, Need.CLEAN_DATA})
    gives = frozenset({Give.DETECTOR})

    class Config(Config):
        """How inputs are disturbed, and how many clean ones may be rejected."""

        overlays: int = Field(100, ge=1, description="clean images that are laid over each input, one at a time")
        false_rejections: float = Field(0.01, gt=0, lt=1, description="share of the hold-out that the threshold rejects")
        blend: Literal["sum", "mean"] = Field("sum", description="how two images become one: their sum, clipped at white, or their mean")

    config: Config

    def defend(self, evidence: Evidence) -> Outcome:
        clean = evidence.clean.images
        chosen = torch.randint(len(clean), (self.config.overlays,), generator=evidence.stream("overlays"))
        detector = OverlayEntropy(evidence.classifier, [len(chosen), *evidence.shape], 0.0, self.config.blend).to(evidence.device).eval()
        detector.overlays.copy_(clean[chosen.to(clean.device)])
        scores = torch.cat([detector.score(batch) for batch in evidence.batches(clean)])
        detector.threshold = float(scores.double().quantile(1 - self.config.false_rejections))
        return Outcome(detector=detector)


@hookimpl
def register_defenses(register: Callable[[type[Defense]], None]) -> None:
    register(Strip)
