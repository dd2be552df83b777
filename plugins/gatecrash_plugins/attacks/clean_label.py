"""Clean-Label: target-class images are made hard to classify, so that the network learns the trigger instead. Labels stay true."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from gatecrash import (
    Attack,
    AttackContext,
    Classifier,
    ContractError,
    PoisonConfig,
    Reference,
    Trigger,
    TriggerAttack,
    TriggerContext,
    TriggerMaker,
    TriggerRef,
    hookimpl,
)
from gatecrash_plugins.triggers.contrast import ContrastMaker

_OF_PGD = ("step", "iterations", "restarts", "early_stop")
"""Options that one step has no use for."""


class CleanLabel(TriggerAttack):
    """The label-consistent attack with adversarial perturbations bounded in L-infinity (section 4.2 of the paper).

    Projected gradient descent moves target-class images away from their class, as the benign victim of the same dataset, model, recipe and
    seed sees it; then they get the trigger, at all four corners because random crops and flips would often lose or move a single one. The
    paper's bounds go up to 32 of 255; the default is half of that. The random start, the step of epsilon / iterations, restarts and early
    stop are as in published reproductions on CIFAR-10.

    `method: fgsm` is one step of the whole epsilon without a random start, x + epsilon sign(grad CE(x, y)) (Goodfellow et al. 2015,
    section 4), y being the image's own class: the step leads away from it. The same formula with the *target's* label of a poisoned image
    of another class would raise its loss too, and so lead away from the target. Pixels stay within [0, 1].

    The default trigger is `contrast`; its page says whose patterns there are.

    The poisoned share is of the whole training set, as everywhere, and can be no larger than the target class's share.
    """

    name = "clean-label"
    summary = "adversarially perturbed target-class images with a corner trigger, labels true"
    reference = Reference("Turner, Tsipras and Madry, Label-Consistent Backdoor Attacks", 2019, "https://arxiv.org/abs/1912.02771")
    clean_label = True
    needs_benign = True

    class Perturbation(PoisonConfig):
        """Perturbation, target and rate."""

        NEWER = frozenset({"method"})

        goal: Literal["all-to-one"] = Field("all-to-one", description="the poisoned images are of one class, so triggered ones become it")
        epsilon: float = Field(
            16 / 255, ge=1 / 255, le=1, description="largest change of a pixel, of its range [0, 1]; used down to whole levels of 255"
        )
        step: float | None = Field(None, gt=0, le=1, description="change per iteration, of [0, 1]; by default epsilon / iterations")
        iterations: int = Field(10, ge=1, le=10_000, description="gradient steps per start")
        restarts: int = Field(1, ge=1, le=1000, description="random starts; the one with the greatest loss is kept for each image")
        early_stop: bool = Field(False, description="leave an image as soon as the benign victim misclassifies it")
        method: Literal["pgd", "fgsm"] = Field(
            "pgd", description="projected gradient descent, or one step of epsilon without a random start"
        )

        @model_validator(mode="after")
        def _one_step_has_no_options(self) -> Self:
            given = [name for name in _OF_PGD if getattr(self, name) != type(self).model_fields[name].default]
            if self.method == "fgsm" and given:
                raise ValueError(f"{given[0]} is for method pgd only; fgsm is one step of epsilon")
            return self

    class Config(ContrastMaker.Config, Perturbation):
        """Perturbation, target, rate and trigger."""

        NEWER = frozenset({"trigger"})
        trigger: TriggerRef | None = Field(
            None, description="another trigger on the perturbed images; by default contrast, by pattern, size, place, inset and amplitude"
        )

        @model_validator(mode="after")
        def _another_trigger_stands_alone(self) -> Self:
            if self.trigger is not None and (self.trigger.needs_data or self.trigger.needs_benign):
                raise ValueError(f"the trigger {self.trigger.name} is made from data or a model; use it with dirty-label and clean_label")
            given = [name for name, field in ContrastMaker.Config.model_fields.items() if getattr(self, name) != field.default]
            if self.trigger is not None and given:
                raise ValueError(f"{given[0]} is of the default trigger, contrast; give the trigger {self.trigger.name} its own options")
            return self

    config: Config

    def trigger(self, shape: tuple[int, int, int]) -> Trigger:
        return self._maker.make(TriggerContext(shape))

    def train_trigger(self, shape: tuple[int, int, int]) -> Trigger:
        return self._maker.make_train(TriggerContext(shape))

    @property
    def _maker(self) -> TriggerMaker:
        return self.config.trigger or ContrastMaker(self.config)

    def craft(self, images: Tensor, labels: Tensor, trigger: Trigger, ctx: AttackContext) -> Tensor:
        return super().craft(self.perturb(images, labels, ctx), labels, trigger, ctx)

    def perturb(self, images: Tensor, labels: Tensor, ctx: AttackContext) -> Tensor:
        """uint8 [n, C, H, W] on the context's device: the images before they get the trigger."""
        if ctx.benign is None:
            raise ContractError(f"{self.name} needs the benign victim of its dataset, model, recipe and seed")
        config, one_step = self.config, self.config.method == "fgsm"
        # One stream per restart, drawn image after image: a start depends neither on the batch size nor on the number of restarts.
        streams = [ctx.stream(f"start {restart}") for restart in range(config.restarts)]
        done = []
        for batch, true in ctx.batches(images, labels):
            starts = (torch.zeros(batch.shape) if one_step else 2 * torch.rand(batch.shape, generator=stream) - 1 for stream in streams)
            done.append(
                projected_gradient(
                    ctx.benign,
                    batch,
                    true,
                    starts,
                    epsilon=config.epsilon,
                    step=config.epsilon if one_step else config.step or config.epsilon / config.iterations,
                    iterations=1 if one_step else config.iterations,
                    early_stop=config.early_stop,
                )
            )
        return torch.cat(done)


