"""Devices are chosen by name or by what there is, and bfloat16 by the processor."""

from __future__ import annotations

import pytest
import torch

from gatecrash import UserError
from gatecrash.engine.device import choose_device, supports_bfloat16


def test_devices_are_chosen_by_name_or_by_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device() == torch.device("cuda")


@pytest.mark.parametrize("name", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_a_user_error(name: str) -> None:
    with pytest.raises(UserError, match=f"device '{name}' cannot be used here"):
        choose_device(name)


def test_bfloat16_follows_the_processor_not_its_emulation(monkeypatch: pytest.MonkeyPatch) -> None:
    for instructions, tiles, expected in ((False, False, False), (True, False, True), (False, True, True)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda value=instructions: value)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda value=tiles: value)
        assert supports_bfloat16("cpu") is expected
    assert supports_bfloat16("meta") is False
