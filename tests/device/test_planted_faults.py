"""A defense with one of the faults that only a GPU shows: the checks name the fault and its line."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gatecrash import Config, Defense, Evidence, Give, Need, Network, Outcome
from gatecrash.testing import CheckFailed
from support.sound_plugins import PAPER, run_check


class Tuned(Defense):
    """Fine-tunes the victim with a loss of its own, which has no fault."""

    name = "tuned"
    summary = "fine-tunes"
    reference = PAPER
    needs = frozenset({Need.MODEL, Need.CLEAN_DATA, Need.RETRAIN})
    gives = frozenset({Give.CLASSIFIER})

    class Config(Config):
        """No options."""

    def defend(self, evidence: Evidence) -> Outcome:
        network = evidence.classifier
        assert isinstance(network, Network)
        return Outcome(classifier=evidence.train(evidence.clean, network=network, recipe=evidence.recipe, loss=self.loss, diverges=True))

    def loss(self, network: Network, images: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        return F.cross_entropy(network(images), labels)


class OnTheCpu(Tuned):
    """Weights its classes by a tensor that stays on the CPU."""

    def loss(self, network: Network, images: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        return F.cross_entropy(network(images), labels, weight=torch.ones(network.num_classes))


class Waiting(Tuned):
    """Reads its loss in every step."""

    def loss(self, network: Network, images: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        value = super().loss(network, images, labels, rows)
        return value if value.item() < 100 else value / 2


class Choosing(Tuned):
    """Selects images by a mask in every step."""

    def loss(self, network: Network, images: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        chosen = labels >= 0
        return F.cross_entropy(network(images[chosen]), labels[chosen])


class CpuOnly(Tuned):
    """Calls an operation that torch has for the CPU alone."""

    def loss(self, network: Network, images: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        torch.histogram(images.float(), 4)
        return super().loss(network, images, labels, rows)


class Forgiving(CpuOnly):
    """Goes on without what failed."""

    def loss(self, network: Network, images: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        try:
            return super().loss(network, images, labels, rows)
        except RuntimeError:
            return Tuned.loss(self, network, images, labels, rows)


@pytest.mark.parametrize(
    ("plugin", "check", "said"),
    [
        (OnTheCpu, "honours-the-device", r"nll_loss.* on the same device.*test_planted_faults.py:\d+ in loss"),
        (CpuOnly, "honours-the-device", r"histogram has no kernel for a GPU.*test_planted_faults.py:\d+ in loss"),
        (Forgiving, "honours-the-device", r"expected nothing that a GPU refuses; got .*histogram"),
        (Waiting, "trains-without-waiting", r"a value read in Python .* in every step, at test_planted_faults.py:\d+ in loss"),
        (Choosing, "trains-without-waiting", r"a selection by a mask .* in every step, at test_planted_faults.py:\d+ in loss"),
    ],
)
def test_a_fault_that_only_a_gpu_shows_is_found_without_one(plugin: type[Defense], check: str, said: str) -> None:
    if "histogram" in said and torch.version.cuda is None:
        pytest.skip("this build of torch does not say what CUDA has")
    with pytest.raises(CheckFailed, match=said):
        run_check(plugin(), check)


@pytest.mark.parametrize("check", ["honours-the-device", "trains-without-waiting"])
def test_the_defense_without_the_fault_passes(check: str) -> None:
    run_check(Tuned(), check)


class Declared(Waiting):
    """Says that its method reads values."""

    deviations = {"trains-without-waiting": "the loss decides what the next step is"}


def test_a_method_that_must_wait_says_so() -> None:
    run_check(Declared(), "trains-without-waiting")
