"""Neural Attention Distillation: a fine-tuned copy of the victim teaches it where to look."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from gatecrash import Defense, Evidence, Give, Loss, Need, Network, NotApplicable, Options, Outcome, Recipe, Reference, hookimpl


class NAD(Defense):
    """Fine-tunes the victim on the hold-out while its attention maps are drawn to those of a teacher, the victim fine-tuned alone.

    A stage's attention is the sum of its squared maps over the channels, divided by its norm (p = 2). To cross-entropy is added, for each
    of the network's `stages`, the mean squared difference of the attentions times `first_beta` or, from the second stage on, `beta`.

    Both train as in the authors' code, two epochs at `lr` and the others at a tenth of it (here momentum starts anew at the fall), but the
    last epoch counts, not that of the best test accuracy. With hold-outs of a few hundred images, raise `epochs`: attention needs steps.
    """

    name = "nad"
    summary = "fine-tuning that draws attention maps to those of a fine-tuned teacher"
    reference = Reference(
        "Li et al., Neural Attention Distillation: Erasing Backdoor Triggers from Deep Neural Networks",
        2021,
        "https://arxiv.org/abs/2101.05930",
    )
    needs = frozenset({Need.MODEL, Need.CLEAN_DATA})
    gives = frozenset({Give.CLASSIFIER})

    class Config(Options):
        """Defaults: the authors' code; weights as in BackdoorBench (that code, as it is now, weighs the last stage alone, with 5000)."""

        teacher_epochs: int = Field(10, ge=1, le=10_000, description="epochs in which the teacher is fine-tuned")
        epochs: int = Field(20, ge=1, le=10_000, description="epochs of distillation")
        lr: float = Field(0.1, gt=0, le=10, description="learning rate of the first two epochs; then a tenth of it")
        first_beta: float = Field(500, ge=0, le=1e6, description="weight of the first stage's distance")
        beta: float = Field(1000, ge=0, le=1e6, description="weight of the distance of each later stage")

    config: Config

    def defend(self, evidence: Evidence) -> Outcome:
        student, stages, config = evidence.network, evidence.network.stages, self.config
        if not stages:
            raise NotApplicable("the network names no stages, so there is no attention to distil")
        teacher = self._tune(student.duplicate().to(evidence.device), evidence, config.teacher_epochs)
        betas = (config.first_beta, *[config.beta] * (len(stages) - 1))

        def loss(network: Network, images: Tensor, labels: Tensor, _rows: Tensor) -> Tensor:
            logits, own = network.run(images, stages)
            with torch.no_grad():
                wanted = teacher.activations(images, stages)
            value = F.cross_entropy(logits.float(), labels)
            for beta, stage in zip(betas, stages, strict=True):
                value = value + beta * F.mse_loss(attention(own[stage]), attention(wanted[stage]))
            return value

        return Outcome(classifier=self._tune(student, evidence, config.epochs, loss))

    def _tune(self, network: Network, evidence: Evidence, epochs: int, loss: Loss | None = None) -> Network:
        """Fine-tune on the hold-out, two epochs at the full rate and the others at a tenth."""
        for many, lr in ((min(epochs, 2), self.config.lr), (epochs - 2, self.config.lr / 10)):
            if many > 0:
                recipe = Recipe(epochs=many, lr=lr, batch_size=64, schedule="constant", nesterov=True, weight_decay=1e-4)
                network = evidence.train(evidence.clean, network=network, recipe=recipe, loss=loss, diverges=True)
        return network


def attention(maps: Tensor) -> Tensor:
    """Maps [B, C, H, W] -> float32 [B, H, W]: squares summed over the channels, with norm 1 for each image."""
    return F.normalize(maps.float().square().sum(1), dim=(1, 2))  # type: ignore[arg-type]


@hookimpl
def register_defenses(register: Callable[[type[Defense]], None]) -> None:
    register(NAD)
