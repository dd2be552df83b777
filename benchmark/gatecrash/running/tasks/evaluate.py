"""Evaluate: score a cell. The only task that is given the test set, the roles and the triggers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from gatecrash.contracts.backdoor import Backdoor
from gatecrash.contracts.classifier import Classifier
from gatecrash.contracts.data import ImageSet, Role
from gatecrash.contracts.outcome import Step
from gatecrash.contracts.portable import rebuild
from gatecrash.engine.device import choose_device
from gatecrash.engine.trainer import ReportProgress
from gatecrash.errors import ContractError
from gatecrash.evaluation.detection import detection, verdict_scores
from gatecrash.evaluation.detector_exam import evaluate_detector
from gatecrash.evaluation.exam import Exam, evaluate_beside
from gatecrash.evaluation.harm import HarmCounts
from gatecrash.evaluation.independence import Witness
from gatecrash.evaluation.inputs import InputScores
from gatecrash.evaluation.metrics import der, mitigation_score
from gatecrash.evaluation.scores import Scores
from gatecrash.evaluation.steps import Known, step_scores
from gatecrash.records.measures import Measures, TrajectoryStep
from gatecrash.records.victim import StoredVictim
from gatecrash.running.tasks.defender import DefenseOutput
from gatecrash.running.tasks.further import after_retuning, under_transformations
from gatecrash.running.tasks.ground import Ground, TrainPart
from gatecrash.running.tasks.judged import detector_of, judged_classifier
from gatecrash.running.tasks.stored import backdoors_of, classifier_of, classifier_state


@dataclass(frozen=True)
class Evaluation:
    """What the evaluation found of a cell. `figures` are uint8 images [1 or 3, H, W] by name."""

    measures: Measures
    trajectory: list[TrajectoryStep]
    tables: dict[str, list[dict[str, Any]]]
    figures: dict[str, Tensor]
    precision: str | None = None
    """What `precision: auto` meant to the trainings of the defense, or to the victim's where there is none."""


def evaluate(
    ground: Ground,
    test: ImageSet,
    victim: StoredVictim,
    benign: StoredVictim | None,
    outcome: DefenseOutput | None,
    before: Measures | None,
    report: ReportProgress,
    witness: Witness | None = None,
    train: TrainPart | None = None,
    control: DefenseOutput | None = None,
    seed: int = 0,
) -> Evaluation:
    """Score one cell against the truth.

    `before` are the measures of the victim's cell without defense; None makes this that cell, and `benign` then gives the floor. It is
    also what an attack that aims at untouched images is measured against.
    `witness` asks every classifier again, where it has seen nothing else. `train`, `control` and `seed` are for `retune`: the training
    set, what the same defense made of the benign victim (None where it failed, and for a cell without defense), and the run's seed.
    """
    device = choose_device(ground.device)
    planted = backdoors_of(victim)
    backdoors = [backdoor for backdoor in planted if backdoor.is_triggered]
    exam = cache(partial(Exam, test, backdoors, device, witness=witness))  # not every cell asks; who does shares the triggered images
    report({"note": "evaluating"})
    scores, floor, found = _scored(exam, test, victim, planted, benign, outcome, before, device, witness)
    measures = {**_rates(scores), **found, **_costs(victim, outcome)}
    if "robustness" in ground.evaluation:
        report({"note": "evaluating under transformations"})
        measures |= under_transformations(exam, test, victim, backdoors, benign, outcome, before, device, witness)
    if "retune" in ground.evaluation and train is not None and backdoors and victim.record.aim == "backdoor":
        report({"note": "fine-tuning what the defense returned"})
        if outcome is not None and outcome.spec is None and before is not None:  # it leaves the victim as it is
            measures |= {name: value for name, value in before if name.startswith("retune_") and value is not None}
        else:
            compared = judged_classifier(benign, control) if benign is not None and (before is None or control is not None) else None
            measures |= after_retuning(ground, train, test, victim, seed, backdoors, judged_classifier(victim, outcome), compared, device)
    if before is None:
        if benign and backdoors:
            floor = exam().scores(classifier_of(benign), None)
        measures |= {"asr_floor": floor.asr if floor else None, "acc_before": scores.acc, "asr_before": scores.asr}
        measures |= {"acc_benign": floor.acc if floor else None, "floor_scores": floor}
    else:
        measures |= {"asr_floor": before.asr_floor, "acc_before": before.acc, "asr_before": before.asr}
        if scores.asr is not None and before.asr is not None:
            measures["der"] = der(before.acc, scores.acc, before.asr, scores.asr)
            measures["mitigation_score"] = mitigation_score(before.acc, scores.acc, before.asr, scores.asr)
    if outcome is None:
        return Evaluation(Measures.model_validate(measures), [], {}, {}, victim.record.precision)
    measures |= _detection(victim, outcome) | _verdict(outcome, backdoors)
    trajectory = _trajectory(outcome, exam, _known(victim, outcome, before, scores), report) if outcome.steps else []
    # what is in memory now equals what a later run reads back (tuples are lists in JSON)
    tables = json.loads(json.dumps(outcome.tables, allow_nan=False))
    return Evaluation(Measures.model_validate(measures), trajectory, tables, outcome.figures, outcome.precision)


