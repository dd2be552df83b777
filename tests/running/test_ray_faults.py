"""What Ray makes of plugins that misbehave: one grid holds them all, beside a cell that must not notice."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatecrash.planning.grid import parse_grid
from gatecrash.records.result import Result
from gatecrash.records.store import Store
from gatecrash.records.summary import Summary
from gatecrash.running.options import RunOptions
from gatecrash.running.run import ray, run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

PLUGIN = """
import os, signal, sys, time
from pathlib import Path
import torch
from pydantic import Field
from gatecrash import *

class Fault(Defense):
    name = "fault"
    summary = "Misbehaves in the way that it is told to."
    needs = frozenset({Need.MODEL, Need.CLEAN_DATA})
    gives = frozenset({Give.CLASSIFIER})

    class Config(Config):
        kind: str = Field("nothing", description="what goes wrong")
        diary: str = Field("", description="file that gets one line per call")

    def defend(self, evidence):
        with open(self.config.diary, "a") as diary:
            diary.write(f"{self.config.kind} {os.getpid()}\\n")
        print(f"about to {self.config.kind}")
        print("and to complain", file=sys.stderr, flush=True)
        return getattr(self, self.config.kind)(evidence)

    def nothing(self, evidence):
        return Outcome(classifier=evidence.network)

    def raises(self, evidence):
        raise ValueError("the plugin is broken")

    def names_a_file_that_is_not_utf8(self, evidence):
        print("cannot read caf\\udce9")
        raise ValueError("cannot read caf\\udce9")

    def exits(self, evidence):
        sys.stdout.flush()
        os._exit(3)

    def is_killed(self, evidence):
        os.kill(os.getpid(), signal.SIGKILL)

    def crashes(self, evidence):
        import ctypes
        ctypes.string_at(0)

    def interrupts(self, evidence):
        raise KeyboardInterrupt

    def wants_all_memory(self, evidence):
        torch.empty(2**55)

    def hangs(self, evidence):
        while True:
            time.sleep(1)

    def hangs_without_letting_go(self, evidence):
        import re
        re.match("(a+)+$", "a" * 60 + "b")  # holds the interpreter lock for ages

    def gives_nan(self, evidence):
        network = evidence.network
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.fill_(float("nan"))
        return Outcome(classifier=network)

    def prints_megabytes(self, evidence):
        for _ in range(200):
            print("x" * 99_999)
        os.write(1, b"the last word")
        return Outcome(classifier=evidence.network)

    def overwrites_its_evidence(self, evidence):
        evidence.clean.images.zero_()
        evidence.clean.labels.zero_()
        with torch.no_grad():
            for parameter in evidence.network.parameters():
                parameter.zero_()
        return Outcome(classifier=evidence.network)

class WrongShape(Defense):
    name = "wrong-shape"
    summary = "Names three suspects, however many rows there are."
    needs = frozenset({Need.TRAINING_DATA})
    gives = frozenset({Give.SUSPECTS})

    def defend(self, evidence):
        return Outcome(suspects=torch.zeros(3, dtype=torch.bool))

class Overwrites(Attack):
    name = "overwrites"
    summary = "Writes into the training set that it is given."
    version = 1
    controls = "training"

    def poison(self, train, ctx):
        train.images[:, :, 0] = 255
        return Poisoned.untouched(train)

class HangingAttack(Attack):
    name = "hanging"
    summary = "Never ends."
    version = 1
    controls = "training"

    def poison(self, train, ctx):
        while True:
            time.sleep(1)

@hookimpl
def register_defenses(register):
    register(Fault)
    register(WrongShape)

@hookimpl
def register_attacks(register):
    register(HangingAttack)
    register(Overwrites)
