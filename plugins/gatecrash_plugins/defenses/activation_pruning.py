"""Activation pruning: switch off channels of the last layer by mean activation until accuracy has dropped by X."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field

from gatecrash import Defense, Evidence, Give, Need, Options, Outcome, Reference, hookimpl, last_activations, pruning_curve

LIU = Reference(
    "Liu et al., Fine-Pruning: defending against backdooring attacks on deep neural networks", 2018, "https://arxiv.org/abs/1805.12185"
)


class ActivationPruning(Defense):
    """The pruning defense of Liu et al. (section 3.1), without fine-tuning and in either order.

    Channels of the last point are switched off one by one, ordered by mean activation on the clean hold-out (ties: lowest index first),
    until hold-out accuracy is at least `max_drop` (absolute) below the original; the channel with which that happens is off too. At least
    one channel stays. The trajectory goes over the whole curve.

    The paper averages a neuron's activation and does not say where. Its authors' code reads the output of the pooling layer behind the
    convolution that is pruned (`after-pooling`), and so did report B. `before-pooling` reads the convolution's own map.
    """

    name = "activation-pruning"
    summary = "prune the last layer's channels by clean activation until accuracy drops by X; no fine-tuning"
    reference = LIU
    needs = frozenset({Need.MODEL, Need.CLEAN_DATA})
    gives = frozenset({Give.CLASSIFIER})
    version = 2

    class Config(Options):
        """Where to stop, from which end to start, and which activations count."""

        max_drop: float = Field(0.02, ge=0, le=1, description="stop once hold-out accuracy is this much (absolute) below the original")
        order: Literal["increasing", "decreasing"] = Field(
            "increasing", description="prune dormant channels first, or the most active ones"
        )
        activations: Literal["after-pooling", "before-pooling"] = Field(
            "after-pooling", description="averaged per channel: what pooling hands to the head (the authors' code), or the map before it"
        )

    config: Config

    def defend(self, evidence: Evidence) -> Outcome:
        network = evidence.network
        pooled = self.config.activations == "after-pooling"
        means = last_activations(network, evidence.clean.images, evidence.batches, pooled=pooled)
        order = means.argsort(stable=True, descending=self.config.order == "decreasing")
        curve = pruning_curve(network, evidence.clean, order, evidence.batches)
        steps = range(1, len(curve.correct))
        # A net with one channel has nothing to prune; one whose accuracy never drops that far keeps its last channel.
        chosen = next((pruned for pruned in steps if curve.lost(pruned, self.config.max_drop)), len(curve.correct) - 1)
        network.points[curve.point].set_mask(curve.mask(chosen))
        return Outcome(classifier=network, trajectory=curve.trajectory(chosen), tables={"pruning": curve.table(means)})


@hookimpl
def register_defenses(register: Callable[[type[Defense]], None]) -> None:
    register(ActivationPruning)
