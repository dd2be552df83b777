"""What plugin authors test with: builders for what a plugin is given, and the checks that every plugin has to pass.

In a test file, in the manner of scikit-learn:

    from gatecrash.testing import parametrize_with_checks

    @parametrize_with_checks([MyAttack(), MyDefense(MyDefense.Config(epochs=2))])
    def test_my_plugins_keep_the_contracts(plugin, check):
        check(plugin)

On the command line the same checks are `gatecrash check NAME|FILE`.
"""

from __future__ import annotations

from gatecrash.testing.builders import make_context, make_evidence, model_factory
from gatecrash.testing.check import Check, CheckFailed, CheckNotApplicable
from gatecrash.testing.suite import attack_checks, checks_for, defense_checks, parametrize_with_checks, trigger_checks

__all__ = [
    "Check",
    "CheckFailed",
    "CheckNotApplicable",
    "attack_checks",
    "checks_for",
    "defense_checks",
    "make_context",
    "make_evidence",
    "model_factory",
    "parametrize_with_checks",
    "trigger_checks",
]
