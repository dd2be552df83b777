"""What no evaluation can have counted."""

from __future__ import annotations

from collections.abc import Sequence

from gatecrash.evaluation.detection import DetectionScores
from gatecrash.evaluation.inputs import InputScores, Separation
from gatecrash.evaluation.scores import Counts, Scores


def impossible(scores: Scores) -> list[str]:
    """What no evaluation can have counted."""
    faults = [] if _within(scores.n_test, scores.correct, scores.rejected) else ["more clean images counted than shown"]
    # A hit is never recovered too: an image that has its goal's label already is not eligible.
    faults += [
        f"more triggered images of {one.name!r} counted than shown"
        for one in scores.backdoors
        if not _within(one.eligible, one.hits, one.recovered, one.rejected)
    ]
    parts: list[tuple[list[int | None], list[Counts | None]]] = []
    if (clean := scores.classes) is not None:
        parts.append(([scores.n_test, scores.correct, scores.rejected], [clean.total, clean.correct, clean.rejected]))
    for one in scores.backdoors:
        if (each := one.classes) is not None:
            triggered = [each.eligible, each.hits, each.recovered, each.rejected]
            parts.append(([one.eligible, one.hits, one.recovered, one.rejected], triggered))
    if not all(_adds_up(sums, counts) for sums, counts in parts) or not _targets_exist(scores):
        faults.append("the counts by class do not add up")
    return faults


def _adds_up(sums: Sequence[int | None], counts: Sequence[Counts | None]) -> bool:
    """Whether the counts by class, the first of them the images shown, sum up to what was counted."""
    known = [each for each in counts if each is not None]
    if [None if each is None else sum(each) for each in counts] != list(sums) or len({len(each) for each in known}) != 1:
        return False
    return all(_within(shown, *rest) for shown, *rest in zip(*known, strict=True))


def _targets_exist(scores: Scores) -> bool:
    known = range(len(scores.classes.total)) if scores.classes is not None else None
    return known is None or all(target in known for one in scores.backdoors for target in one.targets)


def impossible_detection(scores: DetectionScores) -> list[str]:
    pairs = ((scores.clean, scores.flagged_clean), (scores.poison, scores.flagged_poison), (scores.cover, scores.flagged_cover))
    possible = all(0 <= (flagged or 0) <= rows for rows, flagged in pairs) and (scores.auroc is None or 0 <= scores.auroc <= 1)
    return [] if possible else ["more training rows flagged than there are"]


def impossible_inputs(found: InputScores, scores: Scores | None) -> list[str]:
    """`scores` are those of the classifier behind the detector, on the same images."""
    parts = (found.triggered, found.successful)
    possible = _within(found.clean, found.flagged_clean) and all(map(_is_separation, parts))
    possible = possible and all(one <= other for one, other in zip(_counts(found.successful), _counts(found.triggered), strict=True))
    if not possible:
        return ["more test images flagged than there are"]
    if scores is None:
        return []
    shown = (found.clean, found.triggered.images) == (scores.n_test, sum(one.eligible for one in scores.backdoors))
    # what the detector flags is rejected; the classifier behind it may reject more
    rejected = (scores.rejected or 0, sum(one.rejected or 0 for one in scores.backdoors))
    below = found.flagged_clean <= rejected[0] and found.triggered.flagged <= rejected[1]
    return [] if shown and below else ["the detector's counts are not those of the classifier behind it"]


def _counts(part: Separation) -> tuple[int, ...]:
    return part.images, part.flagged


def _is_separation(part: Separation) -> bool:
    counts = (part.flagged, part.at_fpr_1 or 0, part.at_fpr_5 or 0)
    return all(_within(part.images, count) for count in counts) and (
        (part.at_fpr_1 or 0) <= (part.at_fpr_5 or 0) and (part.auroc is None or 0 <= part.auroc <= 1)
    )


def _within(total: int, *parts: int | None) -> bool:
    known = [part or 0 for part in parts]
    return min(total, *known) >= 0 and sum(known) <= total
