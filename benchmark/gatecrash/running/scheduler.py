"""Which task next: the graph of victims, defenses and evaluations, worked off against the store.

                  ┌── features ──┐            (of the training set; for the defenses that need them)
                  │              ▼
    implant(victim) ──────► defend(cell) ──► evaluate(cell)
          │                                   ▲
          └──► evaluate(cell without defense) ┘     (its scores are the cell's `before`; needs the benign victim for the floor)

A node starts as soon as what it needs is there, the longest first. A failed victim marks its cells once.
"""

from __future__ import annotations

import heapq
import itertools
import json
import logging
import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from gatecrash.contracts.evidence import Need
from gatecrash.host.host import PluginKind
from gatecrash.host.traits import defense_traits
from gatecrash.records.measures import Measures
from gatecrash.records.plan import NONE, Cell, Victim
from gatecrash.records.provenance import Provenance
from gatecrash.records.result import Result, Status
from gatecrash.records.store import Store
from gatecrash.records.victim import StoredVictim, VictimRecord
from gatecrash.running.caches import Recent, WhileNeeded
from gatecrash.running.tasks.defender import DefenderInput as DefenderView
from gatecrash.running.tasks.defender import DefenseOutput, defender_input
from gatecrash.running.tasks.evaluate import Evaluation
from gatecrash.running.tasks.features import Features
from gatecrash.running.tasks.ground import Ground, TrainPart
from gatecrash.running.tasks.protocol import Artifact, Executor, Failure, Finished, Task

if TYPE_CHECKING:
    from gatecrash.contracts.data import ImageSet
    from gatecrash.planning.planned import PlannedGrid
    from gatecrash.records.summary import Summary
    from gatecrash.running.display import Display
    from gatecrash.running.observers import Observers
    from gatecrash.running.options import RunOptions


log = logging.getLogger("gatecrash")


NodeKind = Literal["implant", "features", "defend", "evaluate"]


MENDED = 3
"""How often a run makes a victim again that was damaged in the store meanwhile."""


POLL = 0.2
"""Seconds between looks at what another driver on the same store is computing."""


@dataclass
class Node:
    """A task to be: `waits` are the nodes it still needs."""

    id: str
    kind: NodeKind
    key: str
    cost: float
    waits: set[str] = field(default_factory=set)
    started: float = 0.0


