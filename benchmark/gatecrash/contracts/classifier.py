"""Classifiers: the form of victims and of what defenses return.

A `Classifier` maps images to K logits, or to K + 1 where the last one rejects the input as poisoned. A `Network` also gives
access to its inner layers by name: `points` (places with a readable activation and a channel mask), `norms`, `pairs` and `stages`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gatecrash.contracts.normalisation import Norm, use_group_norm
from gatecrash.contracts.pairs import Pair, find_pairs
from gatecrash.contracts.point import Point
from gatecrash.contracts.portable import Portable
from gatecrash.errors import ContractError

HEAD = "head"
"""What `Network.run` calls the head's input."""


class Classifier(Portable):
    """Images -> logits float [N, K] or [N, K + 1] (the last class rejects).

    Accepts uint8 [N, C, H, W], or float in [0, 1] through which gradients flow. In eval mode an image's logits must not depend on the
    rest of the batch.
    """

    num_classes: int
    """K, the number of real classes."""

    def forward(self, images: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} defines no forward()")  # pragma: no cover - abstract


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

    def find_pairs(self) -> tuple[Pair, ...]:
        """What `Network.pairs` gives, by names inside the backbone. The default traces `forward`; write it out where that is refused."""
        return find_pairs(self)

    def forward(self, images: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} defines no forward()")  # pragma: no cover - abstract


class Network(Classifier):
    """Normalisation + backbone: the form of every trained victim.

    `mean` and `std` are per channel, in [0, 1] pixel units. `norm` "group" exchanges the backbone's BatchNorms for GroupNorms. `inserted`
    are (point, Portable) as `insert` takes them.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        backbone: Backbone,
        mean: Sequence[float],
        std: Sequence[float],
        norm: Norm = "batch",
        inserted: Sequence[tuple[str, Portable]] = (),
    ) -> None:
        super().__init__()
        self.backbone, self.norm = backbone, norm
        self.num_classes = backbone.head.out_features
        self.mean, self.std = tuple(mean), tuple(std)
        spread = torch.tensor(self.std).view(1, -1, 1, 1)
        self.register_buffer("scale", 1 / spread, persistent=False)
        self.register_buffer("shift", -torch.tensor(self.mean).view(1, -1, 1, 1) / spread, persistent=False)
        if norm == "group":
            if any(len(point.inserted) for point in self.points.values()):
                raise ContractError("exchange a network's norms before modules are inserted into it")
            use_group_norm(backbone)
        for point, module in inserted:
            self.insert(point, module)

    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = {"backbone": self.backbone, "mean": list(self.mean), "std": list(self.std)}
        inserted = [[name, module] for name, point in self.points.items() for module in point.inserted]
        # Only where set: stored networks keep their description.
        return config | ({"norm": self.norm} if self.norm != "batch" else {}) | ({"inserted": inserted} if inserted else {})

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

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Each convolution with the BatchNorm and the point that its channels pass through one by one, in the order of use.

        Right for nets with the activation first, too. Raises NotApplicable where the backbone cannot be traced (see `Backbone.find_pairs`).
        """
        return self.backbone.find_pairs()

    def insert(self, point: str, module: Portable) -> None:
        """Let a module of your own work on the activation [N, C, ...] behind that point, after the mask and what was inserted before.

        The network becomes another one: its logits, what is read at the point, its stored form and its parameters all include the module.
        Give the module parameters that start as the identity if the network is to answer as before. Raises ContractError for an unknown
        point, and for a module that cannot be stored or that the network has already.
        """
        if not isinstance(module, Portable):
            raise ContractError(f"only a gatecrash.Portable can be inserted, since the network is stored; got {type(module).__name__}")
        if any(part is module for part in self.modules()):
            raise ContractError(f"this {type(module).__name__} is part of the network already; insert another one")
        self._known([point])[point].inserted.append(module.to(self.scale.device).train(self.training))

    def run(self, images: Tensor, names: Sequence[str] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits [N, K], and the activations [N, C, ...] at the named points, from one forward pass.

        The name "head" gives the head's input, float [N, F]. Raises ContractError for another name that is not among `points`.
        """
        with _capture(self._known([name for name in names if name != HEAD])) as seen, _capture({HEAD: self.head}, of_input=True) as last:
            logits: Tensor = self(images)
        return logits, {name: last[HEAD].flatten(1) if name == HEAD else seen[name] for name in names}

    def features(self, images: Tensor) -> Tensor:
        """The head's input, float [N, F]: the penultimate activations."""
        return self.run(images, [HEAD])[1][HEAD]

    def activations(self, images: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Activations [N, C, ...] at the named points, from one forward pass; the rest is as in `run`."""
        return self.run(images, names)[1]

    def _known(self, names: Sequence[str]) -> dict[str, Point]:
        points = self.points
        unknown = [name for name in names if name not in points]
        if unknown:
            raise ContractError(f"no point {unknown[0]!r}; this network has {', '.join(points)}")
        return {name: points[name] for name in names}


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
