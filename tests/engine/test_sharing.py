"""Versions of a network share what they have in common, and answer to the last digit as each does alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gatecrash import Backbone, Network, Point
from gatecrash.contracts.portable import Portable
from gatecrash.engine import sharing
from gatecrash.engine.sharing import CannotShare, SharedPasses
from gatecrash.host.loading import load_plugins

HOST = load_plugins([])
SHIPPED: list[tuple[str, dict[str, Any], tuple[int, int, int]]] = [
    ("small-cnn", {}, (1, 8, 8)),
    ("lean", {"width": 0.125}, (3, 16, 16)),
    ("vgg11-bn", {}, (3, 32, 32)),
    ("resnet18", {}, (3, 8, 8)),
    ("preact-resnet18", {}, (3, 8, 8)),
    ("airbench", {"widths": [8, 16, 16]}, (3, 16, 16)),
    ("torchvision", {"arch": "mobilenet_v2"}, (3, 32, 32)),
]


def restless(network: Network) -> Network:
    """Norms as after a training, so that no two channels are alike."""
    generator = torch.Generator().manual_seed(1)
    for norm in network.norms.values():
        for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
            tensor.uniform_(0.5, 1.5, generator=generator)
    return network.eval()


def versions(network: Network) -> list[dict[str, Tensor]]:
    """Nothing changed, a late norm, an early one, both, a mask halfway, the head, and the late norm again."""
    norms, points = list(network.norms.items()), list(network.points.items())
    (early, first), (late, last), (name, point) = norms[0], norms[-1], points[len(points) // 2]
    pruned = {f"backbone.{late}.weight": last.weight.detach() * (torch.arange(len(last.weight)) % 2)}
    changed = {f"backbone.{early}.weight": first.weight.detach() * 0.5}
    masked = {f"backbone.{name}.mask": torch.arange(point.channels) % 3 / 2}
    return [{}, pruned, changed, {**pruned, **changed}, masked, {"backbone.head.weight": network.head.weight.detach() * 2}, dict(pruned)]


def one_by_one(network: Network, changes: list[dict[str, Tensor]], images: Tensor) -> list[Tensor]:
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    answers = []
    for change in changes:
        network.load_state_dict({**start, **change})
        answers.append(network(images))
    network.load_state_dict(start)
    return answers


def random_images(shape: tuple[int, int, int], count: int = 4) -> Tensor:
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("model", SHIPPED, ids=lambda model: model[0])
@torch.no_grad()
def test_every_version_of_a_shipped_model_answers_to_the_last_digit_as_it_does_alone(model: Any) -> None:
    name, config, shape = model
    backbone = HOST.get("model", name).configure(config).build(10, shape)
    network = restless(Network(backbone, (0.5,) * shape[0], (0.2,) * shape[0])).to(memory_format=torch.channels_last)
    images, changes = random_images(shape), versions(network)
    passes = SharedPasses(network, changes)
    shared = passes(images)
    assert all(torch.equal(ours, alone) for ours, alone in zip(shared, one_by_one(network, changes, images), strict=True))
    assert len({tuple(logits.flatten().tolist()) for logits in shared}) == 6, "the last version is the second"
    assert len(passes) < 0.75 * len(changes) * len(SharedPasses(network, [{}]))
    passes.check(images)
    assert passes.remembers_nothing == (name not in {"vgg11-bn", "torchvision"}), "their points are classes of their own"


class Layer(nn.Module):
    """A convolution with a norm."""

    def __init__(self, channels_in: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.point = Point(4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.point(self.norm(self.conv(x)))
        return out


class Body(Backbone):
    """Two layers, the second added to the first in its `way`."""

    def __init__(self, way: str = "plain") -> None:
        super().__init__()
        self.way = way
        self.gain = nn.Parameter(torch.ones(4, 1, 1))
        self.register_buffer("offset", torch.zeros(4, 1, 1))
        self.one, self.two = Layer(1), Layer(4)
        self.last = Point(4)
        self.head = nn.Linear(4, 3)

    def config(self) -> dict[str, Any]:
        return {"way": self.way}

    def forward(self, images: Tensor) -> Tensor:
        first = F.relu(self.one(images))
        second = self.two(first) * self.gain + (self.offset * 2)
        if self.way == "in place":
            first = first.add_(second)
        elif self.way == "branching" and bool(second.mean() > 0):
            first = first - second
        elif self.way == "frozen":
            first = first + second * self._parameters["gain"].detach().abs()
        else:
            first = first + second
        logits: Tensor = self.head(F.adaptive_avg_pool2d(self.last(first), 1).flatten(1))
        return logits


def body(way: str = "plain") -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return restless(Network(Body(way), (0.5,), (0.3,)))


OWN = [{}, {"backbone.gain": torch.full((4, 1, 1), -2.0)}, {"backbone.offset": torch.ones(4, 1, 1)}]


@torch.no_grad()
def test_parameters_and_buffers_that_a_forward_uses_itself_count_too() -> None:
    network, images = body(), random_images((1, 6, 6))
    passes = SharedPasses(network, OWN)
    shared = passes(images)
    assert all(torch.equal(ours, alone) for ours, alone in zip(shared, one_by_one(network, OWN, images), strict=True))
    assert len({float(logits.sum()) for logits in shared}) == 3
    passes.check(images)


@torch.no_grad()
def test_each_layer_sees_the_images_once_for_all_versions_that_have_it_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = body(), random_images((1, 6, 6))
    names = {id(layer): name for name, layer in network.named_modules()}
    changes = [{"backbone.two.norm.bias": torch.full((4,), float(number))} for number in (3, 1, 2, 1)]
    passes, seen, convolve = SharedPasses(network, changes), [], nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda layer, x: seen.append(names[id(layer)]) or convolve(layer, x))  # type: ignore[func-returns-value]
    passes(images)
    assert seen == ["backbone.one.conv", "backbone.two.conv"]


@pytest.mark.parametrize("way", ["in place", "frozen"])
@torch.no_grad()
def test_what_cannot_be_shared_is_found_by_the_first_images(way: str) -> None:
    """A sum that is written over its first part; a parameter that the graph of computation does not show."""
    network, images = body(way), random_images((1, 6, 6))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(CannotShare, match="writes to a tensor" if way == "in place" else "other logits"):
        SharedPasses(network, OWN).check(images)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


class Doubling(Portable):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


class Own(Network):
    def forward(self, images: Tensor) -> Tensor:
        return -super().forward(images)


@torch.no_grad()
def test_what_is_not_a_graph_of_layers_is_left_to_whole_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CannotShare, match="control flow"):
        SharedPasses(body("branching"), OWN)
    with pytest.raises(CannotShare, match="forward"):
        SharedPasses(Own(Body(), (0.5,), (0.3,)), OWN)
    network, images = body(), random_images((1, 6, 6))
    assert SharedPasses(network, OWN).remembers_nothing
    network.insert("one.point", Doubling())
    passes = SharedPasses(network, OWN)
    assert not passes.remembers_nothing, "a plugin's module may"
    passes.check(images)
    monkeypatch.setattr(sharing, "LARGEST", 3)
    with pytest.raises(CannotShare, match="too little in common"):
        SharedPasses(network, OWN)


class Posing(nn.ReLU):
    """Says that it is torch's own."""