"""

LIMIT = 40  # seconds of a cell: two that hang wait for it, the others must not meet it on a machine that is busy

KINDS = [
    "nothing",
    "raises",
    "names_a_file_that_is_not_utf8",
    "exits",
    "is_killed",
    "crashes",
    "interrupts",
    "wants_all_memory",
    "hangs",
    "hangs_without_letting_go",
    "gives_nan",
    "prints_megabytes",
    "overwrites_its_evidence",
]


class Ran:
    """The one run that the tests below look at."""

    def __init__(self, folder: Path) -> None:
        self.store, self.diary = folder / "store", folder / "diary"
        plugin = folder / "faults.py"
        plugin.write_text(PLUGIN)
        grid = parse_grid(
            {
                "name": "faults",
                "dataset": {"digits": {"limit": 200, "limit_test": 60}},
                "model": {"small-cnn": {"width": 4}},
                "recipe": {"preset": "tiny", "epochs": 3, "batch_size": 16},
                "attacks": ["none", "hanging", "overwrites"],
                "defenses": ["none", *({"fault": {"kind": kind, "diary": str(self.diary)}} for kind in KINDS), "wrong-shape"],
            }
        )
        only = {"attack": ["none"]}
        self.summary: Summary = run(grid, self.store, ray, plugins=[plugin], only=only, options=RunOptions(cell_time_limit=LIMIT))
        baseline = {"defense": ["none"]}
        self.victims: Summary = run(grid, self.store, ray, plugins=[plugin], only=baseline, options=RunOptions(victim_time_limit=LIMIT))

    def cell(self, kind: str) -> Result:
        found = [r for r in self.summary.results.values() if r.defense[0].config.get("kind") == kind]
        assert len(found) == 1
        return found[0]

    def calls(self, kind: str) -> int:
        return sum(line.split()[0] == kind for line in self.diary.read_text().splitlines())


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Ran:
    return Ran(tmp_path_factory.mktemp("faults"))


def log_of(result: Result) -> str:
    assert result.log is not None
    return Path(result.log).read_text()


def test_one_bad_cell_does_not_stop_the_others(ran: Ran) -> None:
    assert ran.cell("nothing").status == "ok"
    assert ran.summary.exit_code == 1
    assert len(ran.summary.results) == len(KINDS) + 2


def test_a_plugin_that_raises_fails_once_and_its_log_has_output_and_traceback(ran: Ran) -> None:
    result = ran.cell("raises")
    assert (result.status, result.error) == ("failed", "ValueError: the plugin is broken")
    assert ran.calls("raises") == 1
    log = log_of(result)
    assert "about to raises\n" in log
    assert "and to complain\n" in log
    assert "Traceback" in log
    assert any(result.log in line for line in ran.summary.failures if result.log)


def test_a_file_name_that_is_not_utf8_is_written_out_in_the_log_and_the_result(ran: Ran) -> None:
    result = ran.cell("names_a_file_that_is_not_utf8")
    assert (result.status, result.error) == ("failed", r"ValueError: cannot read caf\udce9")
    assert log_of(result).count(r"cannot read caf\udce9") >= 3, "printed, raised, and in the traceback"
    assert Store(ran.store).result(result.key) == result


@pytest.mark.parametrize("kind", ["exits", "is_killed", "crashes"])
def test_a_plugin_that_ends_its_worker_is_tried_twice_and_what_it_printed_is_kept(ran: Ran, kind: str) -> None:
    result = ran.cell(kind)
    assert (result.status, result.error) == ("failed", "its worker process died (in 2 attempts)")
    assert ran.calls(kind) == 2
    assert "and to complain\n" in log_of(result)


def test_a_crash_in_native_code_leaves_its_stack_in_the_log(ran: Ran) -> None:
    assert "string_at" in log_of(ran.cell("crashes"))


def test_a_plugin_that_interrupts_itself_fails_its_own_cell(ran: Ran) -> None:
    assert ran.cell("interrupts").status == "failed"
    assert not ran.summary.interrupted


def test_memory_that_cannot_be_had_is_the_plugins_error(ran: Ran) -> None:
    result = ran.cell("wants_all_memory")
    assert result.status == "failed"
    assert "memory" in (result.error or "")
    assert ran.calls("wants_all_memory") == 1


@pytest.mark.parametrize("kind", ["hangs", "hangs_without_letting_go"])
def test_a_cell_over_its_time_is_stopped_and_its_log_says_where_it_hung(ran: Ran, kind: str) -> None:
    result = ran.cell(kind)
    assert (result.status, result.error) == ("failed", f"took longer than the time limit of {LIMIT} s")
    assert ran.calls(kind) == 1
    log = log_of(result)
    assert "timeout: took longer" in log
    assert f"in {kind}\n" in log


def test_a_wrong_shape_and_nan_are_contract_errors(ran: Ran) -> None:
    (shape,) = [r for r in ran.summary.results.values() if r.defense_name == "wrong-shape"]
    assert shape.status == "failed"
    assert "suspects" in (shape.error or "")
    assert ran.cell("gives_nan").status == "failed"
    assert "NaN" in (ran.cell("gives_nan").error or "")


def test_megabytes_of_output_are_cut_to_their_beginning_and_end(ran: Ran) -> None:
    assert ran.cell("prints_megabytes").status == "ok"
    log = (ran.store / "logs" / f"defend-{ran.cell('prints_megabytes').key}.log").read_text()
    assert len(log) < 2**20 + 1000
    assert "about to prints_megabytes" in log
    assert "bytes left out" in log
    assert log.rstrip().endswith("the last word")


def test_overwriting_the_evidence_spoils_the_own_cell_only(ran: Ran) -> None:
    assert ran.cell("overwrites_its_evidence").status == "ok"
    assert ran.cell("overwrites_its_evidence").measures.acc < 0.3
    for other in ("nothing", "prints_megabytes"):
        assert ran.cell(other).measures.acc == ran.cell(other).measures.acc_before > 0.3


def test_a_victim_over_its_time_marks_its_cells_once(ran: Ran) -> None:
    (result,) = [r for r in ran.victims.results.values() if r.attack.name == "hanging"]
    assert result.status == "victim-failed"
    assert result.error == f"took longer than the time limit of {LIMIT} s"
    assert result.log is not None
    assert "in poison\n" in log_of(result)


def test_an_attack_that_writes_into_the_training_set_is_found_out(ran: Ran) -> None:
    (result,) = [r for r in ran.victims.results.values() if r.attack.name == "overwrites"]
    assert result.status == "victim-failed"
    assert "role CLEAN but were changed" in (result.error or "")


def test_cells_of_a_finished_run_are_not_computed_again(ran: Ran) -> None:
    kept = {r.key: r for r in ran.summary.results.values() if r.status == "ok"}
    assert kept
    again = {key: result for key, result in ran.victims.results.items() if key in kept}
    assert all(again[key].provenance.date == kept[key].provenance.date for key in again)
