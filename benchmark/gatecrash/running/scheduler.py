"""Which task next: the graph of victims, defenses and evaluations, worked off against the store.

                  ┌── features ──┐            (of the training set; for the defenses that need them)
                  │              ▼
    implant(victim) ──────► defend(cell) ──► evaluate(cell)
          │                                   ▲
          └──► evaluate(cell without defense) ┘     (its scores are the cell's `before`; needs the benign victim for the floor)

An attack's `prepare` comes before the victims that share what it makes. A node starts as soon as what it needs is there; of those that
could start, the one with which the run would last longest if it came last (`expected`). A failed victim marks its cells once.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gatecrash.records.timings import read_timings, save_timings
from gatecrash.running.expected import Expected
from gatecrash.running.graph import Graph
from gatecrash.running.inputs import Inputs
from gatecrash.running.nodes.evaluate import EvaluateNode
from gatecrash.running.nodes.node import Node, Work
from gatecrash.running.tasks.protocol import Failure

if TYPE_CHECKING:
    from gatecrash.planning.planned import PlannedGrid
    from gatecrash.running.ledger import Ledger
    from gatecrash.running.tasks.protocol import Executor, Finished

POLL = 0.2
"""Seconds between looks at what another driver on the same store is computing."""


class Scheduler:
    """Works a plan off. One instance per run."""

    def __init__(self, planned: PlannedGrid, ledger: Ledger) -> None:
        inputs = Inputs(planned, ledger.store, ledger.options)
        self._expected = Expected(planned.plan, planned.host, read_timings(ledger.store.root))
        self._work = Work(planned.plan, planned.host, ledger.store, ledger.options.rerun, Graph(), inputs, ledger, self._expected)
        self._graph = self._work.graph
        self._running: dict[str, Node] = {}
        self._elsewhere: list[Node] = []

    def find_work(self) -> bool:
        """Fill the graph with what the store does not hold; whether there is anything to do."""
        work = self._work
        todo = []
        for cell in work.plan.cells.values():
            if work.rerun == "all" or not work.ledger.is_made(cell):
                todo.append(cell)
            else:
                self._expected.found(cell, work.ledger.summary.results[cell.key].measures)
        out_of_reach = [cell for cell in todo if cell.victim.out_of_reach]
        for cell in todo:
            if not cell.victim.out_of_reach:
                EvaluateNode.needed(work, cell)
        victims = sum(node.function == "implant" for node in self._graph)
        work.ledger.display.run_started(work.plan, victims, len(todo))
        for cell in out_of_reach:
            work.ledger.cell_ended(cell, "not-applicable", Failure("not-applicable", cell.victim.out_of_reach), None, None)
        return len(todo) > len(out_of_reach)

    def work_off(self, executor: Executor) -> None:
        """Until every node is done or failed."""
        while self._graph:
            while len(self._running) < executor.capacity and (node := self._graph.pop()) is not None:
                self._start(node, executor)
            if not self._graph:
                break
            if self._running:
                finished = executor.next_finished(POLL if self._elsewhere else 3600.0)
                if finished is not None:
                    self._settle(finished)
                    self._stop_useless(executor)
            else:
                time.sleep(POLL)
            waiting, self._elsewhere = self._elsewhere, []
            for node in waiting:
                self._graph.push(node)

    def _start(self, node: Node, executor: Executor) -> None:
        if node.claims:
            if not self._work.store.claim(node.key):
                self._elsewhere.append(node)  # another driver computes it; look again later
                return
            if node.settled_elsewhere():
                self._work.store.release(node.key)
                return
        task = node.task()
        if task is None:
            return
        node.started = time.perf_counter()
        self._running[node.id] = node
        self._work.ledger.display.task_started(node.id, task.title)
        executor.submit(task)

    def _settle(self, finished: Finished) -> None:
        node, failure = self._running.pop(finished.id), finished.failure
        self._say_ended(node, failure.message if failure and failure.kind != "not-applicable" else None)
        if failure is None:
            node.succeed(finished.value)
        else:
            node.fail(failure)

    def _stop_useless(self, executor: Executor) -> None:
        """Stop the defenses whose cells have ended meanwhile: the cell without defense, which they are compared with, has failed."""
        for node in [node for node in self._running.values() if node.id not in self._graph]:
            executor.cancel(node.id)
            del self._running[node.id]
            self._say_ended(node, None)  # why is said of its cell

    def _say_ended(self, node: Node, failure: str | None) -> None:
        self._work.ledger.display.task_ended(node.id, node.title, failure, time.perf_counter() - node.started)

    def release(self) -> None:
        """Let other drivers have what this one did not finish, and know how long things took."""
        if self._expected.learned:
            save_timings(self._work.store.root, self._expected.timings)
        victims = self._work.plan.victims
        prepared = [victim.preparation for victim in victims.values() if victim.preparation is not None]
        for key in (*prepared, *victims, *self._work.plan.cells):
            self._work.store.release(key)
