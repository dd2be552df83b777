"""Gatecrash: a benchmark harness for backdoor attacks x defenses on image classifiers.

This is what a plugin author imports, and nothing else. Names load on first use, so that `import gatecrash` costs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gatecrash.attack import (
        Attack,
        AttackContext,
        Backdoor,
        DatasetInfo,
        Goal,
        GoalConfig,
        Implant,
        PoisonConfig,
        TriggerAttack,
        poison_count,
    )
    from gatecrash.classifier import Backbone, Classifier, Network, Point
    from gatecrash.config import Config, File
    from gatecrash.data import ImageSet, Poisoned, Role, Splits
    from gatecrash.dataset import Dataset, DatasetConfig, Progress
    from gatecrash.defense import Defense, Evidence, Give, Need, Outcome, Step, Verdict
    from gatecrash.errors import ContractError, NotApplicable, TrainingDiverged, UserError
    from gatecrash.hookspecs import hookimpl
    from gatecrash.model import Model
    from gatecrash.portable import Portable
    from gatecrash.pruning import PruningCurve, accuracy, mean_activations, pruning_curve
    from gatecrash.recipe import Recipe
    from gatecrash.reference import Reference
    from gatecrash.triggers import Place, Stamp, Trigger, checkerboard, patch_mask, patch_pattern, read_image

__version__ = "0.1.0"

_HOME = {
    "attack": (
        "Attack",
        "AttackContext",
        "Backdoor",
        "DatasetInfo",
        "Goal",
        "GoalConfig",
        "Implant",
        "PoisonConfig",
        "TriggerAttack",
        "poison_count",
        "pruning_curve",
    ),
    "classifier": ("Backbone", "Classifier", "Network", "Point"),
    "config": ("Config", "File"),
    "data": ("ImageSet", "Poisoned", "Role", "Splits"),
    "dataset": ("Dataset", "DatasetConfig", "Progress"),
    "defense": ("Defense", "Evidence", "Give", "Need", "Outcome", "Step", "Verdict"),
    "errors": ("ContractError", "NotApplicable", "TrainingDiverged", "UserError"),
    "hookspecs": ("hookimpl",),
    "model": ("Model",),
    "portable": ("Portable",),
    "pruning": ("PruningCurve", "accuracy", "mean_activations", "pruning_curve"),
    "recipe": ("Recipe",),
    "reference": ("Reference",),
    "triggers": ("Place", "Stamp", "Trigger", "checkerboard", "patch_mask", "patch_pattern", "read_image"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Attack",
    "AttackContext",
    "Backbone",
    "Backdoor",
    "Classifier",
    "Config",
    "ContractError",
    "Dataset",
    "DatasetConfig",
    "DatasetInfo",
    "Defense",
    "Evidence",
    "File",
    "Give",
    "Goal",
    "GoalConfig",
    "ImageSet",
    "Implant",
    "Model",
    "Need",
    "Network",
    "NotApplicable",
    "Outcome",
    "Place",
    "Point",
    "PoisonConfig",
    "Poisoned",
    "Portable",
    "Progress",
    "PruningCurve",
    "Recipe",
    "Reference",
    "Role",
    "Splits",
    "Stamp",
    "Step",
    "TrainingDiverged",
    "Trigger",
    "TriggerAttack",
    "UserError",
    "Verdict",
    "accuracy",
    "checkerboard",
    "hookimpl",
    "mean_activations",
    "patch_mask",
    "patch_pattern",
    "poison_count",
    "pruning_curve",
    "read_image",
]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"gatecrash.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module 'gatecrash' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
