"""Training that is not finite or has not learned is an error; progress is reported rarely."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gatecrash import Network, TrainingDiverged
from gatecrash.contracts.randomness import Streams
from gatecrash.engine import watch
from gatecrash.engine.training import Execution, train
from gatecrash.engine.watch import TrainProgress
from support.small_training import PLAIN, network, recipe, run, toy_set


def test_a_loss_that_becomes_nan_names_epoch_and_remedy() -> None:
    with pytest.raises(TrainingDiverged, match=r"the loss became nan in epoch 1 of 3; lower the recipe's lr \(0\.1\)"):
        run(network(), loss=lambda net, images, labels, rows: net(images).sum() * math.nan)


def test_weights_broken_by_the_last_step_are_noticed() -> None:
    def steep(net: Network, images: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        return net.head.bias.sum() * 1e37  # finite, and so is its gradient; the step of 100 times the gradient is not

    with pytest.raises(TrainingDiverged, match="weights became infinite or NaN"):
        run(network(), recipe(epochs=1, batch_size=64, lr=100.0), loss=steep)


def test_a_model_worse_than_guessing_is_an_error() -> None:
    images, labels = torch.zeros(64, 3, 8, 8, dtype=torch.uint8), torch.arange(64) % 4  # nothing to tell the classes by
    with pytest.raises(
        TrainingDiverged, match=r"loss of the last epoch \(3\) is .*, worse than guessing \(1\.39\); lower .* lr \(5\), or raise epochs"
    ):
        train(network(), images, labels, recipe(lr=5.0), streams=Streams(0), flip=False, device="cpu")


def test_guessing_means_the_frequencies_of_the_labels() -> None:
    """A net that always names the frequent class beats log K on unbalanced data, and is still no model."""
    images, labels = torch.zeros(64, 3, 8, 8, dtype=torch.uint8), torch.zeros(64, dtype=torch.int64)
    labels[:8] = 1
    with pytest.raises(TrainingDiverged, match=r"worse than guessing \(0\.377\)"):
        train(network(), images, labels, recipe(epochs=4), streams=Streams(0), flip=False, device="cpu")


def test_a_set_of_one_class_can_be_trained_on() -> None:
    images, _ = toy_set(16)
    history = train(network(), images, torch.zeros(16, dtype=torch.int64), PLAIN, streams=Streams(0), flip=False, device="cpu")
    assert len(history.losses) == PLAIN.epochs


def test_a_loss_of_ones_own_may_be_large() -> None:
    history = run(network(), loss=lambda net, images, labels, rows: 100 + F.cross_entropy(net(images), labels))
    assert history.losses[-1] > 100


def no_better_than_a_guess(net: Network, images: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
    return -F.cross_entropy(net(images), labels).clamp(max=20)


class TestALossOfOnesOwn:
    """Its value says nothing, so the network is tested on the images."""

    def test_a_network_that_only_guesses_is_an_error_that_names_the_way_out(self) -> None:
        wanted = r"accuracy on the training images is 0.*, no better than guessing \(0\.25\); .* where this is meant, .* diverges=True"
        with pytest.raises(TrainingDiverged, match=wanted):
            run(network(), loss=no_better_than_a_guess)

    def test_unless_that_is_meant(self) -> None:
        assert run(network(), loss=no_better_than_a_guess, diverges=True).warning is None
        worse = run(network(), recipe(lr=1e-5), diverges=True)  # cross-entropy, and untrained
        assert worse.warning is None

    def test_or_the_training_was_short_or_is_not_finished(self) -> None:
        short = run(network(), loss=no_better_than_a_guess, execution=Execution(fresh=True))
        part = run(network(), loss=no_better_than_a_guess, part=(0, 0.5))
        for history in (short, part):
            assert history.warning is not None
            assert "no better than guessing (0.25), after too few steps" in history.warning

    def test_weights_stay_what_the_training_made_them(self) -> None:
        tested, untested = network(), network()
        for net, diverges in ((tested, False), (untested, True)):
            run(net, recipe(epochs=4), loss=lambda net, images, labels, rows: F.cross_entropy(net(images), labels), diverges=diverges)
        assert torch.equal(torch.cat([p.flatten() for p in tested.parameters()]), torch.cat([p.flatten() for p in untested.parameters()]))


def test_progress_has_loss_speed_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "REPORT_SECONDS", 0.0)
    reports: list[TrainProgress] = []
    history = run(network(), recipe(epochs=2), execution=Execution(reports.append))

    assert [report.epoch for report in reports] == [1, 1, 1, 1, 2, 2, 2, 2]
    assert {report.epochs for report in reports} == {2}
    assert (reports[3].loss, reports[7].loss) == pytest.approx(history.losses)
    assert all(report.images_per_second > 0 for report in reports)
    assert reports[-1].seconds_left == 0 < reports[0].seconds_left


def test_progress_is_rare_but_its_end_is_always_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "REPORT_SECONDS", 1e9)
    reports: list[TrainProgress] = []
    run(network(), execution=Execution(reports.append))
    assert [report.epoch for report in reports] == [3]


def test_a_short_run_of_an_untrained_network_is_a_warning() -> None:
    """A smoke run cannot have learned; a longer one, or one that spoils a trained network, has diverged."""
    images, labels = torch.zeros(64, 3, 8, 8, dtype=torch.uint8), torch.arange(64) % 4
    short, long = recipe(epochs=3, batch_size=64, lr=5.0), recipe(epochs=watch.SHORT, batch_size=64, lr=5.0)
    history = train(network(), images, labels, short, streams=Streams(0), flip=False, device="cpu", execution=Execution(fresh=True))
    assert history.warning is not None
    assert "worse than guessing (1.39), after too few steps to learn; raise epochs, or lower the recipe's lr (5)" in history.warning
    for settings, fresh in ((long, True), (short, False)):
        with pytest.raises(TrainingDiverged):
            train(network(), images, labels, settings, streams=Streams(0), flip=False, device="cpu", execution=Execution(fresh=fresh))
