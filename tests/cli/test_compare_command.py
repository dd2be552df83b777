"""`gatecrash compare`: the paired difference of two defenses."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gatecrash.records.result import Result
from gatecrash.records.stage import Stage
from gatecrash.records.store import Store
from support.cells import cell, undefended

Gatecrash = Callable[..., Any]


def store_of(results: list[Result], root: Path) -> Path:
    store = Store(root).open()
    for index, result in enumerate(results):
        store.save_result(result.model_copy(update={"key": f"{index:040x}"}))
    return root


def test_compare_tells_what_the_paired_difference_is(gatecrash: Gatecrash, tmp_path: Path) -> None:
    results = undefended()
    results += [cell("badnets", "good", seed, asr=0.01 * seed) for seed in range(3)]
    results += [cell("badnets", "bad", seed, asr=0.5 + 0.02 * seed) for seed in range(3)]
    store = store_of(results, tmp_path / "s")
    said = gatecrash("compare", "good", "bad", "--store", store).out
    assert re.search(r"DER +25\.5 \[24\.3, 26\.7\] +3 +3 +good is better", said)
    assert re.search(r"ASR +-51\.0 \[-53\.5, -48\.5\] +3 +3 +good is better", said)
    assert re.search(r"ACC +0\.0 \[0\.0, 0\.0\] +3 +3 +includes 0", said)
    wrong = gatecrash("compare", "good", "bat", "--store", store)
    assert (wrong.code, wrong.err) == (2, "error: no results of a defense 'bat'; did you mean 'bad'?\n")


def test_compare_says_that_one_seed_is_no_comparison(gatecrash: Gatecrash, tmp_path: Path) -> None:
    results = [*undefended(1), cell("badnets", "a", 0, asr=0.0), cell("badnets", "b", 0, asr=0.9)]
    said = gatecrash("compare", "a", "b", "--store", store_of(results, tmp_path / "s")).out
    assert re.search(r"DER +45\.0 +1 +1 +none: needs two seeds or more", said)


def test_compare_names_the_variants_of_a_swept_defense(gatecrash: Gatecrash, tmp_path: Path) -> None:
    results = [*undefended(), *(cell("badnets", "d", 0, asr=0.1, defense=[Stage(name="d", config={"lr": lr})]) for lr in (0.1, 0.2))]
    wrong = gatecrash("compare", "d", "none", "--store", store_of(results, tmp_path / "s"))
    assert wrong.err == "error: no results of a defense 'd'; give one of: d (lr=0.1); d (lr=0.2)\n"


def test_a_variant_is_named_by_its_options_where_a_table_does_not_show_them(gatecrash: Gatecrash, tmp_path: Path) -> None:
    stages = [Stage(name="d", config={"lr": lr, "n": 1}) for lr in (0.1, 0.2)]
    results = [*undefended(), *(cell("badnets", "d", seed, asr=0.1, defense=[stage]) for stage in stages for seed in range(3))]
    said = gatecrash("compare", "d(lr=0.1, n=1)", "d(lr=0.2)", "--store", store_of(results, tmp_path / "s")).out
    assert ": d (lr=0.1) - d (lr=0.2)\n" in said
