"""Fine-Pruning: switch off channels that clean images leave dormant, then fine-tune on clean images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from gatecrash import (
    Defense,
    Evidence,
    Give,
    Need,
    Network,
    Options,
    Outcome,
    Recipe,
    Reference,
    Step,
    accuracy,
    hookimpl,
    last_activations,
    mean_activations,
    pruning_curve,
)

RULES = {"max_drop": "last-conv", "activations": "last-conv", "fraction": "fraction", "threshold": "threshold"}
"""Option -> the selection rule that reads it."""

THRESHOLDS = tuple(step / 10 for step in range(21))
FRACTIONS = tuple(step / 20 for step in range(20))


@dataclass(frozen=True)
class Pruning:
    """What a selection rule decided: a mask per point, the trajectory and the tables of its search."""

    masks: Mapping[str, Tensor]
    trajectory: Sequence[Step]
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


class FinePruning(Defense):
    """Prunes channels that are dormant on the clean hold-out, then fine-tunes on it; pruned channels stay off.

    Three rules choose the channels, all by mean activation on clean images:

    - `last-conv` (Liu et al., section 3.1): channels of the last point in increasing order, as long as accuracy on the hold-out is not more
      than `max_drop` below the original. The paper does not say where activations are averaged: its authors' code reads the output of the
      pooling layer behind the pruned convolution, as the default `activations: after-pooling` does; `before-pooling` reads the
      convolution's own map, as do the two other rules, which are not the paper's;
    - `fraction`: the given share of the channels of every point, weakest first;
    - `threshold`: every channel whose mean activation is below `threshold` times the mean over its layer.

    The rule is the one whose option is given. Each point keeps at least its most active channel. `prune: false` is fine-tuning alone,
    `epochs: 0` pruning alone. The trajectory is the pruning curve before fine-tuning. No test image is involved: the hold-out decides.
    """

    name = "fine-pruning"
    summary = "prune channels that are dormant on clean images, then fine-tune"
    reference = Reference(
        "Liu et al., Fine-Pruning: defending against backdooring attacks on deep neural networks", 2018, "https://arxiv.org/abs/1805.12185"
    )
    needs = frozenset({Need.MODEL, Need.CLEAN_DATA})
    gives = frozenset({Give.CLASSIFIER})
    version = 2

    class Config(Options):
        """Defaults: the paper's rule with a 4-point drop; SGD as in BackdoorBench (lr 0.01, cosine)."""

        select: Literal["last-conv", "fraction", "threshold"] = Field(
            "last-conv", description="rule that chooses the channels; taken from the option that is given"
        )
        max_drop: float = Field(0.04, ge=0, le=1, description="last-conv: hold-out accuracy that pruning may cost (absolute)")
        activations: Literal["after-pooling", "before-pooling"] = Field(
            "after-pooling",
            description="last-conv: averaged per channel is what pooling hands to the head (the authors' code), or the map before it",
        )
        fraction: float = Field(0.05, ge=0, lt=1, description="fraction: share of channels to prune at every point")
        threshold: float = Field(0.8, ge=0, le=2, description="threshold: multiple of the layer's mean activation below which channels go")
        prune: bool = Field(True, description="false: fine-tune only")
        epochs: int = Field(30, ge=0, le=10_000, description="epochs of fine-tuning on the clean hold-out; 0: prune only")
        lr: float = Field(0.01, gt=0, le=10, description="learning rate of fine-tuning at its peak")
        batch_size: int = Field(64, ge=1, le=65_536, description="images per step of fine-tuning")
        weight_decay: float = Field(5e-4, ge=0, le=1, description="weight decay of fine-tuning")
        crop: int = Field(0, ge=0, le=64, description="random crop while fine-tuning: zero padding in pixels")
        flip: bool = Field(True, description="random mirroring while fine-tuning, where the dataset allows it")

        @model_validator(mode="before")
        @classmethod
        def _rule_of_the_given_option(cls, data: Any) -> Any:
            if isinstance(data, dict) and "select" not in data:
                given = [rule for option, rule in RULES.items() if option in data and rule != "last-conv"]
                return {**data, "select": given[0]} if given else data
            return data

        @model_validator(mode="after")
        def _every_option_counts(self) -> Self:
            for option, rule in RULES.items():
                if rule != self.select and getattr(self, option) != type(self).model_fields[option].default:
                    raise ValueError(f"{option} has no effect when channels are selected by {self.select}; give one of the two")
            if not self.prune and self.epochs == 0:
                raise ValueError("prune: false with epochs: 0 does nothing; use the defense none")
            return self

    config: Config

    def defend(self, evidence: Evidence) -> Outcome:
        network, config = evidence.network, self.config
        before = accuracy(network, evidence.clean, evidence.batches)
        pruning = Pruning({}, ())
        if config.prune:
            pruning = self._select(network, evidence)
            for name, mask in pruning.masks.items():
                network.points[name].set_mask(mask)
        pruned = accuracy(network, evidence.clean, evidence.batches)
        if config.epochs:
            # A network that was pruned too far to recover is a result.
            network = evidence.train(evidence.clean, network=network, recipe=self.recipe, diverges=True)
        summary = {"holdout_acc_before": before, "holdout_acc_pruned": pruned}
        return Outcome(classifier=network, trajectory=pruning.trajectory, tables={**pruning.tables, "summary": [summary]})

    @property
    def recipe(self) -> Recipe:
        """How the pruned network is fine-tuned."""
        config = self.config
        return Recipe(
            epochs=max(1, config.epochs),
            batch_size=config.batch_size,
            lr=config.lr,
            weight_decay=config.weight_decay,
            crop=config.crop,
            flip=config.flip,
        )

    def _select(self, network: Network, evidence: Evidence) -> Pruning:
        if self.config.select == "last-conv":
            return last_conv(network, evidence, self.config.max_drop, pooled=self.config.activations == "after-pooling")
        means = mean_activations(network, evidence.clean.images, evidence.batches)
        start = {name: point.mask.detach().clone() for name, point in network.points.items()}
        if self.config.select == "fraction":
            return every_point(means, start, "fraction", self.config.fraction, FRACTIONS, weakest)
        return every_point(means, start, "threshold", self.config.threshold, THRESHOLDS, below)


