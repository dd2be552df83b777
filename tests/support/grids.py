"""A grid that tests run through."""

from typing import Any

SMALL_GRID: dict[str, Any] = {
    "name": "small",
    "dataset": {"digits": {"limit": 200, "limit_test": 60}},
    "model": "small-cnn",
    "recipe": {"preset": "tiny", "epochs": 4, "batch_size": 16, "lr": 0.03},
    "attacks": ["none", "badnets"],
    "defenses": ["none", {"fine-pruning": {"epochs": 1}}],
}
"""Seconds on one core; good enough to run through, not to be judged."""
