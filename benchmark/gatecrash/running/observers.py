"""The observation hooks, called so that a faulty one stops nothing."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from gatecrash.host.host import Host
from gatecrash.records.plan import Cell, Plan, Victim
from gatecrash.records.result import Result
from gatecrash.records.summary import Summary

log = logging.getLogger("gatecrash")


@dataclass(frozen=True)
class Observers:
    """Calls the observation hooks; what they raise is logged and ignored."""

    host: Host

    def __call__(self, hook: str, **arguments: Plan | Victim | Cell | Result | Summary | str | None) -> None:
        for name, function, wanted in self.host.observers(hook):
            try:
                function(**{key: arguments[key] for key in wanted})
            except Exception:
                log.exception("observer %s of plugin %s failed and is ignored", hook, name)
