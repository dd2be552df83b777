"""Other tools beside Gatecrash: seconds and results of both (run with `make bench-peers`; a plain pytest run skips it).

`make bench-peers BACKDOORBENCH=FOLDER ART=FOLDER PEERS_JSON=FILE`. None of the tools is needed otherwise; one that is not here is left
out, and a line says so. What is compared and how to read the figures: docs/peers.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from bench_defenses import archive, unpacked
from peers import clustering, perturbation, training
from peers.record import OURS, compared, keep, table
from peers.setting import Setting, make_setting
from peers.turns import Side, available, in_turns, own_processes

ROUNDS = int(os.environ.get("PEERS_ROUNDS", "3"))


@dataclass(frozen=True)
class Contest:
    """`sides` are ours and the peers; `equal` is what is the same for all of them."""

    what: str
    equal: str
    sides: Callable[[Setting], list[Side]]


CONTESTS = [
    Contest("training", training.EQUAL, training.sides),
    Contest("Activation Clustering", clustering.EQUAL, clustering.sides),
    Contest("projected gradient descent", perturbation.EQUAL, perturbation.sides),
]


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return make_setting(unpacked(archive(), tmp_path_factory.mktemp("cifar10")))


@pytest.mark.parametrize("contest", CONTESTS, ids=lambda contest: contest.what)
def test_contest(contest: Contest, setting: Setting) -> None:
    sides, reasons = available(contest.sides(setting))
    print("".join(f"\n{contest.what}: left out: {reason}" for reason in reasons), end="", flush=True)  # pytest -q would not say why
    if all(side.name.startswith(OURS) for side in sides):
        pytest.skip("; ".join(reasons))
    with own_processes(sides) as run:
        taken = in_turns(sides, ROUNDS, run)
    peers = {side.tool.name: side.tool.version() for side in sides if side.tool}
    found = compared(contest.what, contest.equal, taken, peers)
    print(f"\n{found.what}, {ROUNDS} turn(s) each: {found.equal}\n\n{table([found])}", end="", flush=True)
    if file := os.environ.get("PEERS_JSON"):
        keep(found, Path(file))
