"""What a plugin file takes from its own folder is a part of it: of its keys, of its name, and of what travels to workers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gatecrash.errors import UserError
from gatecrash.host.loading import load_plugins
from gatecrash.host.plugin_file import read_plugin_file
from gatecrash.planning.grid import parse_grid
from gatecrash.running.executors import plugin_files
from gatecrash.running.options import RunOptions
from gatecrash.running.run import run
from support.grids import SMALL_GRID
from support.plugin_files import attack_file

Write = Callable[[str, str], Path]


def taken(file: Path) -> list[str]:
    return [name for name, _ in read_plugin_file(file).beside]


def test_a_file_on_its_own_is_known_by_its_bytes(write: Write) -> None:
    write("unrelated.py", "x = 1")
    file = write("mine.py", attack_file(imports="import math, torch"))
    assert load_plugins([file]).get("attack", "mine").content == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("imports", "expected"),
    [
        ("import _helper", ["_helper.py"]),
        ("from _helper import value", ["_helper.py"]),
        ("from . import _helper", ["_helper.py"]),
        ("from ._helper import value", ["_helper.py"]),
        ("def later():\n    import _helper", ["_helper.py"]),
        ("import outer", ["_helper.py", "outer.py"]),
        ("import package.part", ["package/__init__.py", "package/part.py", "package/table.csv"]),
        ("from package import part", ["package/__init__.py", "package/part.py", "package/table.csv"]),
        ("import plain.part", ["plain/part.py"]),
        ("from pathlib import Path\nHERE = Path(__file__).parent\nIMAGE = HERE / 'data' / 'x.png'", ["data/x.png"]),
        ("import os\nFILE = os.path.join(os.path.dirname(__file__), 'data/x.png')", ["data/x.png"]),
        ("from pathlib import Path\nFILE = Path(__file__).with_suffix('.npy')", ["mine.npy"]),
        ("from pathlib import Path\nDATA = Path(__file__).parent / 'data'\nFILE = str(DATA.joinpath('x.png'))", ["data/x.png"]),
        ("OUT = open('written.csv', 'a')", []),  # below the working directory, not beside the file
        ("import random", []),  # of Python, whatever lies beside
    ],
)
def test_what_a_file_takes_along(write: Write, imports: str, expected: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    write("_helper.py", "value = 1")
    write("outer.py", "import _helper")
    write("package/__init__.py", "")
    write("package/part.py", "value = 2")
    write("package/table.csv", "1,2")
    write("plain/part.py", "value = 3")
    write("random.py", "raise RuntimeError('not this one')")
    write("written.csv", "")
    for name in ("data/x.png", "mine.npy", "other.png"):
        write(name, "data")
    file = write("mine.py", attack_file(imports=imports))
    assert taken(file) == expected
    host = load_plugins([file], installed=False)
    assert host.problems == []
    before = host.get("attack", "mine").content
    for name in expected:
        (tmp_path / name).write_text((tmp_path / name).read_text() + "\n")
        assert load_plugins([file], installed=False).get("attack", "mine").content != before


def test_a_changed_helper_is_another_module_in_the_same_process(write: Write) -> None:
    file = write(
        "mine.py", attack_file(summary='" + value + part.value + "', imports="from _helper import value\nimport package.part as part")
    )
    write("package/__init__.py", "from . import part")
    write("package/part.py", "value = '!'")
    for said in ("first", "second"):
        write("_helper.py", f"value = {said!r}")
        assert load_plugins([file], installed=False).get("attack", "mine").cls.summary == f"{said}!"


def test_helpers_of_one_name_in_two_folders_do_not_meet(write: Write) -> None:
    files = []
    for name in ("one", "two"):
        write(f"{name}/_helper.py", f"NAME = {name!r}")
        text = attack_file(imports="import _helper").replace('"mine"', "_helper.NAME")
        files.append(write(f"{name}/plugin.py", text))
    host = load_plugins(files, installed=False)
    assert host.problems == []
    assert host.get("attack", "one").content != host.get("attack", "two").content


def test_the_file_and_its_helpers_are_the_same_modules_on_another_machine(write: Write) -> None:
    write("_helper.py", "class Thing: pass")
    write("data/x.txt", "seven")
    imports = "from pathlib import Path\nfrom _helper import Thing\nDATA = (Path(__file__).parent / 'data' / 'x.txt').read_text()"
    here = load_plugins([write("mine.py", attack_file(summary='" + DATA + Thing.__module__ + "', imports=imports))], installed=False)
    there = plugin_files.host_with(plugin_files.among(tuple(here.files), [file.content for file in here.files]))
    one, other = here.get("attack", "mine"), there.get("attack", "mine")
    assert one.content == other.content
    assert one.cls.summary == other.cls.summary
    assert one.cls.summary.startswith("seven")


def test_a_helper_that_is_missing_or_broken_is_named(write: Write) -> None:
    write("_helper.py", "raise ValueError('oops')")
    missing, broken = (
        write("missing.py", attack_file(imports="import _no_helper")),
        write("broken.py", attack_file(imports="import _helper")),
    )
    said = [problem.message for problem in load_plugins([missing, broken], installed=False).problems]
    assert said == ["cannot be imported: ModuleNotFoundError: No module named '_no_helper'", "cannot be imported: ValueError: oops"]


def test_big_data_beside_a_file_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatecrash.host.plugin_file.LIMIT", 100)
    write("big.npy", "x" * 101)
    file = write("mine.py", attack_file(imports="from pathlib import Path\nBIG = Path(__file__).with_name('big.npy')"))
    with pytest.raises(UserError, match=r"mine.py takes along more than .* give big files by a `gatecrash.File` option"):
        read_plugin_file(file)
    (problem,) = load_plugins([file], installed=False).problems
    assert "takes along" in problem.message


HELPER = """
import torch
from gatecrash import Trigger

class Corner(Trigger):
    def forward(self, images):
        stamped = images.clone()
        stamped[..., :3, :3] = VALUE
        return stamped
"""
PLUGIN = """
from _corner import Corner
from gatecrash import Attack, PoisonConfig, TriggerAttack, hookimpl

class Mine(TriggerAttack):
    name, summary = "mine", "x"

    class Config(PoisonConfig):
        "No further options."

    def trigger(self, shape):
        return Corner()

@hookimpl
def register_attacks(register):
    register(Mine)
"""
GRID = {**SMALL_GRID, "attacks": ["mine"], "defenses": ["none"]}


@pytest.mark.parametrize("executor", ["serial", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_grid_with_a_trigger_from_a_helper_is_computed_again_when_the_helper_changes(
    executor: Any, write: Write, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if executor == "ray":
        request.getfixturevalue("local_ray")
    plugin = write("plugin.py", PLUGIN)
    victims, rates = [], []
    for value in (255, 255, 0):  # the digits' corner is 0 already: the last trigger changes nothing
        write("_corner.py", HELPER.replace("VALUE", str(value)))
        summary = run(parse_grid(GRID), tmp_path / "store", executor, plugins=[plugin], options=RunOptions())
        assert summary.exit_code == 0, summary.failures
        victims.append(summary.computed_victims)
        rates += [result.measures.asr for result in summary.results.values() if result.attack.name == "mine"]
    assert victims == [2, 0, 1]  # the benign victim is the same
    assert rates[0] == rates[1]
    assert rates[2] < 0.5 < rates[0]
