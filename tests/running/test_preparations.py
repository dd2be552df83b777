"""What an attack prepares is made once for all its victims, kept in the store, and the same on Ray; so are second data sets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gatecrash.records.result import Result
from gatecrash.records.store import Store
from support.paths import ROOT

PLUGIN = ROOT / "tests" / "support" / "preparing_plugin.py"
SWEEP = {"encoding": {"poison_rate": [0.1, 0.2], "strength": [0.5, 0.25]}}
QUICK = {"preset": "tiny", "epochs": 2, "batch_size": 16}
COSTS = {"seconds_victim", "seconds_defense", "peak_memory_mb"}


@pytest.fixture
def grid(small_grid: Callable[..., Path]) -> Callable[..., Path]:
    def write(**fields: Any) -> Path:
        return small_grid(**{"recipe": QUICK, "model": {"small-cnn": {"width": 4}}, "attacks": [SWEEP], "defenses": ["none"], **fields})

    return write


def preparations(store: Path) -> dict[str, float]:
    """When each was written, by folder."""
    return {path.parent.name: path.stat().st_mtime_ns for path in store.glob("preparations/*/*/record.json")}


def measured(store: Path) -> str:
    results = sorted(Store(store).results(), key=lambda result: result.key)
    return json.dumps([[result.key, result.weights, result.tables, result.measures.model_dump(exclude=COSTS)] for result in results])


def results(store: Path, attack: str = "encoding") -> list[Result]:
    return [result for result in Store(store).results() if result.attack.name == attack]


def test_one_preparation_serves_all_values_of_the_options_it_does_not_depend_on(
    gatecrash: Callable[..., Any], grid: Callable[..., Path], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    ran = gatecrash("run", grid(), "--store", store, "--plugins", PLUGIN)
    assert ran.code == 0, ran.err
    assert "done  preparation of encoding (seed 0)" in ran.err
    made = preparations(store)
    assert (len(results(store)), len(made)) == (4, 2)  # one for each strength

    more = gatecrash("run", grid(attacks=[{"encoding": {"poison_rate": 0.3}}]), "--store", store, "--plugins", PLUGIN)
    assert more.code == 0, more.err
    assert preparations(store) == made  # the next run finds it
    record = json.loads(next(store.glob("preparations/*/*/record.json")).read_text())
    assert set(record["attack"]["config"]) == {"strength", "public", "peeks"}
    assert record["attack"]["content"]["public"].startswith("dataset:")


def test_another_seed_and_another_model_have_preparations_of_their_own(
    gatecrash: Callable[..., Any], grid: Callable[..., Path], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    for fields in ({"seeds": [0, 1]}, {"model": {"small-cnn": {"width": 5}}}):
        ran = gatecrash("run", grid(attacks=["encoding"], **fields), "--store", store, "--plugins", PLUGIN)
        assert ran.code == 0, ran.err
    assert len(preparations(store)) == 3


def test_an_attack_that_needs_the_benign_victim_has_it_when_it_prepares(
    gatecrash: Callable[..., Any], grid: Callable[..., Path], write: Callable[[str, str], Path], tmp_path: Path
) -> None:
    text = PLUGIN.read_text(encoding="utf-8").replace("prepare_options =", "needs_benign = True; prepare_options =")
    plugin = write("needy.py", text.replace("network = ctx.train(train)", "network = ctx.benign"))
    ran = gatecrash("run", grid(attacks=["encoding"]), "--store", tmp_path / "store", "--plugins", plugin)
    assert ran.code == 0, ran.err
    assert len(preparations(tmp_path / "store")) == 1


def test_a_rerun_of_everything_prepares_again_and_gets_the_same(
    gatecrash: Callable[..., Any], grid: Callable[..., Path], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    arguments = ("run", grid(attacks=["encoding"]), "--store", store, "--plugins", PLUGIN)
    assert gatecrash(*arguments).code == 0
    before, (weights,) = preparations(store), store.glob("preparations/*/*/weights.safetensors")
    content = weights.read_bytes()
    assert gatecrash(*arguments, "--rerun", "all").code == 0
    assert preparations(store).keys() == before.keys()
    assert preparations(store) != before
    assert weights.read_bytes() == content


def test_a_damaged_preparation_is_made_again(gatecrash: Callable[..., Any], grid: Callable[..., Path], tmp_path: Path) -> None:
    store = tmp_path / "store"
    arguments = ("--store", store, "--plugins", PLUGIN)
    assert gatecrash("run", grid(attacks=["encoding"]), *arguments).code == 0
    (weights,) = store.glob("preparations/*/*/weights.safetensors")
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    ran = gatecrash("run", grid(attacks=[{"encoding": {"poison_rate": 0.2}}]), *arguments)
    assert ran.code == 0, ran.err
    assert weights.read_bytes() == before
    assert len(list((store / "damaged").iterdir())) == 1


def test_a_failed_preparation_is_named_once_and_its_victims_fail(
    gatecrash: Callable[..., Any], grid: Callable[..., Path], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    broken = {"encoding": {"poison_rate": [0.1, 0.2], "strength": -1.0}}
    ran = gatecrash("run", grid(attacks=[broken, "badnets"]), "--store", store, "--plugins", PLUGIN)
    assert ran.code == 1
    assert ran.err.count("failed: preparation of encoding (seed 0): RuntimeError: no encoder below zero") == 1
    assert {(result.status, result.error) for result in results(store)} == {
        ("victim-failed", "what its attack prepares failed: RuntimeError: no encoder below zero")
    }
    assert [result.status for result in results(store, "badnets")] == ["ok"]


def test_prepare_cannot_read_an_option_that_it_does_not_declare(
    gatecrash: Callable[..., Any], grid: Callable[..., Path], tmp_path: Path
) -> None:
    ran = gatecrash("run", grid(attacks=[{"encoding": {"peeks": True}}]), "--store", tmp_path / "store", "--plugins", PLUGIN)
    assert ran.code == 1
    assert "prepare() read the option 'poison_rate', which is not among the attack's prepare_options" in ran.err


def test_a_second_data_set_is_given_in_the_shape_of_the_grids_images_and_its_fingerprint_is_in_the_key(
    gatecrash: Callable[..., Any], grid: Callable[..., Path], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    defenses = ["none", "comparing", {"comparing": {"public": ["colours", {"colours": {"limit": 10}}]}}]
    ran = gatecrash("run", grid(attacks=["none"], defenses=defenses), "--store", store, "--plugins", PLUGIN)
    assert ran.code == 0, ran.err
    compared = [result for result in Store(store).results() if result.defense[0].name == "comparing"]
    tables = sorted(([row["images"], row["shape"]] for result in compared for row in result.tables["public"]), key=str)
    assert tables == [[10, "1x16x16"], [60, "1x16x16"]]
    named = {result.defense[0].content.get("public") for result in compared}
    assert len(named) == 3  # none, all of it, and ten images


@pytest.mark.parametrize(
    ("attacks", "defenses", "message"),
    [
        ([{"encoding": {"public": "colors"}}], [], "encoding: public: unknown dataset 'colors'; did you mean 'colours'?"),
        (
            [{"encoding": {"public": {"colours": {"limits": 3}}}}],
            [],
            "encoding: public.colours.limits: unknown field; did you mean 'limit'?",
        ),
        ([{"encoding": {"public": {"colours": {"limit": 300}}}}], [], "dataset colours: limit 300 is larger than its 60 training images"),
        ([{"encoding": {"public": 3}}], [], "attacks[0].encoding.public: a data set is its name, or {name: {option: value}} (got 3)"),
        ([{"encoding": {"public": {"digits": {"limit": 100}}}}], [], "encoding: public: digits is the data set that is attacked"),
        (
            [],
            [{"comparing": {"public": {"digits": {"limit": 100}}}}],
            "public: digits is the data set that the defense is judged on",
        ),
    ],
)
def test_a_second_data_set_that_cannot_be_had_is_one_line(
    gatecrash: Callable[..., Any], grid: Callable[..., Path], tmp_path: Path, attacks: list[Any], defenses: list[Any], message: str
) -> None:
    file = grid(attacks=attacks or ["none"], defenses=defenses or ["none"])
    ran = gatecrash("run", file, "--store", tmp_path / "store", "--plugins", PLUGIN)
    assert ran.code == 2
    assert message in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.ray
@pytest.mark.slow
def test_ray_prepares_once_too_and_gives_the_same_numbers(
    local_ray: None, gatecrash: Callable[..., Any], grid: Callable[..., Path], tmp_path: Path
) -> None:
    file = grid(attacks=[{"encoding": {"poison_rate": [0.1, 0.2]}}], defenses=["none", {"comparing": {"public": "colours"}}])
    stores = {executor: tmp_path / executor for executor in ("serial", "ray")}
    for executor, store in stores.items():
        ran = gatecrash("run", file, "--store", store, "--plugins", PLUGIN, "--executor", executor)
        assert ran.code == 0, ran.err
        assert ran.err.count("done  preparation of encoding") == 1
    assert measured(stores["serial"]) == measured(stores["ray"])
    assert preparations(stores["serial"]).keys() == preparations(stores["ray"]).keys()