def last_conv(network: Network, evidence: Evidence, max_drop: float, *, pooled: bool) -> Pruning:
    """Channels of the last point in increasing mean activation (ties: lowest index first), while accuracy drops by at most `max_drop`."""
    means = last_activations(network, evidence.clean.images, evidence.batches, pooled=pooled)
    curve = pruning_curve(network, evidence.clean, means.argsort(stable=True), evidence.batches)
    crossing = (k for k in range(len(curve.correct)) if curve.accuracy(0) - curve.accuracy(k) > max_drop + 1e-9)
    chosen = next(crossing, len(curve.correct)) - 1
    return Pruning({curve.point: curve.mask(chosen)}, curve.trajectory(chosen), {"pruning": curve.table(means)})


def weakest(means: Tensor, fraction: float) -> Tensor:
    """bool [C]: the given share of the channels, rounded down, weakest first (ties: lowest index first)."""
    pruned = torch.zeros(len(means), dtype=torch.bool)
    pruned[means.argsort(stable=True)[: int(fraction * len(means) + 1e-9)]] = True
    return pruned


def below(means: Tensor, threshold: float) -> Tensor:
    """bool [C]: channels whose mean activation is below `threshold` times the layer's mean; one at the threshold stays."""
    return means < threshold * means.mean() * (1 - 1e-9)


def every_point(
    means: Mapping[str, Tensor],
    start: Mapping[str, Tensor],
    option: str,
    chosen: float,
    curve: Sequence[float],
    rule: Callable[[Tensor, float], Tensor],
) -> Pruning:
    """The rule at every point, and the same at other values of its option for the trajectory."""

    def masks(value: float) -> dict[str, Tensor]:
        return {name: start[name] * _kept(rule(mean, value), mean).to(start[name]) for name, mean in means.items()}

    steps = []
    for value in sorted({*curve, chosen}):
        at = masks(value)
        params = {option: value, "pruned": sum(int((mask == 0).sum()) for mask in at.values()), "chosen": int(value == chosen)}
        steps.append(Step(params, {f"backbone.{name}.mask": mask for name, mask in at.items()}))
    final = masks(chosen)
    table = [
        {"point": name, "channels": len(mask), "pruned": int((mask == 0).sum()), "mean_activation": float(means[name].mean())}
        for name, mask in final.items()
    ]
    return Pruning(final, steps, {"points": table})


def _kept(pruned: Tensor, means: Tensor) -> Tensor:
    """Everything but the pruned channels; of a layer whose channels are all pruned, the most active one stays."""
    kept = ~pruned
    if not bool(kept.any()):
        kept[means.argmax()] = True
    return kept


@hookimpl
def register_defenses(register: Callable[[type[Defense]], None]) -> None:
    register(FinePruning)
