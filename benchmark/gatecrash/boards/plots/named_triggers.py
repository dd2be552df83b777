"""Triggers that no attack has used yet: made from their options alone and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gatecrash.boards.plots.style import titled
from gatecrash.boards.plots.triggers import TriggerExample, drawn, trigger_of
from gatecrash.contracts.backdoor import Backdoor, Goal
from gatecrash.contracts.data import own_copy
from gatecrash.contracts.trigger_maker import TriggerContext, TriggerMaker
from gatecrash.datasets.preparation import prepare_dataset
from gatecrash.errors import UserError
from gatecrash.host.host import Host
from gatecrash.planning.resolve import configured, single
from gatecrash.records.labels import labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gatecrash.contracts.data import Splits


def named_triggers(entries: Sequence[Any], dataset: Any, host: Host) -> Figure:
    """A row for each trigger that the entries name, on the first test image of `dataset`; both as in a grid, triggers with sweeps.

    Raises UserError for an unknown name or option, for a trigger that does not fit the images, and for one that needs a benign victim.
    """
    asked = [trigger for entry in entries for trigger in configured(host, "trigger", entry, "--trigger")]
    prepared = prepare_dataset(single(host, "dataset", dataset).instance)
    splits = prepared.splits()
    names = labels([(trigger.stage,) for trigger in asked])
    found = [_example(name, trigger.instance, splits) for name, trigger in zip(names, asked, strict=True)]
    figure = drawn(found)
    titled(figure, f"Triggers on a test image of {prepared.name}")
    return figure


def _example(label: str, maker: TriggerMaker, splits: Splits) -> TriggerExample:
    if maker.needs_benign:
        raise UserError(f"--trigger {maker.name}: it is made with a benign victim; run an attack that uses it, then plot its store")
    shape = splits.train.shape
    maker.check(shape)
    trigger = maker.make(TriggerContext(shape, train=own_copy(splits.train) if maker.needs_data else None))
    return trigger_of(label, Backdoor(maker.name, Goal.all_to_all(splits.train.num_classes), trigger), splits.test)
