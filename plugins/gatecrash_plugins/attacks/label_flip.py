"""Random label flips: no trigger, only wrong labels, to cost accuracy."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field

from gatecrash import Attack, AttackContext, DatasetInfo, ImageSet, Options, Poisoned, Reference, UserError, hookimpl


class LabelFlip(Attack):
    """A share of all training labels is exchanged for another class; images stay as they are.

    The plain case of label noise that Biggio et al. set their chosen flips against, here for any number of classes. The new label is drawn
    among the K - 1 *other* classes, so that `flip_rate` is the share that is wrong; a draw among all K would leave one flip in K without
    effect (18% for 20% of ten classes). 20% is the share of a course's notes. Rows are a prefix of one permutation per seed,
    and a row's new label does not depend on the rate: a higher rate flips a superset. Validated by hand-worked counts.
    """

    name = "label-flip"
    summary = "random wrong labels for a share of all images, to cost accuracy"
    reference = Reference(
        "Biggio, Nelson and Laskov, Support Vector Machines Under Adversarial Label Noise",
        2011,
        "https://proceedings.mlr.press/v20/biggio11.html",
    )
    aim = "availability"

    class Config(Options):
        """How many labels are wrong."""

        flip_rate: float = Field(0.2, gt=0, le=1, description="share of all training images that get the label of another class")

    config: Config

    def check(self, info: DatasetInfo) -> None:
        if info.num_classes < 2:
            raise UserError(f"{self.name}: {info.name} has one class, so that no label can be wrong; choose another dataset")
        if not round(self.config.flip_rate * info.train_size):
            raise UserError(f"{self.name}: flip_rate {self.config.flip_rate:g} of {info.train_size} images is none; choose a higher one")

    def poison(self, train: ImageSet, ctx: AttackContext) -> Poisoned:
        order = torch.randperm(len(train), generator=ctx.stream("rows"))
        shift = torch.randint(1, train.num_classes, (len(train),), generator=ctx.stream("shift"))
        rows = order[: round(self.config.flip_rate * len(train))].sort().values.to(train.device)
        labels = (train.labels[rows] + shift.to(train.device)[rows]) % train.num_classes
        return Poisoned.replacing(train, rows, train.images[rows], labels, ())


@hookimpl
def register_attacks(register: Callable[[type[Attack]], None]) -> None:
    register(LabelFlip)
