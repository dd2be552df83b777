"""Stealth: how far triggered test images are from the originals."""

from __future__ import annotations

import torch
from torch import Tensor

from gatecrash.contracts.backdoor import Backdoor
from gatecrash.contracts.data import ImageSet
from gatecrash.contracts.randomness import stream
from gatecrash.evaluation.triggering import apply_trigger

IMAGES = 1000
"""Images that are compared, at most."""


SSIM_MARGIN = 5
"""Half of the SSIM window; borders, where triggers like to sit, are mirrored by this much, so images must be larger."""


def stealth(test: ImageSet, backdoor: Backdoor, *, device: torch.device | str = "cpu") -> dict[str, float | None]:
    """`psnr`, `ssim`, `l2`, `linf`: means over at most 1,000 of the images that the backdoor applies to, the same ones each time.

    Pixels count in [0, 1]. PSNR in dB is the mean over the images that the trigger changes at all, being infinite for others; SSIM in
    [-1, 1] has the Gaussian window of Wang et al. 2004 (11x11, sigma 1.5); L2 and L-infinity are norms of one image's difference. None
    where there is no image to take a mean over, or images are too small for the window.

    Raises ContractError for a trigger that does not keep its contract.
    """
    rows = torch.nonzero(backdoor.goal.eligible(test.labels.cpu())).flatten()
    rows = rows[torch.randperm(len(rows), generator=stream("stealth-sample", len(rows)))[:IMAGES]]
    before = test.images[rows.to(test.device)]
    after = apply_trigger(backdoor, before, device=device)
    found: dict[str, list[Tensor]] = {"psnr": [], "ssim": [], "l2": [], "linf": []}
    for start in range(0, len(rows), 50):
        # float64: SSIM's variances are small differences of squares, and in float32 an image is not quite like itself.
        pair = (images[start : start + 50].to(device).double() / 255 for images in (before, after))
        for name, values in _distances(*pair).items():
            found[name].append(values)
    return {name: _mean(values) for name, values in found.items()}


def _distances(before: Tensor, after: Tensor) -> dict[str, Tensor]:
    """float64 [n] per measure for images float64 [N, C, H, W] in [0, 1]; n <= N."""
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    difference = (after - before).flatten(1)
    psnr = peak_signal_noise_ratio(after, before, data_range=1.0, reduction="none", dim=(1, 2, 3))
    distances = {
        "psnr": psnr[difference.ne(0).any(1)],
        "l2": torch.linalg.vector_norm(difference, dim=1),
        "linf": difference.abs().amax(1),
    }
    if min(before.shape[-2:]) > SSIM_MARGIN:
        ssim = structural_similarity_index_measure(after, before, data_range=1.0, reduction="none")
        assert isinstance(ssim, Tensor)
        distances["ssim"] = ssim
    return distances


def _mean(values: list[Tensor]) -> float | None:
    every = torch.cat(values) if values else torch.empty(0)
    return float(every.mean()) if len(every) else None
