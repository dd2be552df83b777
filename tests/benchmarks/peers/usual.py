"""The usual pipeline of the field: PIL images, torchvision transforms and a DataLoader, in float32, as most training scripts do it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms


class PilImages(Dataset[tuple[Tensor, int]]):
    """Like torchvision's CIFAR10: an array in memory, one PIL image and one transform at a time."""

    def __init__(self, images: Tensor, labels: Tensor, mean: Sequence[float], std: Sequence[float]) -> None:
        """`images`: uint8 [N, C, H, W]."""
        self.arrays, self.labels = images.permute(0, 2, 3, 1).contiguous().numpy(), labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(images.shape[2], padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(mean, std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.arrays[row].squeeze())), self.labels[row]


def loader(data: PilImages, batch_size: int, workers: int = 0, pin_memory: bool = False) -> DataLoader[tuple[Tensor, int]]:
    return DataLoader(data, batch_size, shuffle=True, num_workers=workers, pin_memory=pin_memory, persistent_workers=workers > 0)


def one_epoch(net: nn.Module, optimizer: torch.optim.Optimizer, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device) -> float:
    """The mean of the batches' losses."""
    losses = []
    for images, labels in batches:
        loss = F.cross_entropy(net(images.to(device)), labels.to(device))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())  # for the progress bar
    return sum(losses) / len(losses)
