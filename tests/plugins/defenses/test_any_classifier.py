"""Neural Cleanse in a grid, on victims and in chains whose classifier is no `gatecrash.Network`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

PLUGINS = """
    import gatecrash

    class Doubtful(gatecrash.Classifier):
        '''Half of another classifier's logits.'''

        def __init__(self, inner):
            super().__init__()
            self.inner, self.num_classes = inner, inner.num_classes

        def config(self):
            return {"inner": self.inner}

        def forward(self, images):
            return self.inner(images) / 2

    class Wrapped(gatecrash.TriggerAttack):
        name, summary = "wrapped", "a patch; the victim is no Network"

        def trigger(self, shape):
            pattern, mask = gatecrash.place_patch(shape, *gatecrash.named_patch("white", shape[0], 3), "bottom-right", 0)
            return gatecrash.Stamp(shape, 1.0, pattern, mask)

        def implant(self, train, ctx):
            made = super().implant(train, ctx)
            return gatecrash.Implant(made.poisoned, Doubtful(made.classifier))

    class Wrapping(gatecrash.Defense):
        name, summary = "wrapping", "hands back a classifier that is no Network"
        needs, gives = frozenset({gatecrash.Need.MODEL}), frozenset({gatecrash.Give.CLASSIFIER})

        def defend(self, evidence):
            return gatecrash.Outcome(classifier=Doubtful(evidence.classifier).eval())

    @gatecrash.hookimpl
    def register_attacks(register):
        register(Wrapped)

    @gatecrash.hookimpl
    def register_defenses(register):
        register(Wrapping)
"""
SEARCH = {"searches": 1, "rounds": 2, "anomaly": 0.01, "success": 0.01}
"""So short that little is found, and so strict that something is accused all the same."""


def test_neural_cleanse_takes_any_classifier_as_victim_and_in_a_chain(
    gatecrash: Callable[..., Any], small_grid: Callable[..., Path], write: Callable[[str, str], Path], tmp_path: Path
) -> None:
    cleanse, rejecting = {"neural-cleanse": SEARCH | {"epochs": 1}}, {"neural-cleanse-filter": SEARCH}
    grid = small_grid(attacks=["none", "wrapped"], defenses=["none", cleanse, {"chain": ["wrapping", cleanse]}, rejecting])
    called = gatecrash("run", grid, "--store", tmp_path / "s", "--plugins", write("wrapped.py", PLUGINS), "--seeds", "0")
    assert called.code == 0, called.err
    rows = json.loads(gatecrash("results", "--store", tmp_path / "s", "--format", "json").out)
    found = {(row["attack"], row["defense"]): row for row in rows}
    for attack in ("none", "wrapped"):
        for defense in ("neural-cleanse", "wrapping + neural-cleanse"):
            row = found[attack, defense]
            assert row["status"] == "ok", row["error"]
            assert row["verdict"] is True
            assert row["acc"] is not None
    assert found["none", "neural-cleanse-filter"]["status"] == "ok"
    refused = found["wrapped", "neural-cleanse-filter"]
    assert refused["status"] == "not-applicable"
    assert "Doubtful" in refused["error"]
