"""A defense can read what its needs declare, and nothing else."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from gatecrash import (
    ContractError,
    Defense,
    Evidence,
    Need,
    Outcome,
    Recipe,
)
from gatecrash.testing import make_evidence
from support.five_channels import COUNTS, Tiny
from support.planted_networks import one_channel_per_class, one_pixel_per_class


class Probe(Defense):
    """Reads one field."""

    name = "probe"
    summary = "reads one field"
    needs = frozenset()
    gives = frozenset()

    def __init__(self, needs: frozenset[Need], field: str) -> None:
        super().__init__()
        self.needs, self.field = needs, field  # type: ignore[misc]

    def defend(self, evidence: Evidence) -> Outcome:
        assert getattr(evidence, self.field) is not None
        return Outcome()


FIELDS = [
    ("classifier", Need.MODEL),
    ("network", Need.MODEL),
    ("clean", Need.CLEAN_DATA),
    ("training_data", Need.TRAINING_DATA),
    ("features", Need.FEATURES),
    ("recipe", Need.RETRAIN),
    ("new_model", Need.RETRAIN),
]


def read(field: str, needs: set[Need]) -> None:
    data = one_pixel_per_class(COUNTS)
    probe = Probe(frozenset(needs), field)
    probe.defend(make_evidence(probe, one_channel_per_class(), data, training_data=data, model=Tiny()))


class TestEvidence:
    @pytest.mark.parametrize(("field", "need"), FIELDS)
    def test_a_field_can_be_read_when_its_need_is_declared(self, field: str, need: Need) -> None:
        read(field, {need})

    @pytest.mark.parametrize(("field", "need"), FIELDS)
    def test_reading_an_undeclared_field_names_the_need(self, field: str, need: Need) -> None:
        with pytest.raises(ContractError, match=rf"Need\.{need.name} is not in the defense's `needs`"):
            read(field, set(Need) - {need})

    def test_training_from_scratch_without_the_need_names_it(self) -> None:
        data = one_pixel_per_class(COUNTS)
        evidence = make_evidence(Probe(frozenset({Need.CLEAN_DATA}), "clean"), one_channel_per_class(), data, model=Tiny())
        with pytest.raises(ContractError, match=r"without `network=`, but Need\.RETRAIN is not in the defense's `needs`"):
            evidence.train(data)

    @pytest.mark.parametrize("secret", ["test", "trigger", "goal", "attack", "backdoors", "role", "roles"])
    def test_there_is_nothing_of_the_attackers_in_it(self, secret: str) -> None:
        data = one_pixel_per_class(COUNTS)
        everything = Probe(frozenset(Need), "classes")
        evidence = make_evidence(everything, one_channel_per_class(), data, training_data=data, model=Tiny())
        assert not hasattr(evidence, secret)
        assert not hasattr(evidence.training_data, secret)


@pytest.mark.parametrize(
    ("machine", "recipe", "computed"),
    [
        ("bfloat16", "auto", torch.bfloat16),
        ("bfloat16", "float32", torch.float32),
        ("float32", "auto", torch.float32),
    ],
)
def test_a_network_computes_under_autocast_as_in_the_runs_trainings(
    machine: str, recipe: Literal["auto", "float32"], computed: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatecrash.testing.builders.auto_precision", lambda _device: machine)
    data = one_pixel_per_class(COUNTS)
    evidence = make_evidence(Probe(frozenset({Need.MODEL}), "network"), one_channel_per_class(), data, recipe=Recipe(precision=recipe))
    with evidence.autocast():
        assert evidence.network(data.images).dtype == computed
    assert evidence.network(data.images).dtype == torch.float32
