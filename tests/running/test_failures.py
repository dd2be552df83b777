"""One bad cell, or a victim that cannot be trained, does not stop a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gatecrash.running.run import run
from support.small_runs import small

COUNTING = """
    import gatecrash

    class Bad(gatecrash.Defense):
        name, summary = "bad", "fails as it is told"
        needs, gives = frozenset({gatecrash.Need.MODEL, gatecrash.Need.CLEAN_DATA}), frozenset({gatecrash.Give.CLASSIFIER})

        class Config(gatecrash.Config):
            how: str = gatecrash_field("raise")

        def defend(self, evidence):
            import torch
            how = self.config.how
            if how == "raise":
                raise ValueError("out of luck")
            if how == "exit":
                raise SystemExit(7)
            if how == "not-applicable":
                raise gatecrash.NotApplicable("no BatchNorm here")
            if how == "nothing":
                return gatecrash.Outcome()
            network = evidence.network
            if how == "nan":
                for parameter in network.parameters():
                    parameter.data.fill_(float("nan"))
            if how == "undeclared":
                evidence.training_data
            return gatecrash.Outcome(classifier=network)

    @gatecrash.hookimpl
    def register_defenses(register):
        register(Bad)
""".replace('gatecrash_field("raise")', '__import__("pydantic").Field("raise", description="what goes wrong")')

FAILING_ATTACK = """
    import gatecrash

    class Doomed(gatecrash.Attack):
        name, summary = "doomed", "cannot be trained"

        def poison(self, train, ctx):
            raise RuntimeError("no such luck")

    class Diverging(gatecrash.Attack):
        name, summary = "diverging", "trains to NaN"

        def poison(self, train, ctx):
            return gatecrash.Poisoned.untouched(train)

        def implant(self, train, ctx):
            poisoned = self.poison(train, ctx)
            ctx.train(poisoned, loss=lambda network, images, labels, rows: network(images).sum() * float("nan"))

    class Lying(gatecrash.Attack):
        name, summary = "lying", "changes rows that it calls clean"

        def poison(self, train, ctx):
            import torch
            return gatecrash.Poisoned(255 - train.images, train.labels, torch.zeros(len(train), dtype=torch.uint8))

    class Nowhere(gatecrash.TriggerAttack):
        name, summary = "nowhere", "a trigger without numbers"

        def trigger(self, shape):
            import torch
            return gatecrash.Stamp(shape, 1.0, torch.zeros(shape, dtype=torch.uint8), torch.full(shape[1:], float("nan")))

    @gatecrash.hookimpl
    def register_attacks(register):
        for attack in (Doomed, Diverging, Lying, Nowhere):
            register(attack)
"""


@pytest.mark.parametrize(
    ("how", "status", "said"),
    [
        ("raise", "failed", "ValueError: out of luck"),
        ("exit", "failed", "SystemExit: 7"),
        ("not-applicable", "not-applicable", "no BatchNorm here"),
        ("nothing", "failed", "declares a classifier but its outcome has none"),
        ("nan", "failed", "NaN"),
        ("undeclared", "failed", "evidence.training_data was read, but Need.TRAINING_DATA is not in the defense's `needs`"),
    ],
)
def test_one_bad_cell_is_recorded_and_the_grid_goes_on(tmp_path: Path, write: Any, how: str, status: str, said: str) -> None:
    file = write("bad.py", COUNTING)
    defenses = [{"bad": {"how": how}}, {"fine-pruning": {"epochs": 1}}]
    summary = run(small(attacks=["none"], defenses=defenses), tmp_path / "s", plugins=[file])
    ended = {result.defense_name: result for result in summary.results.values()}
    assert (ended["bad"].status, ended["none"].status, ended["fine-pruning"].status) == (status, "ok", "ok")
    assert said in (ended["bad"].error or "")
    assert summary.exit_code == (0 if status == "not-applicable" else 1)
    again = run(small(attacks=["none"], defenses=[{"bad": {"how": how}}]), tmp_path / "s", plugins=[file])
    assert again.computed_cells == (0 if status == "not-applicable" else 1), "what failed is tried again, what cannot apply is not"


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        ("doomed", "no such luck"),
        ("diverging", "nan"),
        ("lying", "have role CLEAN but were changed"),
        ("nowhere", "trigger.0.mask has values"),
    ],
)
def test_a_failed_victim_marks_its_cells_once_and_the_others_go_on(tmp_path: Path, write: Any, attack: str, said: str) -> None:
    summary = run(small(attacks=[attack, "badnets"]), tmp_path / "s", plugins=[write("doomed.py", FAILING_ATTACK)])
    ended = {(result.attack.name, result.defense_name): result for result in summary.results.values()}
    assert {status.status for (name, _), status in ended.items() if name == attack} == {"victim-failed"}
    assert said.lower() in (ended[attack, "fine-pruning"].error or "").lower()
    assert {status.status for (name, _), status in ended.items() if name != attack} == {"ok"}
    assert summary.exit_code == 1
    assert len(summary.failures) == 1
