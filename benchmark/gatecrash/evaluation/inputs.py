"""Scores of detectors of poisoned inputs: triggered test images against clean ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gatecrash.evaluation.intervals import auc_interval, wilson
from gatecrash.evaluation.metrics import share

Limits = tuple[float, float]


@dataclass(frozen=True)
class Separation:
    """How well triggered images of all backdoors were told from the clean ones.

    `at_fpr_1` and `at_fpr_5` count the images that score above the lowest threshold at which at most 1%, or 5%, of the clean images are
    flagged, as a ROC curve has it: that threshold is found on the test images, so these two say what the scores are worth, and `flagged`
    what the detector's own threshold makes of them. None, like `auroc`, where there are no clean or no triggered images.
    """

    images: int
    flagged: int
    at_fpr_1: int | None = None
    at_fpr_5: int | None = None
    auroc: float | None = None

    @property
    def tpr(self) -> float | None:
        """Share of the images that is flagged."""
        return share(self.flagged, self.images)

    @property
    def tpr_at_fpr_1(self) -> float | None:
        return None if self.at_fpr_1 is None else share(self.at_fpr_1, self.images)

    @property
    def tpr_at_fpr_5(self) -> float | None:
        return None if self.at_fpr_5 is None else share(self.at_fpr_5, self.images)


@dataclass(frozen=True)
class InputScores:
    """Counts over clean test images and triggered ones: `triggered` are all that are eligible for a backdoor, `successful` those of them
    that the undefended victim gives the class that the backdoor's goal wants."""

    clean: int
    flagged_clean: int
    triggered: Separation
    successful: Separation

    @property
    def fpr(self) -> float | None:
        """Share of the clean images that is flagged."""
        return share(self.flagged_clean, self.clean)

    def limits(self, name: str) -> Limits | None:
        """The 95% interval of the measure `input_<name>`: Wilson's of a rate, for the ROC's area Newcombe's (method 5)."""
        if name == "fpr":
            return wilson(self.flagged_clean, self.clean)
        part = self.successful if name.endswith(SUCCESSFUL) else self.triggered
        name = name.removesuffix(SUCCESSFUL)
        if name == "auroc":
            if part.auroc is None:
                return None
            found = auc_interval(part.auroc, part.images, self.clean)
            return None if found.low is None or found.high is None else (found.low, found.high)
        count = {"tpr": part.flagged, "tpr_at_fpr_1": part.at_fpr_1, "tpr_at_fpr_5": part.at_fpr_5}[name]
        return None if count is None else wilson(count, part.images)

    def measures(self) -> dict[str, float | None]:
        """All measures `input_<name>` that follow from the counts."""
        parts = {"": self.triggered, SUCCESSFUL: self.successful}
        return {"input_fpr": self.fpr} | {
            f"input_{name}{suffix}": getattr(part, name)
            for suffix, part in parts.items()
            for name in ("tpr", "auroc", "tpr_at_fpr_1", "tpr_at_fpr_5")
        }

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


SUCCESSFUL = "_successful"


def input_scores(clean: Any, triggered: Any, flagged_clean: Any, flagged: Any, successful: Any) -> InputScores:
    """Score a detector of inputs.

    `clean` float [N] and `triggered` float [M] are its scores (higher = more suspect), `flagged_clean` and `flagged` bool which of them lie
    above its threshold, `successful` bool [M] on which triggered images the attack succeeds: arrays, or tensors on the CPU.
    """
    clean, triggered = np.asarray(clean), np.asarray(triggered)
    flags, hits = np.asarray(flagged, dtype=bool), np.asarray(successful, dtype=bool)
    return InputScores(
        len(clean),
        int(np.sum(np.asarray(flagged_clean))),
        _separation(clean, triggered, flags),
        _separation(clean, triggered[hits], flags[hits]),
    )


def _separation(clean: NDArray[Any], triggered: NDArray[Any], flagged: NDArray[Any]) -> Separation:
    images, above = len(triggered), int(flagged.sum())
    if not len(clean) or not images:
        return Separation(images, above)
    from sklearn.metrics import roc_auc_score, roc_curve

    truth = np.repeat([0, 1], [len(clean), len(triggered)])
    scores = np.concatenate([clean, triggered])
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    at_1, at_5 = (round(float(tpr[fpr <= level].max()) * images) for level in (0.01, 0.05))
    return Separation(images, above, at_1, at_5, float(roc_auc_score(truth, scores)))
