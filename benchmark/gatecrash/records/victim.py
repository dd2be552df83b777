"""A victim as it lies in the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class StoredVictim:
    """A victim as it lies in the store: JSON record and tensors.

    `weights` holds the classifier's and the triggers' tensors; `poison` the changed rows (`rows`, `images`, `labels`, `role`).
    """

    record: dict[str, Any]
    weights: dict[str, Tensor]
    poison: dict[str, Tensor]

    @property
    def weights_hash(self) -> str:
        return str(self.record["weights"])
