"""IBD-PSC: an input whose class stays certain when the last BatchNorms are amplified carries a trigger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.func import functional_call

from gatecrash import Defense, Evidence, Give, InputDetector, Need, Network, NotApplicable, Options, Outcome, Reference, hookimpl


class AmplifiedConfidence(InputDetector):
    """The mean confidence in the network's own answer, in [0, 1], over one amplified copy for each of `depths`.

    A copy of depth k has weight and bias of its last k BatchNorms times `scale`. The copies exist only while they are used.
    """

    def __init__(self, network: Network, depths: Sequence[int], scale: float, threshold: float) -> None:
        super().__init__()
        self.network, self.depths, self.scale, self.threshold = network, list(depths), scale, threshold

    def config(self) -> dict[str, Any]:
        return {"network": self.network, "depths": self.depths, "scale": self.scale, "threshold": self.threshold}

    @torch.no_grad()
    def score(self, images: Tensor) -> Tensor:
        answer = self.network(images).argmax(1, keepdim=True)
        total = torch.zeros(len(images), device=images.device)
        for depth in self.depths:
            total += amplified(self.network, depth, self.scale, images).float().softmax(1).gather(1, answer).squeeze(1)
        return total / len(self.depths)


class IBDPSC(Defense):
    """Parameter-oriented scaling consistency (section 4 of the paper).

    Amplified parameters make a network err on clean images, but a trigger's answer stays certain. BatchNorms are taken from the last
    backwards, in the order in which the network lists them; k is the smallest number of amplified ones at which the error on the clean
    hold-out exceeds `error`. The score is the mean over k, k + 1, ... k + n - 1 amplified BatchNorms. The defaults are the paper's.

    A network with fewer than k + n - 1 BatchNorms has fewer copies, down to one; the table `depths` says which. The method was built for
    nets of 20 and more; on few it is a rough form of itself. Where no k reaches the error, no copy tells anything, and the defense does
    not apply (the code of BackdoorBox then fails, its start being None).

    `variant: published` counts as BackdoorBox does: the copies have one BatchNorm more than the k that was found, the k at which all
    BatchNorms are amplified is never tried, and past the first BatchNorm the same copy counts again. Beside that code, on a net of 21
    BatchNorms: the same k, and scores equal to 2e-7. That code scores only test images whose answer is their label, hence successful
    attacks alone; here all are scored, and the successful ones again apart (as for every detector).
    """

    name = "ibd-psc"
    summary = "rejects inputs whose class stays certain under amplified BatchNorms"
    reference = Reference(
        "Hou et al., IBD-PSC: Input-level Backdoor Detection via Parameter-oriented Scaling Consistency",
        2024,
        "https://arxiv.org/abs/2405.09786",
    )
    needs = frozenset({Need.MODEL, Need.CLEAN_DATA})
    gives = frozenset({Give.DETECTOR})

    class Config(Options):
        """Defaults: the paper's."""

        scale: float = Field(1.5, gt=0, le=100, description="what weight and bias of a BatchNorm are multiplied with")
        error: float = Field(0.6, ge=0, lt=1, description="share of the hold-out that the first copy must get wrong (the paper's xi)")
        copies: int = Field(5, ge=1, le=100, description="amplified copies (the paper's n), fewer where BatchNorms run out")
        threshold: float = Field(0.9, ge=0, le=1, description="mean confidence above which an input is rejected (the paper's T)")
        variant: Literal["paper", "published"] = Field("paper", description="published: copies counted as in BackdoorBox")

    config: Config

    def defend(self, evidence: Evidence) -> Outcome:
        network, layers = evidence.network, len(scalable(evidence.network))
        published = self.config.variant == "published"
        errors: list[float] = []
        for depth in range(1, layers + (0 if published else 1)):
            errors.append(error(network, depth, self.config.scale, evidence))
            if errors[-1] > self.config.error:
                break
        else:
            most = f"the error on the hold-out is {max(errors):.2f} at the most" if errors else "there is none to amplify"
            raise NotApplicable(f"no number of amplified BatchNorms (of {layers}) exceeds an error of {self.config.error:g}: {most}")
        if published:
            depths = [min(depth + 1 + copy, layers) for copy in range(self.config.copies)]
        else:
            depths = list(range(depth, min(depth + self.config.copies, layers + 1)))
        records = [{"batchnorms": layers, "amplified": tried, "error": round(value, 4)} for tried, value in enumerate(errors, 1)]
        used = [{"copy": place, "amplified": each} for place, each in enumerate(depths, 1)]
        detector = AmplifiedConfidence(network, depths, self.config.scale, self.config.threshold).to(evidence.device).eval()
        return Outcome(detector=detector, tables={"search": records, "depths": used})


def scalable(network: Network) -> list[str]:
    """The BatchNorms that have a weight and a bias, by name inside the network, the last one first."""
    return [f"backbone.{name}" for name, norm in network.norms.items() if norm.affine][::-1]


def amplified(network: Network, depth: int, scale: float, images: Tensor) -> Tensor:
    """The logits of the network with weight and bias of its last `depth` BatchNorms times `scale`; the network stays as it is."""
    parameters = dict(network.named_parameters())
    names = [f"{norm}.{part}" for norm in scalable(network)[:depth] for part in ("weight", "bias")]
    logits: Tensor = functional_call(network, {name: parameters[name] * scale for name in names}, (images,))
    return logits


@torch.no_grad()
def error(network: Network, depth: int, scale: float, evidence: Evidence) -> float:
    """Share of the hold-out that the amplified copy gets wrong."""
    clean = evidence.clean
    wrong = [
        amplified(network, depth, scale, images).argmax(1) != labels for images, labels in evidence.batches(clean.images, clean.labels)
    ]
    return float(torch.cat(wrong).double().mean())


@hookimpl
def register_defenses(register: Callable[[type[Defense]], None]) -> None:
    register(IBDPSC)
