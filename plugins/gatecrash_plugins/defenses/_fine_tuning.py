"""What defenses that go on training the victim on the clean hold-out have in common."""

from __future__ import annotations

from pydantic import Field

from gatecrash import Options, Recipe


class FineTuning(Options):
    """How long and how fast: BackdoorBench's settings of fine-tuning, which are SGD with momentum and a cosine that ends at zero."""

    epochs: int = Field(100, ge=1, le=10_000, description="passes over the clean hold-out")
    lr: float = Field(0.01, gt=0, le=10, description="learning rate of SGD at its peak")
    batch_size: int = Field(256, ge=1, le=65_536, description="images per step")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD")
    weight_decay: float = Field(5e-4, ge=0, le=1, description="L2 penalty of SGD")
    crop: int | None = Field(
        None, ge=0, le=64, description="random crop: zero padding in pixels on each side, 0 for none; by default as the victim was trained"
    )
    flip: bool | None = Field(None, description="mirror at random, where the dataset allows it; by default as the victim was trained")

    def recipe(self, *, label_smoothing: float = 0.0, constant: bool = False) -> Recipe:
        """The recipe of these options; `constant` without the fall of the learning rate."""
        options = self.model_dump(include={"epochs", "lr", "batch_size", "momentum", "weight_decay"})
        augmentation = self.model_dump(include={"crop", "flip"}, exclude_none=True)
        return Recipe(**options, **augmentation, label_smoothing=label_smoothing, schedule="constant" if constant else "cosine")
