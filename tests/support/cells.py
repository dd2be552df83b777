"""Results made by hand, for boards."""

from __future__ import annotations

from typing import Any

from gatecrash.evaluation.metrics import der
from gatecrash.records.result import Result
from gatecrash.records.stage import Stage


def cell(
    attack: str,
    defense: str,
    seed: int = 0,
    /,
    acc: float = 0.9,
    asr: float | None = None,
    before: tuple[float, float] = (0.9, 1.0),
    floor: float = 0.0,
    **fields: Any,
) -> Result:
    """A finished cell of a victim that had (ACC, ASR) = `before`; `measures` among `fields` add to those that follow from the rates."""
    asr = None if attack == "none" else asr if asr is not None else before[1]
    measures: dict[str, Any] = {"acc": acc, "asr": asr, "acc_before": before[0], "asr_before": None if asr is None else before[1]}
    measures |= {"asr_floor": None if asr is None else floor, "ra": None if asr is None else 1 - asr, "seconds_victim": 10.0}
    if defense != "none":
        measures |= {"der": der(before[0], acc, measures["asr_before"], asr), "seconds_defense": 2.0}
    asked: dict[str, Any] = {
        "key": "-".join(map(str, (attack, defense, seed, *fields.get("defense", ())))),
        "victim_key": f"{attack}-{seed}",
        "grid": "synthetic",
        "dataset": Stage(name="digits"),
        "dataset_fingerprint": "f" * 64,
        "holdout": {"fraction": 0.05},
        "model": Stage(name="small-cnn"),
        "recipe": {"epochs": 1},
        "attack": Stage(name=attack),
        "defense": [Stage(name=defense)],
        "access": None if defense == "none" else "model + clean data",
        "gives": [] if defense == "none" else ["classifier"],
        "seed": seed,
        "status": "ok",
        "weights": f"w-{attack}-{seed}",
        "measures": measures | fields.pop("measures", {}),
        "provenance": {"device": "cpu", "date": "2026-01-02T00:00:00+00:00", "dirty": False, "commit": "c" * 40},
    }
    return Result(**(asked | fields))


def undefended(seeds: int = 3, attacks: tuple[str, ...] = ("badnets",)) -> list[Result]:
    return [cell(attack, "none", seed) for attack in ("none", *attacks) for seed in range(seeds)]
