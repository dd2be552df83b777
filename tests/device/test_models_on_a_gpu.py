"""Every model that ships, found through the host, on a simulated GPU: forward and backward."""

from __future__ import annotations

import pytest
import torch

from gatecrash import Model
from gatecrash.engine.networks import network_factory
from gatecrash.host.loading import load_plugins
from gatecrash.testing.setting import setting
from gatecrash.testing.simulated_gpu import simulated_gpu


@pytest.mark.parametrize("plugin", load_plugins(installed=False).all("model"), ids=lambda plugin: plugin.name)
def test_a_model_learns_on_a_gpu(plugin: type[Model]) -> None:
    data = setting("gpu").train
    model: Model = plugin.configure()  # type: ignore[attr-defined]
    images = torch.nn.functional.interpolate(data.images[:4].float(), (32, 32)).to(torch.uint8)
    with simulated_gpu() as trace:
        device = torch.device("cuda")
        network = network_factory(model, type(data)(images, data.labels[:4], data.classes), device)(0)
        before = len(trace.waits)
        network.train()(images.to(device)).float().square().mean().backward()  # type: ignore[no-untyped-call]
        assert {parameter.grad.device.type for parameter in network.parameters() if parameter.grad is not None} == {"cuda"}
    assert [str(wait.line) for wait in trace.waits[before:] if not wait.reason.startswith("a copy")] == []
