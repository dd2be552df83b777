"""Any classification model of torchvision, by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from gatecrash import Backbone, Model, Options, Point, Reference, UserError, hookimpl

SPECIAL: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}
"""Constructor arguments that make these nets return logits alone."""

ATOMS = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.Dropout)
"""Modules that do not count as stages; the pooling behind them does, and its output is activated."""


class StagePoint(Point):
    """A point that is applied to the output of one of torchvision's modules."""

    def after(self, _module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        """Forward hook: the module's output passes through the point."""
        masked: Tensor = self(output)
        return masked


class TorchvisionBackbone(Backbone):
    """A torchvision net without its last linear layer (`net`, parameters named as torchvision does), points, and that layer (`head`).

    Points: one behind each top-level feature stage that gives a map [N, C, H, W] (`layer1`, `features_3`, ...), and last `last`, on the
    head's input vector. Nets whose stages give tokens or channels-last maps (ViT, Swin) have `last` alone.
    """

    def __init__(self, arch: str, num_classes: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self._config = {"arch": arch, "num_classes": num_classes, "shape": list(shape)}
        self.net = _make(arch, num_classes, shape)
        head_name, head = _last_linear(self.net, arch)
        parent, _, child = head_name.rpartition(".")
        setattr(self.net.get_submodule(parent), child, nn.Identity())
        self.points = nn.ModuleDict()
        stages: dict[tuple[int, ...], str] = {}
        for name, output in _probe(self.net, arch, shape).items():
            point = StagePoint(output[1])
            key = name.replace(".", "_")
            self.points[key] = point
            # A bound method, so that a deep copy of the net calls the copied point.
            self.net.get_submodule(name).register_forward_hook(point.after)
            stages[output[2:]] = f"points.{key}"
        self.stages = tuple(stages.values())
        self.last = Point(head.in_features)
        self.head = head

    def config(self) -> dict[str, Any]:
        return self._config

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.last(self.net(images)))
        return logits


class Torchvision(Model):
    """A randomly initialised net of torchvision; most are made for 224 pixels and shrink 32 to a single one."""

    name = "torchvision"
    summary = "any torchvision classification model with a linear head, by name; not pretrained"
    reference = Reference("torchvision models", 2016, "https://docs.pytorch.org/vision/stable/models.html")

    class Config(Options):
        """Which net."""

        arch: str = Field("resnet18", description="name of a torchvision classification model, such as mobilenet_v2 or vit_b_16")

    config: Config

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raise UserError for an unknown net, one without a linear head, or one that cannot take such images."""
        super().check(shape)
        try:
            with torch.device("meta"):  # no memory, no arithmetic
                TorchvisionBackbone(self.config.arch, 2, shape)
        except NotImplementedError:  # RegNet computes its widths with tensors
            with torch.random.fork_rng(devices=[]):
                TorchvisionBackbone(self.config.arch, 2, shape)

    def build(self, num_classes: int, shape: tuple[int, int, int]) -> Backbone:
        return TorchvisionBackbone(self.config.arch, num_classes, shape)


def _make(arch: str, num_classes: int, shape: tuple[int, int, int]) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if arch not in known:
        close = difflib.get_close_matches(arch, known, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(repr(match) for match in close)}?" if close else "torchvision.models.list_models() names them"
        raise UserError(f"torchvision has no classification model {arch!r}; {hint}")
    channels, height, width = shape
    options = dict(SPECIAL.get(arch, {}))
    if arch.startswith(("vit", "maxvit")):
        options |= {"image_size": height} if arch.startswith("vit") else {"input_size": (height, width)}
    try:
        net: nn.Module = models.get_model(arch, weights=None, num_classes=num_classes, **options)
    except NotImplementedError:  # computed with tensors, on the meta device
        raise
    except (ValueError, RuntimeError) as error:
        raise UserError(_unfit(arch, shape, error)) from None
    patch = getattr(net, "patch_size", 0)
    if isinstance(patch, int) and min(height, width) < 2 * patch:
        raise UserError(
            f"torchvision's {arch} would see images of {height}x{width} as one patch of {patch} pixels and learn nothing; resize the "
            f"dataset to at least {2 * patch}, or choose another arch"
        )
    if channels != 3:
        _take_channels(net, channels)
    return net


def _take_channels(net: nn.Module, channels: int) -> None:
    """Exchange the first convolution for one on `channels` channels, freshly initialised."""
    name, first = next((name, module) for name, module in net.named_modules() if isinstance(module, nn.Conv2d))
    parent, _, child = name.rpartition(".")
    fields = ("out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    options = {field: getattr(first, field) for field in fields}
    setattr(net.get_submodule(parent), child, nn.Conv2d(channels, **options, bias=first.bias is not None))


def _last_linear(net: nn.Module, arch: str) -> tuple[str, nn.Linear]:
    """The net's final layer; UserError if that is not linear (SqueezeNet ends in a convolution)."""
    weighty = [(name, module) for name, module in net.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    name, last = weighty[-1]
    if not isinstance(last, nn.Linear):
        raise UserError(f"torchvision's {arch} does not end in a linear layer, so it has no features to defend; choose another arch")
    return name, last


def _stages(net: nn.Module) -> list[str]:
    """Names of the modules that may be top-level stages: children, and the children of a Sequential of many."""
    names = []
    for name, child in net.named_children():
        if name in ("features", "trunk_output", "layers", "blocks"):
            names += [f"{name}.{inner}" for inner, module in child.named_children() if not isinstance(module, ATOMS)]
        elif not isinstance(child, ATOMS):
            names.append(name)
    return names


def _probe(net: nn.Module, arch: str, shape: tuple[int, int, int]) -> dict[str, tuple[int, ...]]:
    """Output shapes of the stages that give maps [N, C, H, W], in forward order, from one pass on an empty image."""
    seen: dict[str, tuple[int, ...]] = {}

    def record(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4:
                seen[name] = tuple(output.shape)

        return hook

    handles = [net.get_submodule(name).register_forward_hook(record(name)) for name in _stages(net) if not arch.startswith(("swin", "vit"))]
    device = next(net.parameters()).device
    training = net.training
    try:
        with torch.no_grad():
            net.eval()(torch.zeros(1, *shape, device=device))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(_unfit(arch, shape, error)) from None
    finally:
        for handle in handles:
            handle.remove()
        net.train(training)
    return {name: output for name, output in seen.items() if output[2] * output[3] > 1 or "pool" not in name}


def _unfit(arch: str, shape: tuple[int, int, int], error: Exception) -> str:
    channels, height, width = shape
    reason = " ".join(str(error).split())[:120]
    size = f"{height}x{width} with {channels} channels"
    return f"torchvision's {arch} cannot take images of {size} ({reason}); resize the dataset or choose another arch"


@hookimpl
def register_models(register: Callable[[type[Model]], None]) -> None:
    register(Torchvision)
