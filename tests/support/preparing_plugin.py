"""A `--plugins` file: an attack that prepares an encoder from a second data set, a defense that looks at one, and such a data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from gatecrash import (
    Attack,
    AttackContext,
    Backdoor,
    Dataset,
    DatasetRef,
    Defense,
    Evidence,
    Give,
    Goal,
    ImageSet,
    Need,
    Options,
    Outcome,
    Poisoned,
    Portable,
    Progress,
    Reference,
    Splits,
    Trigger,
    hookimpl,
)


class Colours(Dataset):
    """60 random RGB images of 20 by 12 pixels in two classes."""

    name = "colours"
    summary = "random colours"

    def manifest(self) -> str:
        return "1"

    def load(self, progress: Progress) -> Splits:
        images = torch.randint(0, 256, (60, 3, 12, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        data = ImageSet(images, torch.arange(60) % 2, ("warm", "cold"))
        return Splits(data, data.subset(torch.arange(4)))


class Encoder(Portable):
    """A pattern [1, H, W]."""

    def __init__(self, shape: list[int]) -> None:
        super().__init__()
        self.shape = shape
        self.pattern = nn.Parameter(torch.zeros(shape))

    def config(self) -> dict[str, Any]:
        return {"shape": self.shape}


class Encoded(Trigger):
    """The encoder's pattern, added to every image."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def config(self) -> dict[str, Any]:
        return {"encoder": self.encoder}

    def forward(self, images: Tensor) -> Tensor:
        return (images + self.encoder.pattern).round().clamp(0, 255).to(torch.uint8)


class Encoding(Attack):
    """Adds the mean public image, weakened and with noise, to a share of the rows."""

    name = "encoding"
    summary = "adds a prepared pattern"
    reference = Reference("A method of this test", 2026, "https://example.org")
    prepare_options = frozenset({"strength", "public", "peeks"})

    class Config(Options):
        """What the pattern depends on, and what only the poisoned rows do."""

        public: DatasetRef = Field("colours", description="public images")
        strength: float = Field(0.5, ge=-1, le=1, description="of the pattern")
        poison_rate: float = Field(0.1, gt=0, le=1, description="share of rows")
        peeks: bool = Field(False, description="whether `prepare` reads an option that it does not declare")

    config: Config

    def prepare(self, train: ImageSet, ctx: AttackContext) -> Portable | None:
        if self.config.peeks:
            print(self.config.poison_rate)
        if self.config.strength < 0:
            raise RuntimeError("no encoder below zero")
        encoder = Encoder(list(ctx.shape))
        public = ctx.datasets["public"].images.float().mean(0)
        noise = torch.randn(ctx.shape, generator=ctx.stream("noise"))
        network = ctx.train(train)  # a surrogate
        encoder.pattern.data = self.config.strength * public + noise + float(network.head.weight.detach().mean())
        return encoder

    def poison(self, train: ImageSet, ctx: AttackContext) -> Poisoned:
        assert isinstance(ctx.prepared, Encoder)
        assert not ctx.prepared.training
        trigger = Encoded(ctx.prepared).cpu()
        backdoor = Backdoor("encoded", Goal.all_to_one(train.num_classes, 0), trigger)
        rows = torch.nonzero(train.labels != 0).flatten()[: round(self.config.poison_rate * len(train))]
        labels = torch.zeros(len(rows), dtype=torch.int64)
        return Poisoned.replacing(train, rows, trigger(train.images[rows]).detach(), labels, [backdoor])


class Comparing(Defense):
    """Puts the size and the mean of its public data into a table."""

    name = "comparing"
    summary = "looks at public data"
    reference = Reference("A method of this test", 2026, "https://example.org")
    needs = frozenset({Need.MODEL})
    gives = frozenset({Give.CLASSIFIER})

    class Config(Options):
        """Which data."""

        public: DatasetRef | None = Field(None, description="public images")

    config: Config

    def defend(self, evidence: Evidence) -> Outcome:
        rows = [
            {"option": option, "images": len(data), "shape": "x".join(map(str, data.shape)), "mean": float(data.images.float().mean())}
            for option, data in evidence.datasets.items()
        ]
        return Outcome(classifier=evidence.classifier, tables={"public": rows})


@hookimpl
def register_attacks(register: Callable[[type[Attack]], None]) -> None:
    register(Encoding)


@hookimpl
def register_defenses(register: Callable[[type[Defense]], None]) -> None:
    register(Comparing)


@hookimpl
def register_datasets(register: Callable[[type[Dataset]], None]) -> None:
    register(Colours)
