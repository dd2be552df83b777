"""How far a measure may lie from the one that was measured again on another machine.

Other rounding leads to another training there, so no digit need be the same. How far apart two trainings may lie is taken from the
measurement made here, its counts and its seeds, and never from the file: a file that is judged cannot choose how strictly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gatecrash.evaluation.intervals import auc_interval, paired_interval, prediction_interval, wilson
from gatecrash.records.measures import Measures
from gatecrash.records.result import Result

COST = ("seconds_", "peak_memory_")
"""What the names of measures of a machine start with; these are not compared."""

COUNTED = {
    "acc": "clean",
    "acc_macro": "clean",
    "acc_before": "clean",
    "acc_benign": "clean",
    "clean_reject_rate": "clean",
    "acc_target": "targets",
    "asr": "triggered",
    "asr_worst": "triggered",
    "asr_floor": "triggered",
    "asr_before": "triggered",
    "asr_by_backdoor": "triggered",
    "ra": "triggered",
    "trigger_reject_rate": "triggered",
    "detection_tpr": "poison",
    "detection_fpr": "rows",
    "detection_precision": "flagged",
    "cover_flagged": "cover",
    "input_fpr": "shown clean",
    "input_tpr": "shown triggered",
    "input_tpr_at_fpr_1": "shown triggered",
    "input_tpr_at_fpr_5": "shown triggered",
    "input_tpr_successful": "shown successful",
    "input_tpr_at_fpr_1_successful": "shown successful",
    "input_tpr_at_fpr_5_successful": "shown successful",
    "retune_acc": "clean",
    "retune_asr": "triggered",
    "leak": "kept",
    "cover_acc": "covered",
}
"""What a rate is a share of: its Wilson interval over so many is where it may lie."""

FOLLOWS = {
    "acc_interval",
    "asr_interval",
    "der",
    "mitigation_score",
    "detection_tpr_minus_fpr",
    "detection_accuracy",
    "scores",
    "floor_scores",
    "robustness",
    "robustness_floor",
    "retune_excess",
    "retune_scores",
    "retune_control",
    "retune_missing",
    "harm_scores",
    "detection_scores",
    "input_scores",
}
"""What `recount` holds against the counts already, and the counts."""

AREAS = {
    "detection_auroc": ("poison", "rows"),
    "input_auroc": ("shown triggered", "shown clean"),
    "input_auroc_successful": ("shown successful", "shown clean"),
}
"""Areas under a ROC curve, with what there are of either kind: Newcombe's interval is where one may lie."""
HARM_SIZES = ("harmed by the victim", "harmed by the benign victim", "untouched images")

NOISY = {"loss_clean": (1.5, 0.05), "loss_poison": (1.5, 0.05), "verdict_probability": (1.0, 0.1), "verdict_anomaly": (1.5, 0.25)}
"""(factor, addend) by which a number without counts may differ."""


def outside(stored: Result, fresh: Result, seeds: Sequence[Result] = ()) -> list[str]:
    """What of a stored result lies outside the limits that the measurement made here sets; `seeds` are more of them, of other seeds."""
    then, now = stored.measures.model_dump(), fresh.measures.model_dump()
    sizes = _sizes(fresh.measures)
    faults = []
    for name in sorted(then.keys() | now.keys()):
        if name.startswith(COST) or name in FOLLOWS:
            continue
        values = [seed.measures.model_dump().get(name) for seed in (fresh, *seeds)] if seeds else []
        faults += _outside(name, then.get(name), now.get(name), values, sizes)
    faults += [f"{name} {was} -> {size}" for name, size, was in _other_sizes(_sizes(stored.measures), sizes)]
    return faults + list(_robustness(stored, fresh, seeds)) + list(_trajectory(stored, fresh, seeds))


def _outside(name: str, then: Any, now: Any, values: Sequence[Any], sizes: Mapping[str, int]) -> list[str]:
    """What is wrong with one measure; `values` are those of all seeds here."""
    if isinstance(then, dict) and isinstance(now, dict) and then.keys() == now.keys():
        return [
            fault
            for key in then
            for fault in _outside(f"{name} {key}", then[key], now[key], [value[key] for value in values if value and key in value], sizes)
        ]
    if then == now or then in values:
        return []
    limits = _limits(name.partition(" ")[0], now, sizes) if _is_number(then) and _is_number(now) else None
    if limits is None:
        return [f"{name} {_shown(then)} -> {_shown(now)}"]
    low, high = limits
    spread = prediction_interval([value for value in values if _is_number(value)])
    if spread.low is not None and spread.high is not None:
        low, high = min(low, spread.low), max(high, spread.high)
    if low <= then <= high:
        return []
    return [f"{name} {_shown(then)} -> {_shown(now)}, outside {_shown(low)} to {_shown(high)}"]


