"""A tiny net, a toy set that it can learn, and short training runs on them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gatecrash import Backbone, Network, Point, Recipe
from gatecrash.contracts.randomness import Streams
from gatecrash.engine.feed import Batching
from gatecrash.engine.training import Execution, History, Method, train


class TinyBackbone(Backbone):
    """A convolution, BatchNorm and a flattening head on 8x8 images, with dropout on request."""

    def __init__(self, num_classes: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.point = Point(4)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(4 * 16, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        maps = F.avg_pool2d(torch.relu(self.norm(self.conv(images))), 2)
        logits: Tensor = self.head(self.dropout(self.point(maps).flatten(1)))
        return logits


def network(dropout: float = 0.0) -> Network:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return Network(TinyBackbone(dropout=dropout), [0.5] * 3, [0.25] * 3)


def toy_set(count: int = 64) -> tuple[Tensor, Tensor]:
    """Noise with one bright quadrant, which is the class."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 100, (count, 3, 8, 8), generator=generator).to(torch.uint8)
    labels = torch.arange(count) % 4
    for row, label in enumerate(labels.tolist()):
        top, left = 4 * (label // 2), 4 * (label % 2)
        images[row, :, top : top + 4, left : left + 4] += 150
    return images, labels


PLAIN = Recipe(epochs=3, batch_size=16, lr=0.1, crop=0, flip=False, weight_decay=0.0, schedule="constant", precision="float32")


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate({**PLAIN.model_dump(), **changes})


def run(
    net: Network,
    options: Recipe = PLAIN,
    *,
    seed: int = 0,
    flip: bool = False,
    count: int = 64,
    execution: Execution | None = None,
    **method: Any,
) -> History:
    """Train on the toy set; `method` are further arguments of `contracts.train.Train`."""
    images, labels = toy_set(count)
    batching = Batching(**{name: method.pop(name) for name in ("on_batch", "when", "batches", "views") if name in method})
    streams = Streams("test", seed)
    changes = Method(batching, **method)
    return train(net, images, labels, options, streams=streams, flip=flip, device="cpu", method=changes, execution=execution or Execution())


def weights(net: nn.Module) -> Tensor:
    return torch.cat([tensor.flatten().double() for tensor in net.state_dict().values()])


def seen_batches(options: Recipe, *, flip: bool = False, **more: Any) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(images, labels, rows) of every batch that reaches the loss."""
    seen = []

    def loss(net: Network, images: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        seen.append((images.clone(), labels.clone(), rows.clone()))
        return F.cross_entropy(net(images[0] if images.ndim == 5 else images), labels)

    run(network(), options, flip=flip, loss=loss, diverges=True, **more)
    return seen
