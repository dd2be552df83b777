"""Classifiers: the form of victims and of what defenses return.

A `Classifier` maps images to K logits, or to K + 1 where the last one rejects the input as poisoned. A `Network` also gives
access to its inner layers by name: `points` (places with a readable activation and a channel mask), `norms` and `stages`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gatecrash.contracts.portable import Portable
from gatecrash.errors import ContractError


class Classifier(Portable):
    """Images -> logits float [N, K] or [N, K + 1] (the last class rejects).

    Accepts uint8 [N, C, H, W], or float in [0, 1] through which gradients flow. In eval mode an image's logits must not depend on the
    rest of the batch.
    """

    num_classes: int
    """K, the number of real classes."""

    def forward(self, images: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} defines no forward()")  # pragma: no cover - abstract


class Point(nn.Module):
    """A named place in a backbone: the activation [N, C, ...] can be read there and channels can be switched off.

    The mask, float [C], multiplies the activation. Place a point where no shortcut carries the channel around it (after a residual sum, or
    at a convolution's output inside the branch), because there a mask of 0 switches the whole channel off.
    """

    mask: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("mask", torch.ones(channels))
        self._open = True  # no channel is masked: the multiplication is skipped

    def forward(self, activation: Tensor) -> Tensor:
        if self._open:
            return activation
        return activation * self.mask.to(activation.dtype).view(-1, *[1] * (activation.ndim - 2))

    def set_mask(self, mask: Tensor) -> None:
        """Keep (1) or switch off (0) each channel; values between scale it."""
        if mask.shape != self.mask.shape:
            raise ContractError(f"mask must have shape {list(self.mask.shape)}; got {list(mask.shape)}")
        self.mask.copy_(mask)
        self._open = bool((self.mask == 1).all())

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._open = bool((self.mask == 1).all())


class Backbone(Portable):
    """A network body from normalised float [N, C, H, W] to logits [N, K], written with `Point`s at its named places.

    Attributes that a model author sets: `head`, the final `nn.Linear`; `stages`, the names of the points that end a resolution stage.
    The last `Point` in definition order must be the place whose output, pooled or flattened, is the head's input.
    """

    head: nn.Linear
    stages: tuple[str, ...] = ()

    def start_from(self, images: Tensor) -> None:
        """Initialise what depends on the data (a whitening first layer); called once, before the first training. The default does nothing.

        `images`: float [N, C, H, W], some of the images to be trained on as `forward` gets them.
        """

    def forward(self, images: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} defines no forward()")  # pragma: no cover - abstract


class Network(Classifier):
    """Normalisation + backbone: the form of every trained victim.

    `mean` and `std` are per channel, in [0, 1] pixel units.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, backbone: Backbone, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_classes = backbone.head.out_features
        self.mean, self.std = tuple(mean), tuple(std)
        spread = torch.tensor(self.std).view(1, -1, 1, 1)
        self.register_buffer("scale", 1 / spread, persistent=False)
        self.register_buffer("shift", -torch.tensor(self.mean).view(1, -1, 1, 1) / spread, persistent=False)

    def config(self) -> dict[str, Any]:
        return {"backbone": self.backbone, "mean": list(self.mean), "std": list(self.std)}

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.backbone(self.normalise(images))
        return logits

    def normalise(self, images: Tensor) -> Tensor:
        """uint8, or float in [0, 1] -> float in which each channel has mean 0 and standard deviation 1 over the training set."""
        if images.dtype == torch.uint8:
            return torch.addcmul(self.shift, images.to(self.scale.dtype), self.scale / 255)
        return torch.addcmul(self.shift, images, self.scale)

    @property
    def points(self) -> dict[str, Point]:
        """Named places in forward order; the last is the head's input."""
        return {name: module for name, module in self.backbone.named_modules() if isinstance(module, Point)}

    @property
    def convolutions(self) -> dict[str, nn.Conv2d]:
        """Convolutions by name, in definition order."""
        return {name: module for name, module in self.backbone.named_modules() if isinstance(module, nn.Conv2d)}

    @property
    def norms(self) -> dict[str, nn.BatchNorm2d]:
        """BatchNorm layers by name, in definition order."""
        return {name: module for name, module in self.backbone.named_modules() if isinstance(module, nn.BatchNorm2d)}

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the points that end a stage (for distillation of intermediate maps)."""
        return self.backbone.stages

    @property
    def head(self) -> nn.Linear:
        return self.backbone.head

    def features(self, images: Tensor) -> Tensor:
        """The head's input, float [N, F]: the penultimate activations."""
        with _capture({"head": self.head}, of_input=True) as seen:
            self(images)
        return seen["head"].flatten(1)

    def activations(self, images: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Activations [N, C, ...] at the named points, from one forward pass; ContractError for a name that is not among `points`."""
        points = self.points
        unknown = [name for name in names if name not in points]
        if unknown:
            raise ContractError(f"no point {unknown[0]!r}; this network has {', '.join(points)}")
        with _capture({name: points[name] for name in names}) as seen:
            self(images)
        return dict(seen)


@contextmanager
def _capture(modules: Mapping[str, nn.Module], of_input: bool = False) -> Iterator[dict[str, Tensor]]:
    """Collects the outputs (or first inputs) of modules during the block."""
    seen: dict[str, Tensor] = {}

    def record(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[name] = inputs[0] if of_input else output

        return hook

    handles = [module.register_forward_hook(record(name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
