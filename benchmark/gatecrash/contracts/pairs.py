"""Which norm and which point belong to a convolution, read from the backbone's graph of computation.

Neither names nor the order of definition tell: in a pre-activation net the norm that follows a convolution is the next block's, and where a
shortcut lies between them it normalises a sum.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from torch import fx, nn

from gatecrash.contracts.point import Point
from gatecrash.contracts.portable import Portable
from gatecrash.errors import NotApplicable, one_line

CHANNELWISE = frozenset(
    {
        *("relu", "relu6", "leakyrelu", "prelu", "elu", "silu", "gelu"),
        *("mish", "hardswish", "hardsigmoid", "hardtanh", "sigmoid", "tanh"),
        *("mul", "div", "clamp", "contiguous", "identity"),
        *("dropout", "dropout2d", "featuredropout", "stochasticdepth"),
        *("maxpool2d", "avgpool2d", "adaptivemaxpool2d", "adaptiveavgpool2d"),
    }
)
"""Functions and modules that give channel c of their only input as channel c, in lower case without underscores."""


@dataclass(frozen=True)
class Pair:
    """A convolution and what belongs to it, by the names that `convolutions`, `norms` and `points` have.

    All that the network makes of the convolution's output channel c passes through channel c of `norm`, and through channel c of `point`,
    and nothing else does. None where there is no such place: other channels, or a shortcut, come in between.
    """

    convolution: str
    norm: str | None = None
    point: str | None = None


def find_pairs(backbone: Portable) -> tuple[Pair, ...]:
    """A pair for each convolution (`nn.Conv2d`) that a forward pass uses, in the order of use. Raises NotApplicable where the backbone's
    `forward` cannot be traced because it branches on what it computes."""
    try:
        graph = _Tracer().trace(backbone)
    except Exception as error:  # whatever the author's code does with an input that has no values
        reason = one_line(error)[:160]
        name = type(backbone).__name__
        raise NotApplicable(f"the pairs of {name} cannot be traced ({reason}); its author can define find_pairs()") from None
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    modules = {name: module for name, module in backbone.named_modules() if calls[name] == 1}  # others have no single place
    return tuple(
        _pair(node, modules) if calls[node.target] == 1 else Pair(str(node.target))
        for node in {node.target: node for node in graph.nodes if _is_convolution(node, backbone)}.values()
    )


class _Tracer(fx.Tracer):
    """Looks into every module but those that pairs are made of."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, Point | nn.Conv2d | nn.modules.batchnorm._BatchNorm):
            return True
        # torchvision's points hang on modules of torch: what a hook does is seen only where the module is looked into
        return super().is_leaf_module(m, module_qualified_name) and not m._forward_hooks


def _is_convolution(node: fx.Node, backbone: nn.Module) -> bool:
    return node.op == "call_module" and isinstance(backbone.get_submodule(str(node.target)), nn.Conv2d)


def _pair(convolution: fx.Node, modules: dict[str, nn.Module]) -> Pair:
    """Follow the convolution's output as long as it goes to one place, channel by channel."""
    norm = point = None
    node = convolution
    while len(node.users) == 1 and not (norm and point):
        node = next(iter(node.users))
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, nn.BatchNorm2d) and norm is None:
            norm = str(node.target)
        elif isinstance(module, Point) and point is None:
            point = str(node.target)
            if len(module.inserted):
                break
        elif not _is_channelwise(node, module):
            break
    return Pair(str(convolution.target), norm, point)


def _is_channelwise(node: fx.Node, module: nn.Module | None) -> bool:
    if len(node.all_input_nodes) != 1:
        return False
    name = type(module).__name__ if module is not None else getattr(node.target, "__name__", str(node.target))
    return name.lower().replace("_", "") in CHANNELWISE