class Scheduler:
    """Works a plan off. One instance per run."""

    def __init__(
        self, prepare: PlannedGrid, store: Store, options: RunOptions, summary: Summary, view: Display, observers: Observers
    ) -> None:
        self.plan, self.host, self.store, self.options = prepare.plan, prepare.host, store, options
        self.summary, self.view, self.observers = summary, view, observers
        self.ground = Ground(self.plan.dataset.name, self.plan.model, self.plan.recipe, self.plan.holdout, options.device, options.threads)
        self._prepared = prepare.prepared
        self._data: tuple[TrainPart, ImageSet] | None = None
        self._nodes: dict[str, Node] = {}
        self._dependents: dict[str, list[str]] = {}
        self._ready: list[tuple[float, int, str]] = []
        self._counter = itertools.count()
        self._running: dict[str, Node] = {}
        self._elsewhere: list[Node] = []
        self._outcomes: dict[str, DefenseOutput] = {}
        self._fresh: set[str] = set()
        self._records: dict[str, VictimRecord | None] = {}
        self._victims: Recent[StoredVictim] = Recent(4)
        self._views: Recent[DefenderView] = Recent(2)
        self._damaged: Counter[str] = Counter()
        self._needs = {plugin.name: frozenset(plugin.cls.needs) for plugin in self.host.all("defense")}
        self._features: WhileNeeded[Features] = WhileNeeded()

    # what is to be done

    def find_work(self) -> bool:
        """Fill the graph with what the store does not hold; whether there is anything to do."""
        if self.options.rerun == "all":
            todo = list(self.plan.cells.values())
        else:
            todo = [cell for cell in self.plan.cells.values() if not self._complete(cell)]
        for cell in todo:
            self._add_cell(cell)
        victims = sum(node.kind == "implant" for node in self._nodes.values())
        self.view.run_started(self.plan, victims, len(todo))
        return bool(todo)

    def _complete(self, cell: Cell) -> bool:
        """Whether the store has this cell's result; remembers it."""
        if self.options.rerun == "cells" and cell.key in self.plan.selected and cell.key not in self._fresh:
            return False
        result = self.store.result(cell.key)
        if result is None or result.status not in {"ok", "not-applicable"}:
            return False
        record = self._record(cell.victim.key)
        if record is not None and result.weights is not None and record.weights != result.weights:
            log.warning("%s was measured on other weights than the stored victim's; computed again", cell.title)
            return False
        self.summary.results[cell.key] = result
        return True

    def _add_cell(self, cell: Cell) -> None:
        evaluate_id = f"evaluate:{cell.key}"
        if evaluate_id in self._nodes:
            return
        needs = self._victim_nodes(cell.victim.key)
        if cell.baseline is None:
            needs |= self._victim_nodes(cell.victim.benign)
        else:
            baseline = self.plan.cells[cell.baseline]
            if baseline.key not in self.summary.results:
                self._add_cell(baseline)
                needs.add(f"evaluate:{baseline.key}")
            defend = Node(f"defend:{cell.key}", "defend", cell.key, cell.victim.cost / 4, self._victim_nodes(cell.victim.key))
            if self._wants_features(cell):
                defend.waits.add(self._features_node(cell.victim, defend.id))
            needs.add(self._add(defend))
        # first of all: it is short, what it scores waits in memory, and what it gives is kept for good
        self._add(Node(evaluate_id, "evaluate", cell.key, math.inf, needs))

    def _victim_nodes(self, key: str | None) -> set[str]:
        """The node that makes this victim, or nothing where it is stored."""
        if key is None:
            return set()
        node_id = f"implant:{key}"
        redo = self.options.rerun == "all" and key not in self._fresh
        if node_id not in self._nodes:
            if self.store.has_victim(key) and not redo:
                return set()
            victim = self.plan.victims[key]
            needs = self._victim_nodes(victim.benign) if victim.needs_benign else set()
            # what others wait for goes first
            bonus = victim.cost if victim.benign is None else 0.0
            self._add(Node(node_id, "implant", key, victim.cost + bonus, needs))
        return {node_id}

    def _wants_features(self, cell: Cell) -> bool:
        """Whether the first stage needs the victim's features; a later one may meet another classifier."""
        return Need.FEATURES in self._needs[cell.defense[0].name]

    def _features_node(self, victim: Victim, user: str) -> str:
        node_id = f"features:{victim.key}"
        self._features.need(victim.key, user)
        if node_id not in self._nodes:
            self._add(Node(node_id, "features", victim.key, victim.cost, self._victim_nodes(victim.key)))
        return node_id

    def _add(self, node: Node) -> str:
        self._nodes[node.id] = node
        for needed in node.waits:
            self._dependents.setdefault(needed, []).append(node.id)
        if not node.waits:
            self._push(node)
        return node.id

    def _push(self, node: Node) -> None:
        heapq.heappush(self._ready, (-node.cost, next(self._counter), node.id))

    # working it off

    def work_off(self, executor: Executor) -> None:
        """Until every node is done or failed."""
        while self._nodes:
            while self._ready and len(self._running) < executor.capacity:
                node = self._nodes.get(heapq.heappop(self._ready)[2])
                if node is not None:  # else it was settled while it waited in the heap
                    self._start(node, executor)
            if not self._nodes:
                break
            if self._running:
                finished = executor.next_finished(POLL if self._elsewhere else 3600.0)
                if finished is not None:
                    self._settle(finished)
            else:
                time.sleep(POLL)
            waiting, self._elsewhere = self._elsewhere, []
            for node in waiting:
                self._push(node)

    def _start(self, node: Node, executor: Executor) -> None:
        if node.kind in {"implant", "defend"} or (node.kind == "evaluate" and self.plan.cells[node.key].baseline is None):
            if not self.store.claim(node.key):
                self._elsewhere.append(node)  # another driver computes it; look again later
                return
            if self._already_there(node):
                self.store.release(node.key)
                return
        task = self._task(node)
        if task is None:
            return
        node.started = time.perf_counter()
        self._running[node.id] = node
        self.view.task_started(node.id, task.title)
        executor.submit(task)

    def _already_there(self, node: Node) -> bool:
        """Another driver may have finished it since this one planned."""
        if node.kind == "implant":
            redo = self.options.rerun == "all" and node.key not in self._fresh
            if redo or not self.store.has_victim(node.key):
                return False
            self.view.victim_ended(failed=False)
            self._done(node.id)
            return True
        if self.options.rerun is not None or not self._complete(self.plan.cells[node.key]):
            return False
        self.view.cell_ended(self.summary.results[node.key])
        self._features.done(self.plan.cells[node.key].victim.key, f"defend:{node.key}")
        for node_id in (f"defend:{node.key}", f"evaluate:{node.key}"):
            if node_id in self._nodes:
                self._done(node_id)
        return True

    def _task(self, node: Node) -> Task | None:
        """The node's task with its artifacts; None where a stored victim turned out damaged and is made again first."""
        if node.kind == "implant":
            victim = self.plan.victims[node.key]
            benign = None
            if victim.needs_benign and victim.benign is not None:
                benign = self._victim(node, victim.benign)
                if benign is None:
                    return None
            arguments: dict[str, Any] = {"attack": victim.attack, "seed": victim.seed, "data": self._train_part(), "benign": benign}
            files = self.host.files_of([("attack", victim.attack.name), ("model", self.plan.model.name)])
            return self._make(node, f"train {victim.attack.name} (seed {victim.seed})", arguments, files)
        if node.kind == "features":
            victim = self.plan.victims[node.key]
            view = self._view(node, victim, with_training_data=True)
            if view is None:
                return None
            files = self.host.files_of([("model", self.plan.model.name)], json.dumps(view.value.spec))
            return self._make(node, self._title(node), {"view": view}, files)
        cell = self.plan.cells[node.key]
        if node.kind == "defend":
            needs = frozenset(need for stage in cell.defense for need in self._needs[stage.name])
            view = self._view(node, cell.victim, with_training_data=bool(needs & {Need.TRAINING_DATA, Need.FEATURES}))
            if view is None:
                return None
            used: list[tuple[PluginKind, str]] = [("model", self.plan.model.name), *(("defense", stage.name) for stage in cell.defense)]
            files = self.host.files_of(used, json.dumps(view.value.spec))
            arguments = {"stages": cell.defense, "seed": cell.victim.seed, "view": view}
            if self._wants_features(cell):
                arguments["features"] = Artifact(f"features:{cell.victim.key}", self._features[cell.victim.key])
            return self._make(node, cell.title, arguments, files)
        victim_artifact = self._victim(node, cell.victim.key)
        if victim_artifact is None:
            return None
        arguments = {"test": self._test_part(), "victim": victim_artifact, "benign": None, "outcome": None, "before": None}
        if cell.baseline is not None:
            arguments["outcome"] = self._outcomes[cell.key]
            arguments["before"] = self.summary.results[cell.baseline].measures
        elif cell.victim.benign is not None:
            arguments["benign"] = self._victim(node, cell.victim.benign)
            if arguments["benign"] is None:
                return None
        outcome: DefenseOutput | None = arguments["outcome"]
        record = victim_artifact.value.record
        rebuilt = [record.classifier, [one.model_dump() for one in record.backdoors], outcome and [outcome.spec, outcome.steps_spec]]
        return self._make(node, f"evaluate {cell.title}", arguments, self.host.files_of([], json.dumps(rebuilt)))

    def _make(self, node: Node, title: str, arguments: dict[str, Any], files: frozenset[str]) -> Task:
        return Task(node.id, node.kind, title, {"ground": self.ground, **arguments}, files)

    def _victim(self, node: Node, key: str) -> Artifact | None:
        victim = self._victims.get(key, lambda: self.store.victim(key))
        if victim is not None:
            return Artifact(f"victim:{key}", victim)
        self._damaged[key] += 1
        if self._damaged[key] > MENDED:
            self._give_up(
                node, Failure("system", f"its victim was damaged {MENDED + 1} times: something else writes into {self.store.root}")
            )
            return None
        node.waits = self._victim_nodes(key)  # set aside as damaged: make it again, then come back
        for needed in node.waits:
            self._dependents.setdefault(needed, []).append(node.id)
        if node.kind != "features":  # which claim nothing; the victim of that key may be in the making
            self.store.release(node.key)
        return None

    def _give_up(self, node: Node, failure: Failure) -> None:
        if node.kind == "implant":
            self._settle_victim(node, Finished(node.id, failure=failure))
        elif node.kind == "features":
            self._lose_features(node, failure)
        else:
            self._end_cell(self.plan.cells[node.key], "failed", failure)

    def _view(self, node: Node, victim: Victim, *, with_training_data: bool) -> Artifact | None:
        name = f"view:{victim.key}:{with_training_data}"
        stored = self._victim(node, victim.key)
        if stored is None:
            return None
        data = self._train_part().value
        view = self._views.get(
            name, lambda: defender_input(self.ground, victim.seed, data, stored.value, with_training_data=with_training_data)
        )
        return Artifact(name, view)

    def _record(self, key: str) -> VictimRecord | None:
        if self._records.get(key) is None:
            self._records[key] = self.store.victim_record(key)
        return self._records[key]

    def _train_part(self) -> Artifact:
        return Artifact(f"train:{self.plan.fingerprint}", self._load()[0])

    def _test_part(self) -> Artifact:
        return Artifact(f"test:{self.plan.fingerprint}", self._load()[1])

    def _load(self) -> tuple[TrainPart, ImageSet]:
        if self._data is None:
            splits = self._prepared.splits()
            self._data = TrainPart.of(splits), splits.test
        return self._data

    # what came of it

    def _settle(self, finished: Finished) -> None:
        node = self._running.pop(finished.id)
        if node.id not in self._nodes:
            return  # its cell ended meanwhile: the cell without defense failed
        seconds = time.perf_counter() - node.started
        failure = finished.failure
        title = self._title(node)
        self.view.task_ended(node.id, title, failure.message if failure and failure.kind != "not-applicable" else None, seconds)
        if node.kind == "implant":
            self._settle_victim(node, finished)
        elif node.kind == "features":
            self._settle_features(node, finished)
        elif failure is not None:
            self._end_cell(self.plan.cells[node.key], "not-applicable" if failure.kind == "not-applicable" else "failed", failure)
        elif node.kind == "defend":
            self._outcomes[node.key] = finished.value
            self._features.done(self.plan.cells[node.key].victim.key, f"defend:{node.key}")
            self._done(node.id)
        else:
            self._end_cell(self.plan.cells[node.key], "ok", None, finished.value)

    def _settle_victim(self, node: Node, finished: Finished) -> None:
        victim = self.plan.victims[node.key]
        if finished.failure is None:
            self.store.save_victim(node.key, finished.value)
            self._fresh.add(node.key)
            self._records[node.key] = finished.value.record
            self._victims.put(node.key, finished.value)
            self.store.release(node.key)
            self.summary.computed_victims += 1
            self.view.victim_ended(failed=False)
            self.observers("victim_finished", victim=victim, error=None)
            self._done(node.id)
            return
        self.store.release(node.key)
        self.view.victim_ended(failed=True)
        self.summary.failures.append(f"{self._title(node)}: {_with_log(finished.failure)}")
        self.observers("victim_finished", victim=victim, error=finished.failure.message)
        self._lose(node.id, finished.failure)

    def _settle_features(self, node: Node, finished: Finished) -> None:
        if finished.failure is not None:
            self._lose_features(node, finished.failure)
            return
        self._features.put(node.key, finished.value)
        self._done(node.id)

    def _lose_features(self, node: Node, failure: Failure) -> None:
        """What becomes of the features becomes of the cells that need them."""
        self._nodes.pop(node.id, None)
        for dependent_id in self._dependents.pop(node.id, []):
            if (dependent := self._nodes.get(dependent_id)) is not None:
                cell = self.plan.cells[dependent.key]
                self._end_cell(cell, "not-applicable" if failure.kind == "not-applicable" else "failed", failure)

    def _lose(self, node_id: str, failure: Failure) -> None:
        """A victim is lost: so are the victims that need it and the cells of all of them."""
        self._nodes.pop(node_id, None)
        for dependent_id in self._dependents.pop(node_id, []):
            dependent = self._nodes.get(dependent_id)
            if dependent is None:
                continue
            if dependent.kind == "implant":
                self.view.victim_ended(failed=True)
                self._lose(dependent_id, failure)
            elif dependent.kind == "features":
                self._lose(dependent_id, failure)
            else:
                self._end_cell(self.plan.cells[dependent.key], "victim-failed", failure)

    def _end_cell(self, cell: Cell, status: Status, failure: Failure | None, found: Evaluation | None = None) -> None:
        record = self._record(cell.victim.key)
        result = Result(
            key=cell.key,
            victim_key=cell.victim.key,
            grid=self.plan.grid,
            dataset=self.plan.dataset,
            dataset_fingerprint=self.plan.fingerprint,
            holdout=self.plan.holdout,
            model=self.plan.model,
            recipe=self.plan.recipe,
            attack=cell.victim.attack,
            defense=list(cell.defense),
            **defense_traits(self.host, cell.defense),
            seed=cell.victim.seed,
            status=status,
            error=failure.message if failure else None,
            log=failure.log if failure else None,
            weights=record.weights if record else None,
            provenance=Provenance.now(record.device if record else "unknown", self.options.threads, self._origins(cell)),
            measures=found.measures if found else Measures(),
            trajectory=found.trajectory if found else [],
            tables=found.tables if found else {},
        )
        result = self.store.save_result(result, found.figures if found else {})
        self._fresh.add(cell.key)
        self._outcomes.pop(cell.key, None)
        self._features.done(cell.victim.key, f"defend:{cell.key}")
        self.store.release(cell.key)
        self.summary.results[cell.key] = result
        self.summary.computed_cells += 1
        if failure is not None and status == "failed":
            self.summary.failures.append(f"{cell.title}: {_with_log(failure)}")
            if failure.details:
                log.debug("%s", failure.details)
        self.view.cell_ended(result)
        self.observers("cell_finished", cell=cell, result=result)
        self._nodes.pop(f"defend:{cell.key}", None)
        self._dependents.pop(f"defend:{cell.key}", None)
        if status == "ok":
            self._done(f"evaluate:{cell.key}")
            return
        self._nodes.pop(f"evaluate:{cell.key}", None)
        for dependent_id in self._dependents.pop(f"evaluate:{cell.key}", []):
            dependent = self._nodes.get(dependent_id)
            if dependent is not None:
                reason = failure or Failure("error", "unknown")
                lost = Failure(reason.kind, f"its cell without defense has no scores: {reason.message}")
                self._end_cell(self.plan.cells[dependent.key], "victim-failed" if status == "victim-failed" else "failed", lost)

    def _done(self, node_id: str) -> None:
        self._nodes.pop(node_id, None)
        for dependent_id in self._dependents.pop(node_id, []):
            dependent = self._nodes.get(dependent_id)
            if dependent is None:
                continue
            dependent.waits.discard(node_id)
            if not dependent.waits:
                self._push(dependent)

    def release(self) -> None:
        """Let other drivers have what this one did not finish."""
        for key in self._claimed():
            self.store.release(key)

    def _claimed(self) -> Iterator[str]:
        yield from list(self.plan.victims)
        yield from list(self.plan.cells)

    def _title(self, node: Node) -> str:
        if node.kind == "implant":
            victim: Victim = self.plan.victims[node.key]
            return f"victim {victim.attack.name} (seed {victim.seed})"
        if node.kind == "features":
            victim = self.plan.victims[node.key]
            return f"features of {victim.attack.name} (seed {victim.seed})"
        return self.plan.cells[node.key].title

    def _origins(self, cell: Cell) -> dict[str, str]:
        origins = {cell.victim.attack.name: self.host.get("attack", cell.victim.attack.name).origin}
        for stage in cell.defense:
            if stage.name != NONE:
                origins[stage.name] = self.host.get("defense", stage.name).origin
        return origins


def _with_log(failure: Failure) -> str:
    return f"{failure.message} (log: {failure.log})" if failure.log else failure.message
