"""The type of options that name a trigger."""

from __future__ import annotations

from typing import Annotated

from gatecrash.contracts.naming import NamesTrigger, as_entry
from gatecrash.contracts.trigger_maker import TriggerMaker

TriggerRef = Annotated[TriggerMaker, NamesTrigger(), as_entry]
"""Type of an option that names a trigger: `blend` or `{patch: {size: 5}}` in a grid, a `TriggerMaker` for the plugin."""
