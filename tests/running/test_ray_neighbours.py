"""On Ray, a plugin given by `--plugins` has a process of its own: it cannot spoil other cells even by patching torch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gatecrash.host.host import Host
from gatecrash.running.options import RunOptions
from gatecrash.running.run import ray, run, serial
from gatecrash.running.tasks.protocol import Finished, TaskReport
from support.vandals import honest, quiet_grid, write_plugins


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_plugins(tmp_path_factory.mktemp("plugins"))


class Recording:
    """Ray's executor; remembers which process each task ran in."""

    def __init__(self) -> None:
        self.pids: dict[str, int] = {}

    def __call__(self, host: Host, options: RunOptions, report: TaskReport, logs: Path) -> Any:
        executor: Any = ray(host, options, report, logs)
        end = executor._ended

        def ended(running: Any, finished: Finished, printed: str) -> Finished:
            while running.location is None:  # its report may come after its result
                executor._listen(patience=1.0)
            self.pids[finished.id] = running.location.pid
            return end(running, finished, printed)

        executor._ended = ended
        return executor


@pytest.fixture(scope="module")
def ran(local_ray: None, files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A quiet grid, the same beside vandals that patch torch, and the processes of the latter's tasks."""
    folder = tmp_path_factory.mktemp("ray")
    alone = run(quiet_grid(), folder / "alone", serial)
    vandal = {"vandal": {"store": str(folder / "beside"), "patches": True}}
    recording = Recording()
    only = {"attack": ["vandal", "badnets"]}
    beside = run(quiet_grid([vandal], [vandal]), folder / "beside", recording, plugins=[files["vandals"], files["witness"]], only=only)
    return alone, beside, recording.pids


@pytest.mark.ray
@pytest.mark.timeout(900)
class TestRay:
    def test_other_cells_keep_their_numbers_also_when_torch_is_patched(self, ran: Any) -> None:
        alone, beside, _ = ran
        compared = honest(beside)
        assert len(compared) == 2
        assert compared == {key: value for key, value in honest(alone).items() if key in compared}

    def test_tasks_of_a_plugins_file_have_a_process_each_and_the_others_share_theirs(self, ran: Any) -> None:
        _, beside, pids = ran
        foreign = {f"implant:{victim.key}" for victim in beside.plan.victims.values() if victim.attack.name == "vandal"}
        foreign |= {f"defend:{cell.key}" for cell in beside.plan.cells.values() if cell.defense[0].name == "vandal"}
        foreign &= pids.keys()  # a vandal's own training may fail of what it does
        assert len(foreign) >= 2
        times = Counter(pids.values())
        assert all(times[pids[task]] == 1 for task in foreign)
        assert len({pids[task] for task in pids.keys() - foreign}) < len(pids) - len(foreign)

    def test_with_isolate_every_task_has_a_process_of_its_own(self, local_ray: None, tmp_path: Path) -> None:
        recording = Recording()
        only = {"attack": ["none"], "defense": ["none"]}
        summary = run(quiet_grid(), tmp_path, recording, only=only, options=RunOptions(isolate=True))
        assert summary.exit_code == 0, summary.failures
        assert len(recording.pids) == len(set(recording.pids.values())) == 2
