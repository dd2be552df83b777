"""The Dataset contract: a named source of images that is described cheaply (`manifest`) and decoded on request (`load`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from gatecrash.contracts.config import Options
from gatecrash.contracts.reference import Reference

if TYPE_CHECKING:
    from gatecrash.contracts.data import Splits


Progress = Callable[[int, int], None]
"""`progress(done, total)` while images are decoded."""


class DatasetConfig(Options):
    """Options that every dataset has; the harness applies them after loading."""

    limit: int | None = Field(None, ge=1, description="use only this many training images, stratified by class")
    limit_test: int | None = Field(None, ge=1, description="use only this many test images, stratified by class")


class Dataset(ABC):
    """One dataset = one subclass. Its module must not import torch at the top: planning reads manifests without it."""

    name: ClassVar[str]
    summary: ClassVar[str]
    reference: ClassVar[Reference | None] = None
    version: ClassVar[int] = 1

    class Config(DatasetConfig):
        """No further options."""

    config: DatasetConfig
    """The options of this instance; a plugin writes `config: Config` in its class body, so that a type checker knows its fields."""

    def __init__(self, config: DatasetConfig | None = None) -> None:
        self.config = config if config is not None else self.Config()

    @abstractmethod
    def manifest(self) -> str:
        """A cheap text that changes when the decoded images would (paths, sizes and times of files; no decoding).

        Raises UserError if the source is missing or unusable, with what to do.
        """

    @abstractmethod
    def load(self, progress: Progress) -> Splits:
        """Decode everything to uint8. Raises UserError naming a corrupt or missing file."""