def _scored(
    exam: Callable[[], Exam],
    test: ImageSet,
    victim: StoredVictim,
    planted: Sequence[Backdoor],
    benign: StoredVictim | None,
    outcome: DefenseOutput | None,
    before: Measures | None,
    device: torch.device,
    witness: Witness | None,
) -> tuple[Scores, Scores | None, dict[str, Any]]:
    """Scores of the classifier; the benign victim's, where both were asked together; measures of harm and of a detector."""
    backdoors = [backdoor for backdoor in planted if backdoor.is_triggered]
    if outcome is not None and outcome.detector_spec is not None:
        scores, inputs = _detecting(victim, outcome, test, backdoors, device, witness)
        return scores, None, {**inputs.measures(), "input_scores": inputs}
    if outcome is not None and outcome.spec is None and before is not None and before.scores is not None:
        return before.scores, None, _harm(victim, before.harm_scores)  # what finds rows or judges the model leaves the victim as it is
    judged = judged_classifier(victim, outcome)
    if victim.record.aim != "backdoor" and benign is not None:
        control, goals = classifier_of(benign).to(device), [backdoor.goal for backdoor in planted]
        scores, floor, harm = evaluate_beside(judged.to(device), control, test, goals, device=device, witness=witness)
        return scores, floor, _harm(victim, harm)
    return exam().scores(judged, None), None, {}


def _rates(scores: Scores) -> dict[str, Any]:
    return {
        "acc": scores.acc,
        "acc_macro": scores.acc_macro,
        "acc_target": scores.acc_target,
        "acc_interval": scores.acc_interval,
        "asr": scores.asr,
        "asr_interval": scores.asr_interval,
        "asr_worst": scores.asr_worst,
        "asr_by_backdoor": scores.asr_by_backdoor,
        "ra": scores.ra,
        "loss_clean": scores.loss_clean,
        "loss_poison": scores.loss_poison,
        "clean_reject_rate": scores.clean_reject_rate,
        "trigger_reject_rate": scores.trigger_reject_rate,
        "scores": scores,
        **{name: rate for name, rate in (("leak", scores.leak), ("cover_acc", scores.cover_acc)) if rate is not None},
    }


def _harm(victim: StoredVictim, harm: HarmCounts | None) -> dict[str, Any]:
    if harm is None:
        return {}
    return {"acc_lost" if victim.record.aim == "availability" else "source_to_target": harm.rate, "harm_scores": harm}


def _costs(victim: StoredVictim, outcome: DefenseOutput | None) -> dict[str, Any]:
    return {
        "poison_share": victim.record.poison_share,
        "seconds_victim": victim.record.seconds,
        "peak_memory_mb": max(victim.record.peak_memory_mb, outcome.peak_memory_mb if outcome else 0.0),
        "seconds_defense": outcome.seconds if outcome else None,
        "holdout_size": outcome.holdout_size if outcome else None,
    }


