"""Channel-Lipschitzness-based pruning: a bound by hand, one filter that stands out, and norms that are not a convolution's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gatecrash import Backbone, ImageSet, Network, NotApplicable, Point
from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses.clp import CLP, lipschitz_bounds, outlying
from support.planted_networks import one_channel_per_class, one_pixel_per_class
from support.shipped_models import built_network


class OneNorm(Backbone):
    """A convolution of `filters` [C, channels in, k, k] and its norm."""

    def __init__(self, filters: list[Any]) -> None:
        super().__init__()
        self._config = {"filters": filters}
        weight = torch.tensor(filters)
        self.conv = nn.Conv2d(weight.shape[1], len(weight), weight.shape[2], bias=False)
        self.norm = nn.BatchNorm2d(len(weight), eps=0.0)
        self.last = Point(len(weight))
        self.head = nn.Linear(len(weight), 2)
        self.conv.weight.data = weight

    def config(self) -> dict[str, Any]:
        return self._config

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.last(F.relu(self.norm(self.conv(images)))).mean((2, 3)))
        return logits


def planted(filters: list[Any], gamma: float = 1.0, variance: float = 1.0) -> Network:
    network = Network(OneNorm(filters), [0.0] * len(filters[0]), [1.0] * len(filters[0])).eval()
    network.norms["norm"].weight.data.fill_(gamma)
    network.norms["norm"].running_var.fill_(variance)
    return network


def defended(network: Network, **options: Any) -> Any:
    defense = CLP(CLP.Config(**options))
    classes, channels = network.head.out_features, len(network.config()["mean"])
    nothing = ImageSet(torch.zeros(classes, channels, 8, 8, dtype=torch.uint8), torch.arange(classes), tuple(map(str, range(classes))))
    outcome = defense.defend(make_evidence(defense, network, nothing))  # it asks for no data
    outcome.check(defense.gives, None, network.head.out_features)
    return outcome


@pytest.mark.parametrize(("gamma", "variance", "bound"), [(2.0, 1.0, 10.0), (-2.0, 1.0, 10.0), (2.0, 4.0, 5.0)])
def test_the_bound_of_a_channel(gamma: float, variance: float, bound: float) -> None:
    """The matrix of a 1x1 filter with the weights 3 and 4 is a column: its only singular value is 5."""
    found = lipschitz_bounds(planted([[[[3.0]], [[4.0]]]], gamma, variance), "paper")
    torch.testing.assert_close(found, {"norm": torch.tensor([bound])})


def test_the_bound_takes_the_filter_as_a_matrix_of_channels_times_places() -> None:
    two_by_two = [[[1.0, 0.0], [0.0, 0.0]], [[0.0, 2.0], [0.0, 0.0]]]  # rows (1, 0, 0, 0) and (0, 2, 0, 0): singular values 1 and 2
    torch.testing.assert_close(lipschitz_bounds(planted([two_by_two]), "paper")["norm"], torch.tensor([2.0]))


def test_one_inflated_filter_of_64_goes_and_none_of_equal_ones() -> None:
    equal = [[[[1.0]]]] * 64
    inflated = [[[[5.0]]], *equal[1:]]
    network = defended(planted(inflated)).classifier
    assert torch.nonzero(network.norms["norm"].weight == 0).flatten().tolist() == [0]
    assert torch.nonzero(network.norms["norm"].weight != 1).flatten().tolist() == [0]
    assert not bool((defended(planted(equal)).classifier.norms["norm"].weight == 0).any())


def test_a_channel_that_is_off_gives_nothing() -> None:
    victim = planted([[[[5.0]]], *[[[[1.0]]]] * 63])
    victim.norms["norm"].bias.data.fill_(0.5)
    network = defended(victim).classifier
    activation = network.activations(torch.rand(2, 1, 4, 4), ["last"])["last"]
    assert not bool(activation[:, 0].any())
    assert bool(activation[:, 1:].any())


def test_the_threshold_is_mean_and_unbiased_deviations() -> None:
    bounds = torch.tensor([1.0, 2.0, 3.0, 10.0])  # mean 4, unbiased deviation 4.0825
    assert outlying({"norm": bounds}, 1.46)["norm"].tolist() == [False, False, False, True]  # 9.96
    assert not bool(outlying({"norm": bounds}, 1.47)["norm"].any())  # 10.001


def test_a_norm_without_a_convolution_of_its_own_is_left_alone() -> None:
    """In a pre-activation net the first norm of a block normalises a sum: only the second one is a convolution's own."""
    network = built_network("preact-resnet18")
    own = lipschitz_bounds(network, "paper")
    assert own
    assert all(name.endswith("bn2") for name in own)
    assert set(lipschitz_bounds(network, "published")) == set(network.norms)  # the published pairing takes them all


def test_on_a_plain_net_the_published_pairing_is_the_right_one() -> None:
    network = built_network("resnet18")
    own, published = lipschitz_bounds(network, "paper"), lipschitz_bounds(network, "published")
    assert own.keys() == published.keys()
    for name, bound in own.items():
        torch.testing.assert_close(bound, published[name], rtol=1e-4, atol=1e-6)


def test_a_dead_channel_gives_no_nan() -> None:
    network = planted([[[[0.0]]], [[[1.0]]]], variance=0.0)
    assert torch.isfinite(lipschitz_bounds(network, "published")["norm"]).all()
    assert lipschitz_bounds(network, "published")["norm"][0] == 0


def test_a_network_without_norms_has_no_bounds() -> None:
    defense = CLP()
    with pytest.raises(NotApplicable, match="no convolution with a BatchNorm of its own"):
        defense.defend(make_evidence(defense, one_channel_per_class(), one_pixel_per_class((2, 2, 2, 2, 2))))


def test_the_trajectory_goes_from_no_channel_to_many_and_holds_the_choice() -> None:
    outcome = defended(built_network("resnet18"), u=2.25)
    pruned = [step.params["pruned"] for step in outcome.trajectory]
    assert pruned == sorted(pruned)
    assert 2.25 in [step.params["u"] for step in outcome.trajectory]
    changed = next(step.changes for step in outcome.trajectory if step.params["u"] == 2.25)
    state = outcome.classifier.state_dict()
    assert all(state[name].equal(values) for name, values in changed.items())
