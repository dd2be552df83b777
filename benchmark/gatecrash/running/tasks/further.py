"""What a grid can ask of the evaluation beyond the scores of every cell: `robustness` and `retune`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from gatecrash.contracts.backdoor import Backdoor
from gatecrash.contracts.classifier import Classifier
from gatecrash.contracts.data import ImageSet, Role
from gatecrash.contracts.randomness import Streams
from gatecrash.errors import NotApplicable, one_line
from gatecrash.evaluation.detector_exam import detector_exam, rejecting_scores
from gatecrash.evaluation.exam import Exam
from gatecrash.evaluation.independence import Witness
from gatecrash.evaluation.options import RetuneConfig
from gatecrash.evaluation.retune import retuned, tunable, tuning_sets
from gatecrash.evaluation.robustness import TRANSFORMATIONS, transformed
from gatecrash.evaluation.scores import Scores, retune_rates
from gatecrash.records.measures import Measures
from gatecrash.records.victim import StoredVictim
from gatecrash.running.tasks.defender import DefenseOutput
from gatecrash.running.tasks.ground import Ground, TrainPart
from gatecrash.running.tasks.judged import detector_of, judged_classifier
from gatecrash.running.tasks.stored import classifier_of


def under_transformations(
    exam: Callable[[], Exam],
    test: ImageSet,
    victim: StoredVictim,
    backdoors: Sequence[Backdoor],
    benign: StoredVictim | None,
    outcome: DefenseOutput | None,
    before: Measures | None,
    device: torch.device,
    witness: Witness | None,
) -> dict[str, Any]:
    """Scores under each transformation of the images; the benign victim's beside those of the cell without defense."""
    if outcome is not None and outcome.spec is None and outcome.detector_spec is None and before is not None and before.robustness:
        return {"robustness": before.robustness}  # what finds rows or judges the model leaves the victim as it is
    judged, detector = judged_classifier(victim, outcome).to(device), detector_of(outcome)
    plain = exam() if detector is None else detector_exam(detector, test, backdoors, device=device, witness=witness)
    control = classifier_of(benign).to(device) if before is None and benign is not None and backdoors else None
    found: dict[str, Scores] = {}
    floor: dict[str, Scores] = {}
    for name in TRANSFORMATIONS:
        under = plain.changed(partial(transformed, name))
        scores = under.scores(judged, None) if detector is None else rejecting_scores(under, judged, detector)
        found[name] = scores.without_classes()
        if control is not None:
            floor[name] = under.scores(control, None).without_classes()
    return {"robustness": found, **({"robustness_floor": floor} if floor else {})}


def after_retuning(
    ground: Ground,
    train: TrainPart,
    test: ImageSet,
    victim: StoredVictim,
    seed: int,
    backdoors: Sequence[Backdoor],
    judged: Classifier,
    compared: Classifier | None,
    device: torch.device,
) -> dict[str, Any]:
    """Scores after fine-tuning with a few triggered rows, of the classifier and of the one that it is compared with."""
    streams = Streams("retune", ground.dataset, seed)
    data, _ = train.cut(ground, seed)
    roles = torch.full((len(data),), int(Role.CLEAN), dtype=torch.uint8)
    roles[victim.poison["rows"]] = victim.poison["role"]
    count = RetuneConfig(rows=ground.evaluation["retune"].get("rows")).count(len(data))
    exam = Exam(test, backdoors, device)  # what is asked was trained here: no witness is needed
    precision = ground.precision if ground.recipe.get("precision") == "auto" else None
    found: dict[str, list[Scores]] = {"retune_scores": [], "retune_control": []}
    clean = torch.nonzero(roles == Role.CLEAN).flatten()
    try:
        drawn = list(tuning_sets(data, clean, backdoors, count, streams, device))
    except NotApplicable as error:  # the other scores stand
        return {"retune_missing": one_line(error)}
    for draw, rows in enumerate(drawn):
        for name, classifier in (("retune_scores", judged), ("retune_control", compared)):
            network = tunable(classifier, data.images[:1].to(device)) if classifier is not None else None
            if network is not None:
                tuned = retuned(network, rows, streams.within(draw), device, precision)
                found[name].append(exam.scores(tuned, None).without_classes())
    return {**retune_rates(found["retune_scores"], found["retune_control"]), **{name: scores for name, scores in found.items() if scores}}
