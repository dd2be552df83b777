"""The contract of trigger plugins: from options to a `Trigger` for images of one shape. Any attack can take one by name."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from gatecrash.contracts.classifier import Network
from gatecrash.contracts.config import Nested, Options
from gatecrash.contracts.data import ImageSet
from gatecrash.contracts.randomness import Streams
from gatecrash.contracts.reference import Reference
from gatecrash.contracts.trigger import Trigger
from gatecrash.errors import ContractError


@dataclass(frozen=True)
class TriggerContext:
    """What a trigger can be made from. Streams are the attack's.

    `train` is the training set as the attack gets it, None where the trigger does not declare `needs_data`; `benign` the benign victim of
    the same dataset, model, recipe and seed, None without `needs_benign`.
    """

    shape: tuple[int, int, int]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    stream: Streams = field(default_factory=Streams)
    train: ImageSet | None = None
    benign: Network | None = None


class TriggerMaker(Nested):
    """One kind of trigger = one subclass in one file, registered by `register_triggers`."""

    name: ClassVar[str]
    summary: ClassVar[str]
    reference: ClassVar[Reference | None] = None
    version: ClassVar[int] = 1
    """Raise it whenever the trigger may change: it is part of every key."""
    deviations: ClassVar[Mapping[str, str]] = {}
    """Checks of `gatecrash check` that this trigger fails on purpose: name -> reason, which is shown instead of a failure."""
    needs_data: ClassVar[bool] = False
    needs_benign: ClassVar[bool] = False

    class Config(Options):
        """No options."""

    config: Options

    def __init__(self, config: Options | None = None) -> None:
        self.config = config if config is not None else self.Config()

    @abstractmethod
    def make(self, ctx: TriggerContext) -> Trigger:
        """The trigger that the evaluation applies to test images."""

    def make_train(self, ctx: TriggerContext) -> Trigger:
        """The trigger of poisoned training images, where it differs (another opacity, say)."""
        return self.make(ctx)

    def make_cover(self, ctx: TriggerContext) -> Trigger:
        """The trigger of cover images, which keep their true label, for methods that have one (noise beside WaNet's warp, say)."""
        raise ContractError(f"the trigger {self.name} has no covers")

    @property
    def has_covers(self) -> bool:
        return type(self).make_cover is not TriggerMaker.make_cover

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raise UserError if it cannot be made for images (channels, height, width); called when planning, before anything runs."""
        if not (self.needs_data or self.needs_benign):
            self.make(TriggerContext(shape))
            self.make_train(TriggerContext(shape))
