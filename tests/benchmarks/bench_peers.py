"""Other tools beside Gatecrash: seconds and results of both (run with `make bench-peers`; a plain pytest run skips it).

`make bench-peers BACKDOORBENCH=FOLDER ART=FOLDER PEERS_JSON=FILE`. None of the tools is needed otherwise; a tool that is not here is
skipped, and its line says so. How to read the figures: docs/peers.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from bench_defenses import archive, unpacked
from peers import clustering, perturbation, training
from peers.record import Comparison, as_json, ratios
from peers.setting import Setting, make_setting
from peers.tools import ART, BACKDOORBENCH, Tool
from peers.turns import Side, in_turns, own_processes

ROUNDS = 1


@dataclass(frozen=True)
class Peer:
    """`sides` are what takes turns; `tool` is what they need besides Gatecrash."""

    what: str
    equal: str
    sides: Callable[[Setting], list[Side]]
    tool: Tool | None = None


PEERS = [
    Peer("training beside the usual pipeline", training.EQUAL, training.beside_the_usual_pipeline),
    Peer("training beside BackdoorBench", training.EQUAL, training.beside_backdoorbench, BACKDOORBENCH),
    Peer("Activation Clustering", clustering.EQUAL, clustering.beside_art, ART),
    Peer("projected gradient descent", perturbation.EQUAL, perturbation.beside_art, ART),
]


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return make_setting(unpacked(archive(), tmp_path_factory.mktemp("cifar10")))


@pytest.fixture(scope="module")
def found() -> Iterator[list[Comparison]]:
    """Filled by the comparisons; written at the end to the file that PEERS_JSON names."""
    comparisons: list[Comparison] = []
    yield comparisons
    if (file := os.environ.get("PEERS_JSON")) and comparisons:
        versions = {tool.name: tool.version() for tool in {peer.tool for peer in PEERS if peer.tool} if not tool.missing()}
        Path(file).write_text(as_json(comparisons, versions), encoding="utf-8")


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.what)
def test_beside(peer: Peer, request: pytest.FixtureRequest, found: list[Comparison]) -> None:
    if peer.tool and (reason := peer.tool.missing()):
        print(f"\n{peer.what}: skipped: {reason}", end="", flush=True)  # pytest -q would not say why
        pytest.skip(reason)
    sides = peer.sides(request.getfixturevalue("setting"))
    with own_processes(sides) as run:
        taken = in_turns(sides, ROUNDS, run)
    found.append(Comparison(peer.what, peer.equal, taken))
    print(f"\n{peer.what}: {peer.equal}", end="")
    for side in taken:
        figures = ", ".join(f"{name} {number:.4g}" for name, number in side.figures.items())
        print(f"\n  {side.name:<40} {side.least:>8.2f} s of CPU, least of {ROUNDS}; {figures}", end="")
    for other, ours, ratio in ratios(taken):
        print(f"\n  {ours} is {ratio:.2f} times as fast as {other}", end="", flush=True)
