"""The device to work on, and whether it computes in bfloat16."""

from __future__ import annotations

import torch

from gatecrash.errors import UserError


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def choose_device(requested: str | None = None) -> torch.device:
    """The device to work on: the requested one, else a CUDA device where there is one, else the CPU.

    Raises UserError if the requested device does not exist here.
    """
    if requested is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(requested)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(f"device {requested!r} cannot be used here; leave it out to use {choose_device()}") from None
    return device


def supports_bfloat16(device: torch.device | str) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware; emulation is many times slower than float32."""
    device = torch.device(device)
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False
