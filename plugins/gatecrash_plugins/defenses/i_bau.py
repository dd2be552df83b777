"""I-BAU: unlearns the worst universal perturbation, with a gradient that knows how this perturbation moves with the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from gatecrash import Defense, Evidence, Give, ImageSet, Need, Network, Options, Outcome, Reference, accuracy, hookimpl

SHARES = {"paper": 1.0, "published": 0.01}
"""Share of a batch that gets the perturbation, by variant."""

SLACK = 1e-6
"""Pixels are clipped to [0, 1] and this much more, so that the gradient passes where an image is black or white."""


class IBAU(Defense):
    """One perturbation d for all images: min over w of max over |d| <= C of the mean CE(f_w(x + d), y) (section 3 of the paper).

    Each round looks for d from 0 on: one pass of gradient steps that lower -CE + `penalty` |d|^2, where CE is against what the model
    says of the clean image; then d is cut back to the L2 ball. The weights take one Adam step per batch along the implicit hypergradient
    (Grazzi et al. 2020: fixed-point iteration of the map d -> d - `step_size` x gradient). The network stays in eval mode.

    C = 10 is meant for 3 x 32 x 32 pixels in [0, 1]: 0.18 per pixel. On 16 x 16 digits it is 0.6 per pixel.

    Validated: three rounds of `published` with `share: 1` agree with the authors' code (github.com/YiZeng623/I-BAU) to float64's error.
    `paper` is the formula above; in that code the ball is commented out, x + d is not clipped to [0, 1], d goes to 1% of each batch (to no
    image of a batch under 100), and the inner loss of every hypergradient is that of the first batch. The authors' notebooks have the ball,
    and one of them clips, but they too perturb 1% (`share: 0.01`), which costs far less accuracy. Both variants draw batches from the
    hold-out, anew in each round; that code takes test images in their order.
    """

    name = "i-bau"
    summary = "unlearn the worst universal perturbation by the implicit hypergradient of a minimax"
    reference = Reference(
        "Zeng et al., Adversarial Unlearning of Backdoors via Implicit Hypergradient", 2022, "https://arxiv.org/abs/2110.03735"
    )
    needs = frozenset({Need.MODEL, Need.CLEAN_DATA})
    gives = frozenset({Give.CLASSIFIER})

    class Config(Options):
        """Defaults: the authors' code (BackdoorBench: lr 1e-4, batches of 256)."""

        rounds: int = Field(5, ge=1, le=10_000, description="times that a perturbation is looked for and unlearned")
        lr: float = Field(1e-3, gt=0, le=1, description="learning rate of the weights (Adam)")
        batch_size: int = Field(100, ge=1, le=65_536, description="hold-out images per step")
        radius: float = Field(10.0, gt=0, le=10_000, description="largest L2 norm of the perturbation, for pixels in [0, 1]")
        attack_lr: float = Field(10.0, gt=0, le=10_000, description="step size of the search for the perturbation")
        penalty: float = Field(1e-3, ge=0, le=100, description="weight of the perturbation's squared L2 norm in the search")
        iterations: int = Field(5, ge=1, le=1000, description="fixed-point iterations of a hypergradient")
        step_size: float = Field(0.1, gt=0, le=10, description="step size of the map whose fixed point the perturbation is taken for")
        share: float | None = Field(
            None, ge=0, le=1, description="share of a batch that gets the perturbation, rounded down; by default all, in `published` 1%"
        )
        variant: Literal["paper", "published"] = Field(
            "paper", description="paper: bounded, clipped, on the whole batch; published: as the authors' code has it"
        )

    config: Config

    def defend(self, evidence: Evidence) -> Outcome:
        network, clean, config = evidence.network, evidence.clean, self.config
        optimizer = torch.optim.Adam(network.parameters(), lr=config.lr)
        orders, draws = evidence.stream("batches"), evidence.stream("rows")
        records: list[dict[str, float | Tensor]] = []
        for _ in range(config.rounds):
            order = torch.randperm(len(clean), generator=orders).to(clean.device, non_blocking=True)
            batches = torch.split(order, config.batch_size)
            found = self.search(network, clean, batches)
            delta = found if config.variant == "published" else project(found, config.radius)
            for rows in batches:
                self.unlearn(network, clean, rows, batches[0] if config.variant == "published" else rows, delta, optimizer, draws)
            acc = accuracy(network, clean, evidence.batches)
            records.append({"norm_found": torch.linalg.vector_norm(found), "norm": torch.linalg.vector_norm(delta), "holdout_acc": acc})
        rounds = [{"round": at, **{name: round(float(value), 4) for name, value in row.items()}} for at, row in enumerate(records, 1)]
        return Outcome(classifier=network, tables={"rounds": rounds})

    def search(self, network: Network, clean: ImageSet, batches: Sequence[Tensor]) -> Tensor:
        """The perturbation float [C, H, W] that one pass of gradient steps finds; its norm is not bounded yet."""
        delta = torch.zeros(clean.images.shape[1:], device=clean.device)
        for rows in batches:
            images = pixels(clean, rows)
            with torch.no_grad():
                own = network(images).argmax(1)
            delta.requires_grad_()
            (slope,) = torch.autograd.grad(self.inner(network, images, own, delta), delta)
            delta = delta.detach() - self.config.attack_lr * slope
        return delta

    def unlearn(
        self,
        network: Network,
        clean: ImageSet,
        rows: Tensor,
        inner_rows: Tensor,
        delta: Tensor,
        optimizer: torch.optim.Optimizer,
        draws: torch.Generator,
    ) -> None:
        """One step of the weights on the batch `rows`; `inner_rows` are the images of the search whose answer to the weights counts."""
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        share = SHARES[self.config.variant] if self.config.share is None else self.config.share
        # The tiny term undoes float error: 0.29 * 100 is 28.999999999999996.
        chosen = torch.randperm(len(rows), generator=draws) < int(len(rows) * share + 1e-9)
        triggered = chosen.float().view(-1, 1, 1, 1).to(delta.device, non_blocking=True)

        def inner(delta: Tensor) -> Tensor:
            return self.inner(network, pixels(clean, inner_rows), clean.labels[inner_rows], delta)

        def outer(delta: Tensor) -> Tensor:
            logits: Tensor = network(self.perturbed(pixels(clean, rows), triggered * delta))
            return F.cross_entropy(logits, clean.labels[rows])

        gradients = hypergradient(inner, outer, delta, weights, self.config.iterations, self.config.step_size)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        optimizer.step()

    def inner(self, network: Network, images: Tensor, labels: Tensor, delta: Tensor) -> Tensor:
        """What the search lowers."""
        loss: Tensor = self.config.penalty * delta.square().sum() - F.cross_entropy(network(self.perturbed(images, delta)), labels)
        return loss

    def perturbed(self, images: Tensor, delta: Tensor) -> Tensor:
        return images + delta if self.config.variant == "published" else (images + delta).clamp(-SLACK, 1 + SLACK)


