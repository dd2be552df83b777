"""What a defense, or a chain of them, needs and gives as a whole: recorded with results, so that boards are made without plugins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gatecrash.contracts.defense import access_class
from gatecrash.host.host import Host
from gatecrash.records.stage import Stage


def defense_traits(host: Host, stages: Sequence[Stage]) -> dict[str, Any]:
    """The fields `access` and `gives` of a Result. Raises UserError for a defense that is not installed."""
    if [stage.name for stage in stages] == ["none"]:
        return {"access": None, "gives": []}
    classes = [host.get("defense", stage.name).cls for stage in stages]
    needs = frozenset(need for cls in classes for need in cls.needs)
    gives = frozenset(give for cls in classes for give in cls.gives)
    return {"access": access_class(needs, gives), "gives": sorted(str(give) for give in gives)}
