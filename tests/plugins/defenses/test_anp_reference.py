"""ANP's mask step restated with BatchNorms that hold mask and noise themselves, as in the published code: equal to the last bit."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gatecrash import Network, Neurons
from gatecrash_plugins.defenses import anp
from gatecrash_plugins.defenses.anp import ANP
from gatecrash_plugins.models.small_cnn import SmallCnn


class NoisyNorm(nn.BatchNorm2d):
    """Scales its weight by `mask + delta` and its bias by `1 + xi`."""

    def prepare(self) -> None:
        self.mask = nn.Parameter(torch.ones(self.num_features))
        self.delta, self.xi = (nn.Parameter(torch.zeros(self.num_features)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.detach() * (self.mask + self.delta), self.bias.detach() * (1 + self.xi)
        mean, variance = (None, None) if self.training else (self.running_mean, self.running_var)
        return F.batch_norm(x, mean, variance, weight, bias, training=self.training, eps=self.eps)


def small_network() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = Network(SmallCnn(SmallCnn.Config(width=4)).build(5, (3, 16, 16)), [0.5] * 3, [0.25] * 3)
        for norm in network.norms.values():
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.3)
        return network.eval()


def noisy_copy(network: Network, batch_statistics: bool) -> tuple[Network, list[NoisyNorm]]:
    copy = deepcopy(network)
    norms = []
    for module in copy.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = NoisyNorm
            assert isinstance(module, NoisyNorm)
            module.prepare()
            norms.append(module.train(batch_statistics))
    return copy, norms


@pytest.mark.parametrize("statistics", ["running", "batch"])
@pytest.mark.parametrize("steps", [1, 2])
def test_mask_steps_are_those_of_noisy_norms(statistics: str, steps: int) -> None:
    network = small_network()
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 24, 3, 16, 16), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 5, (4, 24), generator=generator)
    starts = 0.4 * (2 * torch.rand(4, 2, 28, generator=generator) - 1)
    config = ANP.Config(epsilon=0.4, alpha=0.2, lr=2.0, momentum=0.9, steps=steps, statistics=statistics)

    neurons = Neurons(network)
    neurons.use_batch_statistics(statistics == "batch")
    mask = torch.ones(28, requires_grad=True)
    descent = torch.optim.SGD([mask], lr=2.0, momentum=0.9)
    noisy, norms = noisy_copy(network, statistics == "batch")
    noise, masks = [part for norm in norms for part in (norm.delta, norm.xi)], [norm.mask for norm in norms]
    expected_descent = torch.optim.SGD(masks, lr=2.0, momentum=0.9)

    for batch, target, start in zip(images, labels, starts, strict=True):
        mask.grad = anp.mask_gradient(neurons, mask, batch, target, start, config)
        descent.step()
        mask.data.clamp_(0, 1)

        parts = start.split([norm.num_features for norm in norms], dim=1)
        for norm, (delta, xi) in zip(norms, parts, strict=True):
            norm.delta.data, norm.xi.data = delta.clone(), xi.clone()
        for _ in range(steps):
            for parameter, gradient in zip(noise, torch.autograd.grad(F.cross_entropy(noisy(batch), target), noise), strict=True):
                parameter.data = (parameter.data + 0.4 / steps * gradient.sign()).clamp(-0.4, 0.4)
        perturbed = F.cross_entropy(noisy(batch), target)
        for parameter in noise:
            parameter.data = torch.zeros_like(parameter)
        loss = 0.2 * F.cross_entropy(noisy(batch), target) + 0.8 * perturbed
        for parameter, gradient in zip(masks, torch.autograd.grad(loss, masks), strict=True):
            parameter.grad = gradient
        expected_descent.step()
        for parameter in masks:
            parameter.data.clamp_(0, 1)

        assert mask.detach().equal(torch.cat([parameter.data for parameter in masks]))
    assert float(mask.detach().min()) < 0.9
