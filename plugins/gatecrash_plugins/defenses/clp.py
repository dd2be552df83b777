"""CLP: channels whose Lipschitz bound stands out of their layer are switched off. No data is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gatecrash import Defense, Evidence, Give, Need, Network, NotApplicable, Options, Outcome, Reference, Step, hookimpl

FACTORS = tuple(step / 2 for step in range(13))
"""The factors u of the trajectory: 0, 0.5, ... 6."""


class CLP(Defense):
    """Channel-Lipschitzness-based pruning (sections 4.2 and 4.3 of the paper).

    A channel that a trigger uses must answer strongly to a small change. Its bound is the largest singular value of its filter, as a matrix
    [channels in, kernel height x width], times |gamma| / sqrt(running variance + eps) of the norm behind it. Channels above mean + u
    deviations (unbiased) of their layer go: gamma and beta of the norm become 0. u = 3 is the paper's for CIFAR-10.

    The paper speaks of a norm directly behind its convolution. Here these are the network's `pairs`, so that in a pre-activation net only
    convolutions whose own norm follows are looked at. `published` pairs a norm with whatever convolution is listed before it and leaves out
    eps, as the authors' code (github.com/rkteddy/channel-Lipschitzness-based-pruning) and BackdoorBench do, on pre-activation nets too.
    """

    name = "clp"
    summary = "switch off channels with a large Lipschitz bound; no data, no training"
    reference = Reference(
        "Zheng et al., Data-free Backdoor Removal Based on Channel Lipschitzness", 2022, "https://arxiv.org/abs/2208.03111"
    )
    needs = frozenset({Need.MODEL})
    gives = frozenset({Give.CLASSIFIER})

    class Config(Options):
        """How far out a channel must be."""

        u: float = Field(3.0, ge=0, le=100, description="a channel goes whose bound is above the layer's mean plus this many deviations")
        variant: Literal["paper", "published"] = Field(
            "paper", description="paper: norms of their own convolutions, eps under the root; published: as the authors' code pairs them"
        )

    config: Config

    def defend(self, evidence: Evidence) -> Outcome:
        network = evidence.network
        bounds = lipschitz_bounds(network, self.config.variant)
        if not bounds:
            raise NotApplicable("the network has no convolution with a BatchNorm of its own behind it")
        trajectory = [
            Step({"u": u, "pruned": sum(int(chosen.sum()) for chosen in outlying(bounds, u).values())}, changes(network, bounds, u))
            for u in sorted({*FACTORS, self.config.u}, reverse=True)
        ]
        records = [
            {
                "norm": name,
                "channels": len(bound),
                "mean": round(float(bound.mean()), 4),
                "largest": round(float(bound.max()), 4),
                "deviations": round(float((bound.max() - bound.mean()) / bound.std()), 2) if bound.std() > 0 else 0.0,
                "pruned": int(outlying({name: bound}, self.config.u)[name].sum()),
            }
            for name, bound in bounds.items()
        ]
        network.load_state_dict(changes(network, bounds, self.config.u), strict=False)
        return Outcome(classifier=network, trajectory=trajectory, tables={"layers": records})


@torch.no_grad()
def lipschitz_bounds(network: Network, variant: str) -> dict[str, Tensor]:
    """By norm, the bound of each of its channels: float32 [C], on the CPU."""
    if variant == "published":
        pairs = listed_pairs(network)
    else:
        pairs = {pair.norm: pair.convolution for pair in network.pairs if pair.norm is not None}
    found = {}
    for name, convolution in pairs.items():
        norm, filters = network.norms[name], network.convolutions[convolution].weight.float().flatten(2)
        if not norm.affine or norm.running_var is None or len(filters) < norm.num_features:
            continue
        scale = norm.weight.float().abs() / (norm.running_var.float() + (0.0 if variant == "published" else norm.eps)).sqrt()
        found[name] = (torch.linalg.matrix_norm(filters[: norm.num_features].cpu(), ord=2) * scale.cpu()).nan_to_num()
    return found


def listed_pairs(network: Network) -> dict[str, str]:
    """By norm, the convolution that the network lists last before it."""
    names = {module: name for modules in (network.norms, network.convolutions) for name, module in modules.items()}
    pairs, last = {}, None
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module in names:
            last = names[module]
        elif isinstance(module, nn.BatchNorm2d) and last is not None and module in names:
            pairs[names[module]] = last
    return pairs


def outlying(bounds: Mapping[str, Tensor], u: float) -> dict[str, Tensor]:
    """By norm, which channels are above mean + u deviations of their layer: bool [C]."""
    return {name: bound > bound.mean() + u * (bound.std() if len(bound) > 1 else 0.0) for name, bound in bounds.items()}


def changes(network: Network, bounds: Mapping[str, Tensor], u: float) -> dict[str, Tensor]:
    """The state-dict entries of the norms with the outlying channels off."""
    entries = {module: name for name, module in network.named_modules()}
    found = {}
    for name, chosen in outlying(bounds, u).items():
        norm = network.norms[name]
        for part, values in (("weight", norm.weight), ("bias", norm.bias)):
            found[f"{entries[norm]}.{part}"] = torch.where(chosen.to(values.device), 0, values.detach())
    return found


@hookimpl
def register_defenses(register: Callable[[type[Defense]], None]) -> None:
    register(CLP)