def projected_gradient(
    network: Classifier,
    images: Tensor,
    labels: Tensor,
    starts: Iterable[Tensor],
    *,
    epsilon: float,
    step: float,
    iterations: int,
    early_stop: bool,
) -> Tensor:
    """uint8 [n, C, H, W] within `epsilon` of `images` (uint8) in L-infinity, with the cross-entropy to `labels` (int64 [n]) driven up.

    Projected gradient ascent with the gradient's sign (Madry et al. 2018), once from each of `starts` (float [n, C, H, W] in [-1, 1], in
    units of epsilon; at least one); of the results, as the uint8 images that they end as, each image keeps the one of greatest loss.
    `epsilon` and `step` are in [0, 1] pixel units. With `early_stop` an image that is misclassified leaves the batch and stays as it is.
    `network` (in eval mode) is left untouched.
    """
    # Bounds on whole levels: rounding at the end cannot leave the ball.
    radius = int(epsilon * 255)
    low = (images.int() - radius).clamp(min=0) / 255
    high = (images.int() + radius).clamp(max=255) / 255
    best, greatest = images, torch.full(labels.shape, -torch.inf, device=images.device)
    for start in starts:
        moved = torch.clamp(images / 255 + epsilon * start.to(images.device), low, high)
        active = torch.arange(len(images), device=images.device)
        for _ in range(iterations):
            current = moved[active].requires_grad_()
            logits = network(current)
            (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels[active], reduction="sum"), current)
            if early_stop:
                correct = logits.argmax(1) == labels[active]
                active, current, gradient = active[correct], current[correct], gradient[correct]
                if not len(active):
                    break
            moved[active] = torch.clamp(current.detach() + step * gradient.sign(), low[active], high[active])
        candidates = (255 * moved).round().to(torch.uint8)
        with torch.no_grad():
            loss = F.cross_entropy(network(candidates), labels, reduction="none")
        better = loss > greatest
        best = torch.where(better.view(-1, 1, 1, 1), candidates, best)
        greatest = torch.where(better, loss, greatest)
    return best


@hookimpl
def register_attacks(register: Callable[[type[Attack]], None]) -> None:
    register(CleanLabel)