def _detecting(
    victim: StoredVictim,
    outcome: DefenseOutput,
    test: ImageSet,
    backdoors: Sequence[Backdoor],
    device: torch.device,
    witness: Witness | None,
) -> tuple[Scores, InputScores]:
    detector = detector_of(outcome)
    assert detector is not None
    judged = judged_classifier(victim, outcome).to(device)
    undefended = judged if outcome.spec is None else classifier_of(victim).to(device)
    return evaluate_detector(judged, detector, undefended, test, backdoors, device=device, witness=witness)


def _detection(victim: StoredVictim, outcome: DefenseOutput) -> dict[str, Any]:
    if outcome.suspects is None and outcome.suspicion is None:
        return {}
    roles = torch.full((victim.record.train_size,), int(Role.CLEAN), dtype=torch.uint8)
    roles[victim.poison["rows"]] = victim.poison["role"]
    found = detection(
        None if outcome.suspects is None else outcome.suspects.numpy(),
        None if outcome.suspicion is None else outcome.suspicion.numpy(),
        roles.numpy(),
    )
    return {
        "detection_tpr": found.tpr,
        "detection_fpr": found.fpr,
        "detection_precision": found.precision,
        "detection_auroc": found.auroc,
        "detection_tpr_minus_fpr": found.tpr_minus_fpr,
        "detection_accuracy": found.accuracy,
        "cover_flagged": found.cover_flagged,
        "detection_scores": found,
    }


def _verdict(outcome: DefenseOutput, backdoors: Sequence[Backdoor]) -> dict[str, Any]:
    if outcome.verdict is None:
        return {}
    judged = verdict_scores(
        outcome.verdict["backdoored"],
        outcome.verdict["targets"],
        sorted({target for backdoor in backdoors for target in backdoor.goal.targets}),
        is_backdoored=bool(backdoors),
        names_classes=bool(outcome.verdict["targets"] or outcome.verdict["anomaly"]),
    )
    return {
        "verdict": outcome.verdict["backdoored"],
        "verdict_targets": outcome.verdict["targets"],
        "verdict_probability": outcome.verdict["probability"],
        "verdict_anomaly": outcome.verdict["anomaly"],
        "verdict_right": judged.right,
        "verdict_targets_equal": judged.targets_equal,
        "verdict_targets_recall": judged.targets_recall,
    }


def _known(victim: StoredVictim, outcome: DefenseOutput, before: Measures | None, scores: Scores) -> list[Known]:
    """States of the classifier that the steps refer to, whose scores on the same images are there: the victim's and the outcome's."""
    found: list[Known] = []
    if victim.record.aim != "backdoor":
        return found
    if before is not None and before.scores is not None and victim.record.classifier == outcome.steps_spec:
        found.append((classifier_state(victim), before.scores))
    if outcome.detector_spec is None and outcome.spec is not None and outcome.spec == outcome.steps_spec:
        found.append((outcome.state, scores))
    return found


def _trajectory(outcome: DefenseOutput, exam: Callable[[], Exam], known: Sequence[Known], report: ReportProgress) -> list[TrajectoryStep]:
    report({"note": f"evaluating {len(outcome.steps)} steps"})
    given = rebuild(outcome.steps_spec or {}, outcome.steps_state)
    if not isinstance(given, Classifier):
        raise ContractError("the trajectory does not refer to a Classifier")
    steps = [Step(params, changes) for params, changes in outcome.steps]
    scored = step_scores(exam(), given, steps, known)
    return [
        TrajectoryStep(
            params=params,
            acc=step.scores.acc,
            asr=step.scores.asr,
            ra=step.scores.ra,
            loss_clean=step.scores.loss_clean,
            loss_poison=step.scores.loss_poison,
            scores=step.scores.without_classes(),
        )
        for (params, _), step in zip(outcome.steps, scored, strict=True)
    ]
