"""Several versions of one network on the same images: what they have in common is computed once.

The versions differ in entries of the state dict, as the steps of a trajectory do. The backbone's graph of computation (torch.fx) says which
operation reads which entries. An operation that reads the same, from operations that are the same, has one output for all these versions:
where late layers alone change, a version starts from the activation in front of them, whatever the shortcuts are.

Each version still goes through the operations of a whole pass, on tensors of the same layout in batches of the same size, so its logits
are equal to the last digit. That is checked on a few images for each version. A network that cannot be taken apart like this (its
`forward` branches on what it computes, or writes to what other versions read) is left to whole passes.

The versions are computed in an order in which those that share most are neighbours: no more activations are kept than one pass has.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from gatecrash.contracts.classifier import Network
from gatecrash.contracts.point import Point
from gatecrash.contracts.portable import tensors_hash
from gatecrash.errors import one_line

LARGEST = 2**28
"""Bytes of changed layers to keep. Versions that change more than that of the network have little in common."""

Changes = Mapping[str, Tensor]
"""Entries of a network's state dict."""

BACKBONE = "backbone."

_TENSORS = (Tensor, nn.Parameter)


class CannotShare(Exception):
    """The versions have to be computed by whole passes."""


@dataclass
class _Operation:
    """A node of the graph with the layer (or tensor) that it uses, and the numbers of the operations that it reads from."""

    node: fx.Node
    layer: Any
    sources: dict[fx.Node, int]
    spent: list[int] = field(default_factory=list)
    """Operations whose output nobody needs after this one."""

    def __call__(self, values: Mapping[int, Any], images: Tensor) -> Any:
        node, target = self.node, self.node.target
        given, options = fx.map_arg((node.args, node.kwargs), lambda source: values[self.sources[source]])
        if node.op == "placeholder":
            return images
        if node.op == "get_attr":
            return self.layer
        if node.op == "call_module":
            return self.layer(*given, **options)
        if callable(target):
            return target(*given, **options)
        return getattr(given[0], target)(*given[1:], **options)


class SharedPasses:
    """Versions of a network, each with `changes` on top of its present state. The network must stay as it is while this is in use."""

    def __init__(self, network: Network, changes: Sequence[Changes]) -> None:
        """Raises CannotShare where the network's graph cannot be had, or the versions have too little in common."""
        self._network, self._changes = network, changes
        graph = _traced(network)
        layers = _Layers(network.backbone, graph, changes)
        self.remembers_nothing = all(_is_torch(node, layers.layer(node, 0)) for node in graph.nodes)
        """Whether the logits come from torch's functions and layers alone, so that no code of a plugin's runs that could keep something."""
        self._operations: list[_Operation] = []
        self._answers = [0] * len(changes)
        """For each version, the number of the operation that gives its logits."""
        numbers: dict[tuple[Any, ...], int] = {}
        for version in sorted(range(len(changes)), key=layers.variants):
            placed: dict[fx.Node, int] = {}
            for node, variant in zip(graph.nodes, layers.variants(version), strict=True):
                if node.op == "output":
                    self._answers[version] = placed[node.args[0]]
                    continue
                sources = {source: placed[source] for source in node.all_input_nodes}
                placed[node] = numbers.setdefault((node, variant, *sources.values()), len(numbers))
                if placed[node] == len(self._operations):
                    self._operations.append(_Operation(node, layers.layer(node, variant), sources))
        last_use = {number: number for number in range(len(self._operations))}
        last_use |= {source: number for number, operation in enumerate(self._operations) for source in operation.sources.values()}
        for source in last_use.keys() - set(self._answers):
            self._operations[last_use[source]].spent.append(source)

    def __len__(self) -> int:
        """The number of operations for all versions together."""
        return len(self._operations)

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Logits [N, K] of each version for uint8 images [N, C, H, W]."""
        values: dict[int, Any] = {}
        start = self._network.normalise(images)
        for number, operation in enumerate(self._operations):
            values[number] = operation(values, start)
            for source in operation.spent:
                del values[source]
        return [values[number] for number in self._answers]

    def check(self, images: Tensor) -> None:
        """Raise CannotShare unless each version, as a whole network, gives the same for these images to the last digit."""
        network = self._network
        try:
            shared = self(images)
        except Exception as error:  # whatever a layer does; a whole pass says it again
            raise CannotShare(one_line(error)) from None
        start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        try:
            for changes, logits in zip(self._changes, shared, strict=True):
                network.load_state_dict({**start, **changes})
                if not _equal(network(images), logits):
                    raise CannotShare("the parts give other logits than the network")
        finally:
            network.load_state_dict(start)


class _Layers:
    """The layers and tensors that the nodes of a graph use, and their variants: 0 as in the network, others as versions change them."""

    def __init__(self, backbone: nn.Module, graph: fx.Graph, changes: Sequence[Changes]) -> None:
        self._backbone = backbone
        self._made: dict[tuple[str, int], Any] = {}
        self._variants: list[tuple[int, ...]] = []
        state = {BACKBONE + name: tensor for name, tensor in backbone.state_dict().items()}
        known: dict[str, dict[str, int]] = {}
        size = 0
        for version in changes:
            changed = {name: tensor for name, tensor in version.items() if not torch.equal(tensor.to(state[name]), state[name])}
            variants = []
            for node in graph.nodes:
                own = _own(node, changed)
                if not own:
                    variants.append(0)
                    continue
                numbers = known.setdefault(str(node.target), {})
                variants.append(numbers.setdefault(tensors_hash(own), len(numbers) + 1))
                if (str(node.target), variants[-1]) not in self._made:
                    size += sum(tensor.nbytes for tensor in own.values())
                    if size > LARGEST:
                        raise CannotShare("the versions have too little in common")
                    self._make(node, variants[-1], own)
            self._variants.append(tuple(variants))

    def variants(self, version: int) -> tuple[int, ...]:
        """For each node of the graph, the variant that the version has of its layer."""
        return self._variants[version]

    def layer(self, node: fx.Node, variant: int) -> Any:
        """The layer or tensor of a node; None where it uses none."""
        if node.op not in {"call_module", "get_attr"}:
            return None
        return self._made[str(node.target), variant] if variant else _found(self._backbone, str(node.target))

    def _make(self, node: fx.Node, variant: int, own: Changes) -> None:
        layer = deepcopy(_found(self._backbone, str(node.target)))
        if isinstance(layer, nn.Module):
            layer.load_state_dict({**layer.state_dict(), **{name.removeprefix(_prefix(node)): tensor for name, tensor in own.items()}})
        else:
            layer.copy_(*own.values())
        self._made[str(node.target), variant] = layer


class _Tracer(fx.Tracer):
    """Looks into every module but those of torch, points, and those that do more than copy what is loaded into them."""

    proxy_buffer_attributes = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, Point) or type(m)._load_from_state_dict is not nn.Module._load_from_state_dict:
            return True
        # What a hook does is seen only where the module is looked into.
        return super().is_leaf_module(m, module_qualified_name) and not m._forward_hooks


def _traced(network: Network) -> fx.Graph:
    """The graph of the backbone: one placeholder, and one output that is a node. Raises CannotShare."""
    if type(network) is not Network:
        raise CannotShare(f"{type(network).__name__} has a forward() of its own")
    try:
        graph = _Tracer().trace(network.backbone)
    except Exception as error:  # whatever the author's code does with an input that has no values
        raise CannotShare(one_line(error)) from None
    writing = [str(node.target) for node in graph.nodes if _writes(node)]
    if writing:  # what reads the tensor later does not read this node, so the graph does not show that it depends on it
        raise CannotShare(f"{writing[0]} writes to a tensor")
    ends = [node for node in graph.nodes if node.op == "output"]
    if sum(node.op == "placeholder" for node in graph.nodes) != 1 or not isinstance(ends[0].args[0], fx.Node):
        raise CannotShare("the backbone takes or gives more than one tensor")
    return graph


def _found(backbone: nn.Module, target: str) -> Any:
    """The module or tensor of this name."""
    found: Any = backbone
    for part in target.split("."):
        found = getattr(found, part)
    return found


def _prefix(node: fx.Node) -> str:
    return f"{BACKBONE}{node.target}" + ("." if node.op == "call_module" else "")


def _own(node: fx.Node, changes: Changes) -> Changes:
    """Those entries that the node's layer or tensor has."""
    prefix = _prefix(node)
    if node.op == "get_attr":
        return {prefix: changes[prefix]} if prefix in changes else {}
    return {name: tensor for name, tensor in changes.items() if name.startswith(prefix)} if node.op == "call_module" else {}


