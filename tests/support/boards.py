"""Boards as text, and stored results to publish."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gatecrash.boards.leaderboard import leaderboard
from gatecrash.boards.page import page
from gatecrash.boards.panel import arrange
from gatecrash.boards.render.markdown import blocks_to_markdown, to_markdown
from gatecrash.boards.tables.matrix import matrix
from gatecrash.records.result import Result
from gatecrash.records.stage import Stage


def page_text(results: Sequence[Result], name: str = "b") -> str:
    """Markdown of a published board."""
    return to_markdown([page(name, results)])


def leaderboard_text(results: Sequence[Result], title: str = "x") -> str:
    """Markdown of a store's board."""
    return to_markdown([leaderboard(arrange(results), title)])


def matrix_text(results: Sequence[Result]) -> str:
    return blocks_to_markdown([matrix(arrange(results), ["acc", "asr"])])


def a_result(**fields: Any) -> Result:
    """A finished cell without a defense."""
    asked: dict[str, Any] = {
        "key": "ab" * 20,
        "victim_key": "cd" * 20,
        "grid": "mine",
        "dataset": Stage(name="digits"),
        "dataset_fingerprint": "f" * 64,
        "holdout": {"fraction": 0.05},
        "model": Stage(name="small-cnn"),
        "recipe": {"epochs": 1},
        "attack": Stage(name="badnets"),
        "defense": [Stage(name="none")],
        "seed": 0,
        "status": "ok",
        "weights": "w",
        "measures": {"acc": 0.9, "asr": 0.5, "acc_interval": [0.85, 0.94], "asr_interval": [0.4, 0.6], "seconds_victim": 3.0},
        "provenance": {"device": "cpu", "cpu": "a", "threads": 1, "packages": {"torch": "2"}, "dirty": False},
    }
    return Result(**(asked | fields))


def a_result_of_images(**fields: Any) -> Result:
    """A result with paths of a machine in it."""
    asked: dict[str, Any] = {
        "dataset": Stage(name="imagefolder", config={"root": "/home/me/data/signs", "limit": 20_000, "flip": False}),
        "attack": Stage(name="blend", config={"image": "/home/me/kitty.png", "alpha": 0.1}),
        "provenance": {"device": "cpu", "plugins": {"mine": "/home/me/mine.py", "blend": "gatecrash_plugins.attacks.blend"}},
    }
    return a_result(**(asked | fields))
