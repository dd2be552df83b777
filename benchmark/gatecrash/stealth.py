"""Stealth: how far triggered test images are from the originals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gatecrash.attack import Backdoor
from gatecrash.data import ImageSet
from gatecrash.evaluation import apply_trigger
from gatecrash.randomness import stream

IMAGES = 1000
"""Images that are compared, at most."""


def stealth(test: ImageSet, backdoor: Backdoor, *, device: torch.device | str = "cpu") -> dict[str, float | None]:
    """Means over up to 1,000 of the images that the backdoor applies to (the same ones each time), pixels in [0, 1].

    `psnr` in dB (Horé & Ziou 2010), over the images that the trigger changes: of an unchanged one it is infinite; `ssim` in [-1, 1] with the
    Gaussian window of Wang et al. 2004 (11 pixels, sigma 1.5), in proportion smaller where an image is; `l2` and `linf`, norms of the
    difference per image. None where there is no image to take a mean over, or none large enough for a window.
    """
    rows = torch.nonzero(backdoor.goal.eligible(test.labels.cpu())).flatten()
    rows = rows[torch.randperm(len(rows), generator=stream("stealth-sample", len(rows)))[:IMAGES]]
    images = test.images[rows.to(test.device)]
    triggered = apply_trigger(backdoor, images, device=device)
    parts: dict[str, list[Tensor]] = {"psnr": [], "ssim": [], "l2": [], "linf": []}
    for before, after in zip(images.split(100), triggered.split(100), strict=True):
        for name, values in _compare(before.to(device).float() / 255, after.to(device).float() / 255).items():
            parts[name].append(values)
    return {name: _mean(values) for name, values in parts.items()}
