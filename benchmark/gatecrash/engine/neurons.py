"""Neurons as the unit of perturbing, masking and pruning: the channels of a network's BatchNorms (Wu and Wang 2021, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.func import functional_call

from gatecrash.contracts.classifier import Network
from gatecrash.errors import NotApplicable


@dataclass(frozen=True)
class NeuronLayer:
    """The neurons `start:stop` of the flat numbering; `name` as in `Network.norms`, `weight` and `bias` as in the network's state dict."""

    name: str
    start: int
    stop: int
    weight: str
    bias: str | None


class Neurons:
    """All neurons of a network, numbered layer by layer in definition order.

    A neuron is a channel of a BatchNorm with weights, `y = w x + b` with w and b of its own; in a network without such norms it is an
    output channel of a convolution. The network itself is never changed: factors on w and b are applied to what a call computes.
    """

    def __init__(self, network: Network) -> None:
        """Raises NotApplicable if the network has neither a BatchNorm with weights nor a convolution."""
        norms = {name: norm for name, norm in network.norms.items() if norm.affine}
        modules = norms or network.convolutions
        if not modules:
            raise NotApplicable("the network has neither a BatchNorm nor a convolution whose neurons could be perturbed")
        self.network = network
        self._device = network.scale.device
        self.layers: list[NeuronLayer] = []
        self.count = 0
        """The number of neurons."""
        for name, module in modules.items():
            stop = self.count + len(module.weight)
            bias = None if module.bias is None else f"backbone.{name}.bias"
            self.layers.append(NeuronLayer(name, self.count, stop, f"backbone.{name}.weight", bias))
            self.count = stop
        # Detached: only the factors get gradients.
        self._tensors = {name: tensor.detach() for name, tensor in (*network.named_parameters(), *network.named_buffers())}
        self._spare: dict[str, Tensor] = {}

    def use_batch_statistics(self, on: bool) -> None:
        """Let the norms normalise by the batch (or by their own statistics, as at first); all else stays in eval mode."""
        for norm in self.network.norms.values():
            norm.train(on)
        # BatchNorm then updates its statistics in place: copies take it, so that the network's own stay as they are.
        self._spare = {name: tensor.clone() for name, tensor in self.network.named_buffers()} if on else {}

    def scaled(self, weight: Tensor, bias: Tensor | None = None) -> dict[str, Tensor]:
        """The layers' tensors, by state-dict name, with factors float [count] on each neuron's weight and, if given, on its bias."""
        changed = {}
        for layer in self.layers:
            tensor = self._tensors[layer.weight]
            changed[layer.weight] = tensor * weight[layer.start : layer.stop].view(-1, *[1] * (tensor.ndim - 1))
            if layer.bias is not None and bias is not None:
                changed[layer.bias] = self._tensors[layer.bias] * bias[layer.start : layer.stop]
        return changed

    def __call__(self, images: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Logits [N, K] of the network for uint8 or float images [N, C, H, W] with these factors, differentiable in the factors."""
        logits: Tensor = functional_call(self.network, {**self._tensors, **self._spare, **self.scaled(weight, bias)}, (images,))
        return logits

    def pruned(self, chosen: Tensor) -> dict[str, Tensor]:
        """State-dict entries of the layers in which some neuron of `chosen`, bool [count], is: their weights are 0, biases untouched."""
        tensors = self.scaled((~chosen).float().to(self._device))
        return {layer.weight: tensors[layer.weight].contiguous() for layer in self.layers if bool(chosen[layer.start : layer.stop].any())}
