"""Carry one task out in this process, whatever it does, and never raise."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from gatecrash.engine.checkpoint import remove_checkpoints
from gatecrash.errors import NotApplicable, one_line, printable
from gatecrash.evaluation.independence import Witness
from gatecrash.host.host import Host
from gatecrash.process.allocator import freed_memory_kept
from gatecrash.process.cache_folder import cache_folder
from gatecrash.process.isolation import fresh_process_state
from gatecrash.running.tasks.defend import defend
from gatecrash.running.tasks.evaluate import evaluate
from gatecrash.running.tasks.features import features
from gatecrash.running.tasks.implant import implant
from gatecrash.running.tasks.prepare import prepare
from gatecrash.running.tasks.protocol import Artifact, Failure, Finished, Task, TaskReport


def perform(
    task: Task, host: Host, threads: int, report: TaskReport, device: str | None = None, witness: Witness | None = None
) -> Finished:
    """Run the task under known process-wide settings; an exception (also SystemExit) becomes a Failure with its traceback.

    `device` is what the executor assigned to the task, if it assigns any; `witness` asks the classifiers that are evaluated again.
    """
    arguments = {name: value.value if isinstance(value, Artifact) else value for name, value in task.arguments.items()}
    ground = arguments["ground"]
    if ground.checkpoints:
        ground = replace(ground, checkpoints=f"{ground.checkpoints}-{task.id.replace(':', '-')}")
    arguments["ground"] = replace(ground, device=device) if device is not None else ground
    functions: Mapping[str, Callable[..., Any]] = {
        "prepare": partial(prepare, host),
        "implant": partial(implant, host),
        "features": features,
        "defend": partial(defend, host),
        "evaluate": partial(evaluate, witness=witness),
    }
    try:
        with freed_memory_kept(), fresh_process_state(threads):
            value = functions[task.function](**arguments, report=partial(report, task.id))
    except NotApplicable as error:
        return Finished(task.id, failure=Failure("not-applicable", one_line(error)))
    except (Exception, SystemExit) as error:
        return Finished(task.id, failure=Failure("error", one_line(error), printable(traceback.format_exc())))
    finally:
        if ground.checkpoints:  # a task that is killed does not come here
            remove_checkpoints(cache_folder() / "checkpoints" / ground.checkpoints)
    return Finished(task.id, value)
