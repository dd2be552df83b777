"""Evidence that remembers what was read of it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from gatecrash.contracts.classifier import Network
from gatecrash.contracts.data import ImageSet, Poisoned
from gatecrash.contracts.evidence import Evidence, Need
from gatecrash.contracts.train import Train

_NEEDS = {
    "_classifier": Need.MODEL,
    "_clean": Need.CLEAN_DATA,
    "_training_data": Need.TRAINING_DATA,
    "_recipe": Need.RETRAIN,
    "_new_model": Need.RETRAIN,
    "_features": Need.FEATURES,
}


@dataclass(frozen=True)
class RecordedEvidence(Evidence):
    """Adds what is read to `reads`."""

    reads: set[Need] = field(default_factory=set)

    def __getattribute__(self, name: str) -> Any:
        if name in _NEEDS:
            object.__getattribute__(self, "reads").add(_NEEDS[name])
        return object.__getattribute__(self, name)


@dataclass(frozen=True)
class _RecordedTrain:
    """The engine; a training from scratch is a use of RETRAIN."""

    train: Train
    reads: set[Need]

    def __call__(self, data: Poisoned | ImageSet, *, network: Network | None = None, **how: Any) -> Network:
        if network is None and getattr(how.get("resume"), "network", None) is None:
            self.reads.add(Need.RETRAIN)
        return self.train(data, network=network, **how)


def recorded(evidence: Evidence) -> RecordedEvidence:
    """The same evidence, with a record of what is read of it from now on."""
    reads: set[Need] = set()
    given = {each.name: getattr(evidence, each.name) for each in fields(evidence)}
    return RecordedEvidence(**{**given, "train": _RecordedTrain(evidence.train, reads)}, reads=reads)