def _limits(name: str, value: float, sizes: Mapping[str, int]) -> tuple[float, float] | None:
    """Where a number may lie that is `value` here; None where it must be the same."""
    if name in AREAS:
        found = auc_interval(value, *(sizes.get(kind, 0) for kind in AREAS[name]))
        return (found.low or 0.0, 1.0 if found.high is None else found.high)
    if name in NOISY:
        factor, addend = NOISY[name]
        return value / factor - addend, value * factor + addend
    if name in {"acc_lost", "source_to_target"} and all(size in sizes for size in HARM_SIZES):
        return paired_interval(*(sizes[size] for size in HARM_SIZES))
    total = sizes.get(COUNTED.get(name, ""), 0)
    return wilson(round(value * total), total) if total else None


def _sizes(measures: Measures) -> dict[str, int]:
    """How many images or rows the rates are shares of; of several backdoors, those of the smallest."""
    sizes: dict[str, int] = {}
    scores, found = measures.scores, measures.detection_scores
    if scores is not None:
        sizes["clean"] = scores.n_test
        sizes |= {f"images of {one.name}, {one.kind}, to {list(one.targets)}": one.eligible for one in scores.backdoors}
        sizes |= {"triggered": min((one.eligible for one in scores.backdoors if one.eligible), default=0)}
        if scores.classes is not None:
            sizes |= {f"images of class {label}": total for label, total in enumerate(scores.classes.total)}
            targets = {target for one in scores.backdoors for target in one.targets}
            sizes["targets"] = sum(scores.classes.total[target] for target in targets)
        for part in ("kept", "covered"):
            least = min((count for one in scores.backdoors if (count := getattr(one, part))), default=0)
            sizes |= {part: least} if least else {}
    if (harm := measures.harm_scores) is not None:
        sizes |= dict(zip(HARM_SIZES, (harm.by_victim, harm.by_benign, harm.images), strict=True))
    if found is not None:
        sizes |= {"rows": found.clean, "poison": found.poison, "cover": found.cover}
        sizes["flagged"] = (found.flagged_clean or 0) + (found.flagged_poison or 0)
    if (inputs := measures.input_scores) is not None:
        sizes |= {"shown clean": inputs.clean, "shown triggered": inputs.triggered.images, "shown successful": inputs.successful.images}
    return sizes


def _other_sizes(then: Mapping[str, int], now: Mapping[str, int]) -> Iterator[tuple[str, int | None, int | None]]:
    """Totals that differ; they come of the data, not of the training."""
    for name in sorted((then.keys() | now.keys()) - {"flagged", "shown successful", *HARM_SIZES[:2]}):
        if then.get(name) != now.get(name):
            yield name, now.get(name), then.get(name)


def _trajectory(stored: Result, fresh: Result, seeds: Sequence[Result]) -> Iterator[str]:
    if [step.params.keys() for step in stored.trajectory] != [step.params.keys() for step in fresh.trajectory]:
        yield f"{len(stored.trajectory)} steps -> {len(fresh.trajectory)}, or others"
        return
    sizes = _sizes(fresh.measures)
    for number, (then, now) in enumerate(zip(stored.trajectory, fresh.trajectory, strict=True), 1):
        others = [seed.trajectory[number - 1] for seed in (fresh, *seeds) if len(seed.trajectory) >= number] if seeds else []
        for name in ("acc", "asr", "ra", "loss_clean", "loss_poison"):
            values = [getattr(step, name) for step in others]
            for fault in _outside(name, getattr(then, name), getattr(now, name), values, sizes):
                yield f"step {number}: {fault}"


def _robustness(stored: Result, fresh: Result, seeds: Sequence[Result]) -> Iterator[str]:
    for part in ("robustness", "robustness_floor"):
        then, now = ((getattr(one.measures, part) or {}) for one in (stored, fresh))
        if then.keys() != now.keys():
            yield f"{part} under {', '.join(then) or 'nothing'} -> {', '.join(now) or 'nothing'}"
            return
        others = [getattr(seed.measures, part) or {} for seed in (fresh, *seeds)] if seeds else []
        for under in then:
            sizes = _sizes(Measures(scores=now[under]))
            for name in ("acc", "asr"):
                values = [getattr(one[under], name) for one in others if one.get(under) is not None]
                yield from _outside(f"{name} under {under}", getattr(then[under], name), getattr(now[under], name), values, sizes)


def _is_number(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)[:40]
