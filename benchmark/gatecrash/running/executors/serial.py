"""The serial executor: one task at a time in this process. For debugging, and for machines without Ray.

It trusts its plugins: settings of the process are put in order around every task, but a function that a plugin patched stays patched, and
a plugin that kills the process kills the run (what was finished is in the store).
"""

from __future__ import annotations

from collections import deque

from gatecrash.host.host import Host
from gatecrash.running.tasks.protocol import Finished, Task, TaskReport
from gatecrash.running.witness.process import of_this_process


class SerialExecutor:
    """Runs a task inside `next_finished`."""

    capacity = 1

    def __init__(self, host: Host, *, threads: int, report: TaskReport) -> None:
        self._host, self._threads, self._report = host, threads, report
        self._queue: deque[Task] = deque()
        self._asked, self._files = of_this_process(), host.files

    def submit(self, task: Task) -> None:
        self._queue.append(task)

    def next_finished(self, timeout: float) -> Finished | None:
        from gatecrash.running.tasks.perform import perform
        from gatecrash.running.witness.asking import RemoteWitness

        if not self._queue:
            return None
        task = self._queue.popleft()
        witness = RemoteWitness(self._asked.ask, self._files, self._threads)
        return perform(task, self._host, self._threads, self._report, witness=witness)

    def cancel(self, task_id: str) -> None:
        self._queue = deque(task for task in self._queue if task.id != task_id)

    def close(self) -> None:
        self._queue.clear()
