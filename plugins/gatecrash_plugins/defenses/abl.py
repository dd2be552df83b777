"""Anti-Backdoor Learning: what is learned first is isolated, and unlearned at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from gatecrash import Defense, Evidence, Give, ImageSet, Need, Network, Options, Outcome, Recipe, Reference, TrainState, hookimpl


class ABL(Defense):
    """Trains from scratch on the suspicious data so that the backdoor is found by its low loss and then forgotten.

    1. In the first fifth of the training, local gradient ascent keeps the loss of each image near `gamma` (section 3.2, equation 3):
       sign(loss - gamma) * loss, or flooding, |loss - gamma| + gamma. Backdoored images fall below all the same.
    2. The share `isolate` with the lowest loss is set aside; the training goes on without them, on the same schedule.
    3. Global gradient ascent on what was set aside unlearns the backdoor (equation 4): after the training, as in the authors' code.

    The sign is that of each image's loss, as in the paper; its authors' code takes that of the batch's mean.
    """

    name = "abl"
    summary = "Anti-Backdoor Learning: isolates images whose loss falls first, and unlearns them"
    reference = Reference(
        "Li et al., Anti-Backdoor Learning: Training Clean Models on Poisoned Data", 2021, "https://arxiv.org/abs/2110.11571"
    )
    needs = frozenset({Need.TRAINING_DATA, Need.RETRAIN})
    gives = frozenset({Give.CLASSIFIER, Give.SUSPECTS})

    class Config(Options):
        """Defaults: the paper's (section 4); unlearning as in its authors' code."""

        ascent: Literal["local", "flooding"] = Field("local", description="what holds losses up: local gradient ascent, or flooding")
        gamma: float = Field(0.5, ge=0, le=100, description="loss below which images are held up at first")
        early: float = Field(0.2, gt=0, lt=1, description="share of the training after which images are isolated")
        isolate: float = Field(0.01, gt=0, lt=1, description="share of the images that is isolated and unlearned")
        unlearn_epochs: int = Field(5, ge=0, le=10_000, description="passes over the isolated images, up the gradient; 0: isolate only")
        unlearn_lr: float = Field(5e-4, gt=0, le=10, description="learning rate of unlearning (SGD, momentum 0.9)")

    config: Config

    def defend(self, evidence: Evidence) -> Outcome:
        config, data, state = self.config, evidence.training_data, TrainState()
        network = evidence.train(data, part=(0, config.early), resume=state, loss=self.held_up, diverges=True)
        losses = loss_per_image(network, data, evidence)
        isolated = torch.zeros(len(data), dtype=torch.bool)
        isolated[losses.argsort(stable=True)[: max(1, round(config.isolate * len(data)))]] = True
        network = evidence.train(data.subset(~isolated), part=(config.early, 1), resume=state)
        if config.unlearn_epochs:
            up = {"epochs": config.unlearn_epochs, "lr": config.unlearn_lr, "schedule": "constant", "batch_size": 64, "nesterov": True}
            recipe = Recipe.model_validate({**up, "weight_decay": 1e-4, "crop": 0, "flip": False, "rotation": 0})
            network = evidence.train(data.subset(isolated), network=network, recipe=recipe, loss=ascend, diverges=True)
        return Outcome(classifier=network, suspects=isolated, suspicion=-losses)

    def held_up(self, network: Network, images: Tensor, labels: Tensor, _rows: Tensor) -> Tensor:
        """Mean over the batch of the loss that does not fall below gamma."""
        losses, gamma = F.cross_entropy(network(images).float(), labels, reduction="none"), self.config.gamma
        held = (losses.detach() - gamma).sign() * losses if self.config.ascent == "local" else (losses - gamma).abs() + gamma
        return held.mean()


def ascend(network: Network, images: Tensor, labels: Tensor, _rows: Tensor) -> Tensor:
    """Up the gradient of cross-entropy."""
    return -F.cross_entropy(network(images).float(), labels)


@torch.inference_mode()
def loss_per_image(network: Network, data: ImageSet, evidence: Evidence) -> Tensor:
    """float32 [N] on the CPU: cross-entropy of each image, as it is."""
    return torch.cat([F.cross_entropy(network(x), y, reduction="none") for x, y in evidence.batches(data.images, data.labels)]).cpu()


@hookimpl
def register_defenses(register: Callable[[type[Defense]], None]) -> None:
    register(ABL)
