"""SAU: unlearns adversarial examples by which the student and the backdoored victim are fooled alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from gatecrash import Defense, Evidence, Give, Need, Network, Options, Outcome, Reference, hookimpl

Logits = Callable[[Tensor], Tensor]
"""Images float [B, C, H, W] -> float32 [B, K]."""


class SAU(Defense):
    """Shared adversarial unlearning (section 4.2 of the paper, algorithm 1).

    An adversarial example of the student that fools the victim into the same class may use the backdoor. In each step PGD from +`bound`
    finds such examples for the batch: it lowers the Jensen-Shannon divergence of the two answers minus `adversarial` times the
    cross-entropy of the networks that are not fooled yet, and leaves an image alone once both err alike. Then the student takes an Adam
    step that lowers the cross-entropy of the clean images plus `unlearning` times the mean -log(1 - p) of what the victim takes the example
    for, where the victim errs (neither the label nor its answer to the clean image).

    As in the authors' code, which is the SAU of BackdoorBench: eval mode throughout, so that BatchNorm's statistics stay; no augmentation;
    AMSGrad and a fixed rate (a cosine is made there but never stepped); a p under 0.001 has no gradient.

    Validated: examples, loss and gradient agree with that code to float error (`published`). `paper` clips the examples to [0, 1], as the
    paper's set of perturbations can be read; in that code the clipping is commented out.
    """

    name = "sau"
    summary = "unlearn adversarial examples that fool the student and the backdoored victim alike"
    reference = Reference(
        "Wei et al., Shared Adversarial Unlearning: Backdoor Mitigation by Unlearning Shared Adversarial Examples",
        2023,
        "https://arxiv.org/abs/2307.10562",
    )
    needs = frozenset({Need.MODEL, Need.CLEAN_DATA})
    gives = frozenset({Give.CLASSIFIER})

    class Config(Options):
        """Defaults: the paper's; learning rate, batch and step size from the authors' code."""

        epochs: int = Field(100, ge=1, le=10_000, description="passes over the hold-out")
        lr: float = Field(1e-4, gt=0, le=1, description="learning rate (Adam)")
        batch_size: int = Field(256, ge=1, le=65_536, description="hold-out images per step")
        bound: float = Field(0.2, gt=0, le=1, description="largest change of a pixel, for pixels in [0, 1]")
        steps: int = Field(5, ge=1, le=1000, description="sign-gradient steps of the search for examples")
        step_size: float = Field(0.2, gt=0, le=1, description="what a step changes each pixel by")
        adversarial: float = Field(0.01, ge=0, le=100, description="weight of the cross-entropy in the search, against a divergence of 1")
        unlearning: float = Field(1.0, ge=0, le=1000, description="weight of the shared examples, against a cross-entropy of 1")
        variant: Literal["paper", "published"] = Field("paper", description="published: examples may leave [0, 1]")

    config: Config

    def defend(self, evidence: Evidence) -> Outcome:
        network, clean, config = evidence.network, evidence.clean, self.config
        optimizer = torch.optim.Adam(network.parameters(), lr=config.lr, amsgrad=True)
        orders = evidence.stream("batches")

        def logits_of(model: Network) -> Logits:
            def logits(images: Tensor) -> Tensor:
                with evidence.autocast():
                    found: Tensor = model(images)
                return found.float()

            return logits

        student, victim = logits_of(network), logits_of(network.duplicate().to(evidence.device).requires_grad_(False))
        sums = torch.zeros(config.epochs, 3, device=evidence.device)
        for epoch in range(config.epochs):
            order = torch.randperm(len(clean), generator=orders).to(clean.device, non_blocking=True)
            for rows in torch.split(order, config.batch_size):
                images, labels = clean.images[rows].float() / 255, clean.labels[rows]
                examples = self.shared_examples(student, victim, images, labels)
                with torch.no_grad():
                    own, fooled = victim(images).argmax(1), victim(examples).argmax(1)
                logits, perturbed = student(torch.cat([images, examples])).chunk(2)
                loss = F.cross_entropy(logits, labels)
                shared = unlearning(perturbed, labels, own, fooled)
                optimizer.zero_grad()
                (loss + config.unlearning * shared).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                alike = ((fooled != labels) & (fooled != own) & (perturbed.argmax(1) == fooled)).float().mean()
                sums[epoch] += len(rows) / len(clean) * torch.stack([loss, shared, alike]).detach()
        records = [
            {"epoch": at, "clean_loss": round(loss, 4), "unlearning_loss": round(shared, 4), "shared": round(alike, 4)}
            for at, (loss, shared, alike) in enumerate(sums.tolist(), 1)
        ]
        return Outcome(classifier=network, tables={"epochs": records})

    def shared_examples(self, student: Logits, victim: Logits, images: Tensor, labels: Tensor) -> Tensor:
        """`images`, float [B, C, H, W] in [0, 1], perturbed by up to `bound`."""
        config = self.config

        def within(change: Tensor) -> Tensor:
            change = change.clamp(-config.bound, config.bound)
            return change if config.variant == "published" else (images + change).clamp(0, 1) - images

        with torch.no_grad():
            own = student(images).argmax(1), victim(images).argmax(1)
        change = within(torch.full_like(images, config.bound))
        for _ in range(config.steps):
            change.requires_grad_()
            examples = images + change
            loss = search_loss(student(examples), victim(examples), labels, *own, config.adversarial)
            (slope,) = torch.autograd.grad(loss, change)
            change = within(change.detach() - config.step_size * slope.sign())
        return images + change


def search_loss(student: Tensor, victim: Tensor, labels: Tensor, student_own: Tensor, victim_own: Tensor, adversarial: float) -> Tensor:
    """What the search lowers, from the logits [B, K] for its examples: a sum over the images, of which none moves another.

    `student_own` and `victim_own` are the classes that both take the clean images for.
    """
    by_student, by_victim = student.argmax(1), victim.argmax(1)
    fooled, victim_fooled = by_student != student_own, by_victim != victim_own
    entropies = F.cross_entropy(student, labels, reduction="none") * ~fooled
    entropies = entropies + F.cross_entropy(victim, labels, reduction="none") * ~victim_fooled
    shared = fooled & victim_fooled & (by_student == by_victim)
    return (divergence(student, victim) * ~shared - adversarial * entropies / 2).sum()


def divergence(first: Tensor, second: Tensor) -> Tensor:
    """Jensen-Shannon divergence [B] of what two networks with logits [B, K] say, in nats; probabilities count as 1e-8 at least."""
    p, q = (logits.softmax(1).clamp(min=1e-8) for logits in (first, second))
    middle = (p + q) / 2
    return ((p * p.log() + q * q.log()) / 2 - (p * middle.log() + q * middle.log()) / 2).sum(1)


def unlearning(student: Tensor, labels: Tensor, victim_own: Tensor, victim_fooled: Tensor) -> Tensor:
    """Mean over the batch of -log(1 - p), p the student's probability of `victim_fooled`, of images for which the victim errs; else 0.

    `student` are logits [B, K] for the examples; the victim takes them for `victim_fooled`, and the clean images for `victim_own`. The sum
    of the other classes' probabilities is exact where 1 - p would be rounded to 0.
    """
    errs = (victim_fooled != labels) & (victim_fooled != victim_own)
    others = student.softmax(1).scatter(1, victim_fooled.unsqueeze(1), 0).sum(1)
    return (-(1e-6 + others.clamp(max=0.999)).log() * errs).mean()


@hookimpl
def register_defenses(register: Callable[[type[Defense]], None]) -> None:
    register(SAU)
