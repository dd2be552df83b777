"""Plugin files as text, for tests of what happens to files rather than to methods."""

from __future__ import annotations

_ATTACK = """
import gatecrash
{imports}

class Mine(gatecrash.Attack):
    name = "{name}"
    summary = "{summary}"

    def poison(self, train, ctx):
        return gatecrash.Poisoned.untouched(train)

@gatecrash.hookimpl
def register_attacks(register):
    register(Mine)
"""


def attack_file(name: str = "mine", summary: str = "does nothing", imports: str = "") -> str:
    """The text of an attack that poisons nothing; `imports` are more lines before its class."""
    return _ATTACK.format(name=name, summary=summary, imports=imports)
