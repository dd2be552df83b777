"""Defend: run a defense, or a chain of them, on what a defender may see."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from gatecrash.contracts.classifier import Classifier
from gatecrash.contracts.data import ImageSet
from gatecrash.contracts.defense import Defense
from gatecrash.contracts.detector import InputDetector
from gatecrash.contracts.evidence import Need
from gatecrash.contracts.outcome import Outcome, Verdict
from gatecrash.contracts.portable import spec_of, state_of
from gatecrash.engine.precision import Precision
from gatecrash.engine.trainer import ReportProgress
from gatecrash.errors import ContractError, printable
from gatecrash.host.host import Host
from gatecrash.process.measuring import Meter
from gatecrash.records.sealed import printable_json
from gatecrash.records.stage import Stage
from gatecrash.running.tasks.defender import DefenderInput, DefenseOutput
from gatecrash.running.tasks.features import Features
from gatecrash.running.tasks.given import StageInput, evidence_for, named
from gatecrash.running.tasks.ground import Ground


def defend(
    host: Host,
    ground: Ground,
    stages: Sequence[Stage],
    seed: int,
    defender_input: DefenderInput,
    report: ReportProgress,
    features: Features | None = None,
    datasets: Mapping[str, ImageSet] | None = None,
) -> DefenseOutput:
    """Run one defense, or a chain: each stage gets the last classifier and the training set minus the suspects so far.

    A detector of inputs changes neither: later stages repair the classifier that stands behind it. A stage with `when` is skipped unless
    the last verdict so far is that.

    `features` are the victim's on the whole training set; without them, or once a stage has changed the classifier, a stage that needs
    features has them computed here. `datasets` are those that the stages' options name, by fingerprint.
    """
    setup = ground.setup(seed, flip=defender_input.flip, report=report)
    model = ground.configured_model(host)
    chain = _Chain(defender_input, features)
    meter = Meter(setup.device)
    with meter:
        for place, stage in enumerate(stages):
            if stage.when is not None and not chain.accused:
                chain.skipped.append(place)
                continue
            defense: Defense = host.get("defense", stage.name).configure(stage.config)
            chain.take(defense, defense.defend(evidence_for(defense, chain.next_input(), model, setup, named(stage, datasets))))
    return chain.output(meter, setup.precision)


class _Chain:
    """What the stages so far have come to. A stage may have left another default device behind: tensors made here name theirs."""

    def __init__(self, defender_input: DefenderInput, features: Features | None) -> None:
        self._input, self._features = defender_input, features
        self._total = len(defender_input.training_data) if defender_input.training_data is not None else 0
        self._kept = torch.arange(self._total)
        """Rows of the training data that no stage suspects."""
        self._suspects: Tensor | None = None
        self._suspicion: Tensor | None = None
        self._classifier: Callable[[], Classifier] = cache(defender_input.classifier)  # not every defense wants it
        self._given: Callable[[], Classifier] = self._classifier
        """The classifier that the last stage was given."""
        self._changed = False
        self._prior: Outcome | None = None
        self._verdict: Verdict | None = None
        self._detector: InputDetector | None = None
        self.skipped: list[int] = []

    @property
    def accused(self) -> bool:
        """Whether the last verdict is that the model is backdoored."""
        return self._verdict is not None and bool(self._verdict.backdoored)

    def next_input(self) -> StageInput:
        data = self._input.training_data
        if data is not None and len(self._kept) < self._total:
            data = data.subset(self._kept)
        known = self._features.values[self._kept] if self._features is not None and not self._changed else None
        return StageInput(self._classifier, self._input.clean, data, known, self._prior)

    def take(self, defense: Defense, outcome: Outcome) -> None:
        """Take in a stage's outcome. Raises ContractError where it is not what the defense declares."""
        rows = len(self._kept) if Need.TRAINING_DATA in defense.needs else None
        outcome.check(frozenset(defense.gives), rows, self._input.clean.num_classes)
        self._given, self._prior = self._classifier, outcome
        if outcome.suspicion is not None:
            self._suspicion = torch.full(
                (self._total,), float("inf"), dtype=torch.float64, device="cpu"
            )  # removed earlier: the most suspect
            self._suspicion[self._kept] = outcome.suspicion.cpu().double()
        if outcome.suspects is not None:
            suspects = self._suspects if self._suspects is not None else torch.zeros(self._total, dtype=torch.bool, device="cpu")
            suspects[self._kept[outcome.suspects.cpu()]] = True
            self._suspects, self._kept = suspects, torch.nonzero(~suspects).flatten()
        self._verdict, self._detector = outcome.verdict or self._verdict, outcome.detector or self._detector
        if outcome.classifier is not None:
            self._classifier, self._changed = cache(partial(_same, outcome.classifier)), True

    def output(self, meter: Meter, precision: Precision) -> DefenseOutput:
        """What the evaluation needs of it."""
        last = self._prior
        if last is None:
            raise ContractError("a defense has at least one stage")
        return DefenseOutput(
            spec=spec_of(self._classifier()) if self._changed else None,
            state=state_of(self._classifier()) if self._changed else {},
            suspects=self._suspects,
            suspicion=_finite(self._suspicion) if self._suspicion is not None else None,
            verdict=_described(self._verdict) if self._verdict is not None else None,
            steps=[(_plain(step.params), {name: t.detach().cpu() for name, t in step.changes.items()}) for step in last.trajectory],
            steps_spec=spec_of(self._given()) if last.trajectory else None,
            steps_state=state_of(self._given()) if last.trajectory else {},
            detector_spec=spec_of(self._detector) if self._detector is not None else None,
            detector_state=state_of(self._detector) if self._detector is not None else {},
            skipped=tuple(self.skipped),
            figures={str(name): image.cpu() for name, image in last.figures.items()},
            tables={printable(str(name)): [_plain(row) for row in rows] for name, rows in last.tables.items()},
            seconds=meter.seconds + (self._features.seconds if self._features is not None else 0.0),
            peak_memory_mb=meter.peak_mb,
            holdout_size=len(self._input.clean),
            precision=precision,
        )


def _finite(suspicion: Tensor) -> Tensor:
    """Infinities, of rows that earlier stages removed, as a number above all others: it can be stored."""
    known = suspicion[torch.isfinite(suspicion)]
    top = known.max() if len(known) else suspicion.new_zeros(())
    return torch.where(torch.isfinite(suspicion), suspicion, top + 1)


def _described(verdict: Verdict) -> dict[str, Any]:
    return {
        "backdoored": bool(verdict.backdoored),
        "probability": verdict.probability,
        "targets": sorted(int(label) for label in verdict.targets),
        "anomaly": {str(label): float(value) for label, value in sorted(verdict.anomaly.items())},
    }


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record as JSON types: a plugin's own (an enum, say) would be unknown where its file is not loaded."""
    plain: dict[str, Any] = printable_json(json.loads(json.dumps(dict(record))))
    return plain


def _same(classifier: Classifier) -> Classifier:
    return classifier