def _is_torch(node: fx.Node, layer: object) -> bool:
    """Whether nothing but torch's own code runs here: no class, hook, replaced method or kind of tensor of a plugin's."""
    if isinstance(layer, nn.Module):
        return all(map(_is_plain, layer.modules()))
    if isinstance(layer, Tensor):
        return type(layer) in _TENSORS
    return node.op != "call_function" or _is_torchs_function(node.target)


def _is_torchs_function(target: Any) -> bool:
    """Whether it is found by its name where torch or Python has it: operators that a plugin registers with torch are not."""
    own = str(getattr(target, "__module__", None) or "torch")  # torch's functions in C++ name no module
    places = {own, "torch", "torch.nn.functional", "torch._C._nn"}
    name = str(getattr(target, "__name__", ""))
    of_torch = own.partition(".")[0] in {"torch", "_operator", "operator", "math", "builtins"}
    return of_torch and any(getattr(sys.modules.get(place), name, None) is target for place in places)


def _writes(node: fx.Node) -> bool:
    """Whether a method or function writes to what it is given. Layers that do (`nn.ReLU(inplace=True)`) have no state, so that all versions
    have the same."""
    name = str(node.target if node.op == "call_method" else getattr(node.target, "__name__", ""))
    if node.op not in {"call_method", "call_function"}:
        return False
    if (name.endswith("_") and not name.endswith("__")) or name in {"setitem", "__setitem__", "delitem"} or "out" in node.kwargs:
        return True
    if node.op == "call_method" or not callable(node.target):
        return bool(node.kwargs.get("inplace"))
    try:
        given = inspect.signature(node.target).bind(*node.args, **node.kwargs).arguments
    except (TypeError, ValueError):  # C++ functions have no signature, and no such option
        given = {}
    return bool({**given, **given.get("kwargs", {}), **node.kwargs}.get("inplace"))


def _is_plain(layer: nn.Module) -> bool:
    kind = type(layer)
    # A class may say that it is torch's: it is where torch has it.
    of_torch = kind.__module__.startswith("torch.nn.") and getattr(sys.modules.get(kind.__module__), kind.__name__, None) is kind
    hooked = any((layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks))
    replaced = any(callable(value) and not isinstance(value, nn.Module) for name, value in vars(layer).items() if hasattr(kind, name))
    own = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
    return (of_torch or kind is Point) and not hooked and not replaced and all(type(tensor) in _TENSORS for tensor in own)


def _equal(one: object, other: object) -> bool:
    return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)
