"""How far a machine without an accelerator can tell whether a module follows `module.to(device)`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gatecrash.contracts.portable import Portable
from gatecrash.testing.check import CheckFailed

DEVICES = ("cpu", *(("cuda",) if torch.cuda.is_available() else ()))
"""The devices of this machine, each tried by name."""

_MEND = (
    "register every tensor of the module with register_buffer() or as an nn.Parameter, "
    "and create tensors in forward() with device=images.device"
)


def require_movable(module: Portable, images: Tensor, what: str) -> None:
    """Raise CheckFailed for a module that keeps tensors back, or mixes devices in `forward`.

    `images` is uint8 [N, C, H, W]. Shapes are computed on torch's "meta" device, which has no values: a module whose computation depends on
    values cannot be followed there, and passes.
    """
    for name, part in module.named_modules():
        kept = [attribute for attribute, value in vars(part).items() if isinstance(value, Tensor)]
        if kept:
            place = f"{name}.{kept[0]}" if name else kept[0]
            raise CheckFailed(f"{what} to move as a whole to another device", f"a tensor in a plain attribute, {place}", _MEND)
    moved: nn.Module = module.duplicate().to("meta")
    try:
        with torch.no_grad():
            moved(images.to("meta"))
    except RuntimeError as error:
        if "on the expected device" in str(error) or "same device" in str(error):
            raise CheckFailed(f"{what} to work on the device of its images", str(error).partition("\n")[0], _MEND) from error
