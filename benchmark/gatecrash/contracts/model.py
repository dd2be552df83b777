"""The Model contract: a named architecture that can be built for any number of classes and image shape."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from gatecrash.contracts.classifier import Backbone
from gatecrash.contracts.config import Options
from gatecrash.contracts.reference import Reference
from gatecrash.errors import UserError


class Model(ABC):
    """One architecture = one subclass. `build` returns an initialised Backbone (from torch's global generator, which is seeded)."""

    name: ClassVar[str]
    summary: ClassVar[str]
    reference: ClassVar[Reference | None] = None
    version: ClassVar[int] = 1
    min_size: ClassVar[int] = 1
    """Smallest image side in pixels that the architecture can take."""
    max_size: ClassVar[int | None] = None

    class Config(Options):
        """No options."""

    config: Options
    """The options of this instance; a plugin writes `config: Config` in its class body, so that a type checker knows its fields."""

    def __init__(self, config: Options | None = None) -> None:
        self.config = config if config is not None else self.Config()

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raise UserError if the model cannot take images of this shape; called when planning."""
        side = min(shape[1:])
        if side < self.min_size:
            raise UserError(
                f"model {self.name} needs images of at least {self.min_size} pixels; these are {shape[2]}x{shape[1]}; "
                "choose another model or resize the dataset"
            )
        if self.max_size is not None and max(shape[1:]) > self.max_size:
            raise UserError(
                f"model {self.name} takes images of at most {self.max_size} pixels; these are {shape[2]}x{shape[1]}; "
                "choose another model or resize the dataset"
            )

    @abstractmethod
    def build(self, num_classes: int, shape: tuple[int, int, int]) -> Backbone:
        """A freshly initialised backbone for images `(channels, height, width)`."""