def pixels(clean: ImageSet, rows: Tensor) -> Tensor:
    """float [B, C, H, W] in [0, 1]."""
    return clean.images[rows].float() / 255


def project(delta: Tensor, radius: float) -> Tensor:
    """The nearest point of the L2 ball around 0."""
    length: Tensor = torch.linalg.vector_norm(delta)
    return delta * (radius / length.clamp(min=radius))


def hypergradient(
    inner: Callable[[Tensor], Tensor],
    outer: Callable[[Tensor], Tensor],
    delta: Tensor,
    weights: Sequence[Tensor],
    iterations: int,
    step_size: float,
) -> list[Tensor]:
    """The gradient of outer(delta) by the weights, where delta is taken for the minimum of `inner`, which moves with the weights.

    The exact one has v = (1 - J)^-1 times the gradient of `outer` by delta, J the Jacobian of delta -> delta - step_size x gradient of
    `inner`; the iteration v <- J v + that gradient, from 0, stops after `iterations`.
    """
    delta = delta.detach().requires_grad_()
    by_delta, *direct = torch.autograd.grad(outer(delta), [delta, *weights], materialize_grads=True)
    (slope,) = torch.autograd.grad(inner(delta), delta, create_graph=True)
    mapped = delta - step_size * slope
    v = by_delta  # the first iteration
    for _ in range(iterations - 1):
        v = torch.autograd.grad(mapped, delta, v, retain_graph=True)[0] + by_delta
    indirect = torch.autograd.grad(mapped, list(weights), v, materialize_grads=True)
    return [one + other for one, other in zip(direct, indirect, strict=True)]


@hookimpl
def register_defenses(register: Callable[[type[Defense]], None]) -> None:
    register(IBAU)
