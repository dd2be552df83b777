"""DP-SGD: train again with the influence of every image bounded and drowned in noise, so that few poisoned images teach little.

A step draws each row with probability q (batch size / rows), clips each image's gradient to norm C, adds noise of deviation noise * C to
their sum and divides by the expected batch size (Abadi et al. 2016, algorithm 1). The optimiser sees nothing else of the data. GroupNorm
stands for BatchNorm, which lets images influence each other. The channels' means and deviations, which normalise images, count as public.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import functional as F

from gatecrash import Backbone, Defense, Evidence, Give, Need, Network, NotApplicable, Options, Outcome, Reference, hookimpl

MEMORY = 2**27
"""Numbers in the gradients of single images that are held at a time."""


class DPSGD(Defense):
    """Retrains on the suspicious data (Hong et al. 2020, section 4); the table `privacy` has the epsilon that was spent."""

    name = "dp-sgd"
    summary = "retrains with clipped and noisy gradients, so that few images can teach little"
    reference = Reference("Abadi et al., Deep Learning with Differential Privacy", 2016, "https://arxiv.org/abs/1607.00133")
    needs = frozenset({Need.TRAINING_DATA, Need.RETRAIN})
    gives = frozenset({Give.CLASSIFIER})

    class Config(Options):
        """Privacy, and what of the recipe is to differ."""

        noise: float = Field(1.0, ge=0, le=1000, description="deviation of the noise, in units of the clipping norm")
        clip: float = Field(1.0, gt=0, le=1000, description="largest norm of an image's gradient")
        delta: float | None = Field(None, gt=0, lt=1, description="delta of the epsilon; by default 1 / training images")
        epochs: int | None = Field(None, ge=1, le=10_000, description="passes over the training set; by default the recipe's")
        batch_size: int | None = Field(None, ge=1, le=65_536, description="expected images per step; by default the recipe's")
        lr: float | None = Field(None, gt=0, le=100, description="learning rate at its peak; by default the recipe's")

    config: Config

    def defend(self, evidence: Evidence) -> Outcome:
        network, data, draws = evidence.new_model(norm="group"), evidence.training_data, evidence.stream("noise")
        if type(network.backbone).start_from is not Backbone.start_from:
            raise NotApplicable(f"{type(network.backbone).__name__} starts from training images, and no noise hides these")
        noise, clip, steps = self.config.noise, self.config.clip, 0
        recipe = evidence.recipe.model_copy(update=self.config.model_dump(include={"epochs", "batch_size", "lr"}, exclude_none=True))
        size = min(recipe.batch_size, len(data))

        def step(network: Network, optimizer: torch.optim.Optimizer, _: object, images: Tensor, labels: Tensor, _rows: Tensor) -> Tensor:
            nonlocal steps
            steps += 1
            loss, sums = clipped_sums(network, images, labels, clip, recipe.label_smoothing)
            for parameter, total in sums:
                drawn = torch.randn(total.shape, generator=draws).to(total.device, non_blocking=True)
                parameter.grad = (total + noise * clip * drawn) / size
            optimizer.step()
            return loss

        # Where noise wins, the accuracy says so: that is a result, not a failure.
        trained = evidence.train(data, network=network, recipe=recipe, batches="poisson", step=step, diverges=True)
        delta = self.config.delta or 1 / len(data)
        spent = epsilon(size / len(data), noise, steps, delta)
        return Outcome(classifier=trained, tables={"privacy": [{"epsilon": spent, "delta": delta, "steps": steps}]})


def clipped_sums(
    network: Network, images: Tensor, labels: Tensor, clip: float, smoothing: float
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """The mean loss, and each parameter with the sum of its gradients over the images, where each image's have norm `clip` at most."""
    parameters = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    weights = {name: parameter.detach() for name, parameter in parameters.items()}

    def loss(weights: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(network, weights, (image[None],)), label[None], label_smoothing=smoothing)

    of_each = vmap(grad_and_value(loss), in_dims=(None, 0, 0), randomness="different")
    value, sums = torch.zeros((), device=images.device), {name: torch.zeros_like(weight) for name, weight in weights.items()}
    at_a_time = max(1, MEMORY // sum(weight.numel() for weight in weights.values()))
    for start in range(0, len(images), at_a_time):
        gradients, losses = of_each(weights, images[start : start + at_a_time], labels[start : start + at_a_time])
        norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients.values()]).norm(dim=0)
        for name, gradient in gradients.items():
            sums[name] += torch.tensordot(clip / norms.clamp(min=clip), gradient, 1)
        value += losses.sum() / len(images)
    return value, [(parameters[name], total) for name, total in sums.items()]


def epsilon(rate: float, noise: float, steps: int, delta: float) -> float | None:
    """What `steps` steps spend at this sampling rate: Abadi et al. 2016, theorem 2, over whole orders up to 256; None without noise."""
    return min((steps * log_moment(rate, noise, order) - math.log(delta)) / order for order in range(1, 257)) if noise else None


def log_moment(rate: float, noise: float, order: int) -> float:
    """Logarithm of a step's moment, exact for whole orders (Mironov et al. 2019, section 3.3)."""
    drawn = torch.arange(order + 2, dtype=torch.float64)
    ways = math.lgamma(order + 2) - torch.lgamma(drawn + 1) - torch.lgamma(order + 2 - drawn)
    chance = torch.xlogy(drawn, drawn.new_tensor(rate)) + torch.xlogy(order + 1 - drawn, drawn.new_tensor(1 - rate))
    return float(torch.logsumexp(ways + chance + drawn * (drawn - 1) / (2 * noise**2), 0))


@hookimpl
def register_defenses(register: Callable[[type[Defense]], None]) -> None:
    register(DPSGD)