Posing.__module__ = nn.ReLU.__module__
Posing.__qualname__ = "ReLU"


class Noted(nn.Parameter):
    """A kind of tensor that could keep what it meets."""


def replaced_method() -> nn.Module:
    layer = nn.ReLU()
    layer.forward = layer.forward  # type: ignore[method-assign]
    return layer


def hooked() -> nn.Module:
    layer = nn.ReLU()
    layer.register_forward_pre_hook(lambda _layer, _given: None)
    return layer


def noting() -> nn.Module:
    layer = nn.PReLU()
    layer.weight = Noted(layer.weight.detach())
    return layer


class Ending(Backbone):
    """A layer in front of the head."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.point, self.head = layer, Point(4), nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.point(self.layer(images).flatten(1)))
        return logits


@pytest.mark.parametrize(
    ("make", "plain"), [(nn.ReLU, True), (nn.PReLU, True), (Posing, False), (replaced_method, False), (hooked, False), (noting, False)]
)
def test_what_poses_as_torchs_own_may_remember(make: Any, plain: bool) -> None:
    network = Network(Ending(make()), [0.5], [0.25]).eval()
    assert SharedPasses(network, [{"backbone.head.bias": torch.ones(2)}]).remembers_nothing is plain


class Writing(Backbone):
    """What it multiplies in place is read by its old name later."""

    mask: Tensor

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.register_buffer("mask", torch.ones(4))
        self.point, self.head = Point(4), nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1)
        if self.how == "method":
            x.mul_(self.mask)
        elif self.how == "out":
            torch.mul(x, self.mask, out=x)
        else:
            F.relu(x, True)
        logits: Tensor = self.head(self.point(x))
        return logits


@pytest.mark.parametrize("how", ["method", "out", "inplace"])
def test_a_network_that_writes_to_tensors_is_left_to_whole_passes(how: str) -> None:
    with pytest.raises(CannotShare, match="writes to a tensor"):
        SharedPasses(Network(Writing(how), [0.5], [0.25]).eval(), [{"backbone.mask": torch.zeros(4)}])


KEPT: list[Tensor] = []


@torch.library.custom_op("gatecrash_test::keep", mutates_args=())
def keep(values: Tensor) -> Tensor:
    KEPT.append(values)
    return values.clone()


@pytest.mark.parametrize("operator", [keep, torch.ops.gatecrash_test.keep, torch.ops.gatecrash_test.keep.default])
def test_operators_that_a_plugin_registers_with_torch_may_remember(operator: Any) -> None:
    class Custom(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            kept: Tensor = operator(values)
            return kept

    changes = [{"backbone.head.bias": torch.ones(2)}]
    assert not SharedPasses(Network(Ending(Custom()), [0.5], [0.25]).eval(), changes).remembers_nothing
