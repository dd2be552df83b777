"""The training engine: it learns, repeats itself, agrees with plain torch, and refuses to return a broken model."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gatecrash import Backbone, ContractError, Network, Point, Recipe, TrainingDiverged, UserError
from gatecrash.contracts.randomness import Streams
from gatecrash.contracts.recipe import PRESETS, recipe_from
from gatecrash.engine import training, watch
from gatecrash.engine.device import choose_device, supports_bfloat16
from gatecrash.engine.feed import batch_sizes
from gatecrash.engine.optimizer import learning_rates, make_optimizer
from gatecrash.engine.training import train
from gatecrash.engine.watch import TrainProgress


class TinyBackbone(Backbone):
    """A convolution, BatchNorm and a flattening head on 8x8 images, with dropout on request."""

    def __init__(self, num_classes: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.point = Point(4)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(4 * 16, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        maps = F.avg_pool2d(torch.relu(self.norm(self.conv(images))), 2)
        logits: Tensor = self.head(self.dropout(self.point(maps).flatten(1)))
        return logits


def network(dropout: float = 0.0) -> Network:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return Network(TinyBackbone(dropout=dropout), [0.5] * 3, [0.25] * 3)


def toy_set(count: int = 64) -> tuple[Tensor, Tensor]:
    """Noise with one bright quadrant, which is the class."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 100, (count, 3, 8, 8), generator=generator).to(torch.uint8)
    labels = torch.arange(count) % 4
    for row, label in enumerate(labels.tolist()):
        top, left = 4 * (label // 2), 4 * (label % 2)
        images[row, :, top : top + 4, left : left + 4] += 150
    return images, labels


PLAIN = Recipe(epochs=3, batch_size=16, lr=0.1, crop=0, flip=False, weight_decay=0.0, schedule="constant", precision="float32")


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate({**PLAIN.model_dump(), **changes})


def run(net: Network, options: Recipe = PLAIN, *, seed: int = 0, flip: bool = False, count: int = 64, **more: Any) -> training.History:
    images, labels = toy_set(count)
    return train(net, images, labels, options, streams=Streams("test", seed), flip=flip, device="cpu", **more)


def weights(net: nn.Module) -> Tensor:
    return torch.cat([tensor.flatten().double() for tensor in net.state_dict().values()])


def seen_batches(options: Recipe, *, flip: bool = False, **more: Any) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(images, labels, rows) of every batch that reaches the loss."""
    seen = []

    def loss(net: Network, images: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        seen.append((images.clone(), labels.clone(), rows.clone()))
        return F.cross_entropy(net(images), labels)

    run(network(), options, flip=flip, loss=loss, **more)
    return seen


def test_a_separable_set_is_learned_and_the_network_comes_back_ready_for_use() -> None:
    net = network()
    history = run(net, recipe(epochs=8))
    images, labels = toy_set()

    assert history.losses[-1] < 0.1 < history.losses[0]
    assert len(history.losses) == 8
    assert history.images == 8 * 64
    assert (history.precision, history.device) == ("float32", "cpu")
    assert history.seconds > 0
    assert torch.equal(net(images).argmax(1), labels)
    assert not any(module.training for module in net.modules())
    assert all(parameter.grad is None and parameter.is_contiguous() for parameter in net.parameters())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_same_streams_give_the_same_weights_to_the_last_bit_and_others_do_not(optimizer: str) -> None:
    options = recipe(optimizer=optimizer, lr=0.01, crop=1, flip=True)
    nets = [network(dropout=0.3) for _ in range(3)]
    for net, seed in zip(nets, (5, 5, 6), strict=True):
        run(net, options, seed=seed, flip=True)
    assert torch.equal(weights(nets[0]), weights(nets[1]))
    assert not torch.equal(weights(nets[0]), weights(nets[2]))


def test_global_random_state_neither_matters_nor_changes() -> None:
    torch.manual_seed(1)
    first = network(dropout=0.5)
    before = torch.get_rng_state()
    run(first, recipe(crop=2))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = network(dropout=0.5)
    run(second, recipe(crop=2))
    assert torch.equal(weights(first), weights(second))


def test_it_trains_where_gradients_are_switched_off_and_leaves_them_so() -> None:
    net, other = network(), network()
    with torch.no_grad():
        run(net)
        assert not torch.is_grad_enabled()
    run(other)
    assert torch.equal(weights(net), weights(other))


@pytest.mark.parametrize(
    ("options", "optimizer"),
    [
        (recipe(), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
        (recipe(label_smoothing=0.2), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
        (recipe(nesterov=True, weight_decay=0.01), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)),
        (recipe(momentum=0.0, nesterov=True), lambda p: torch.optim.SGD(p, lr=0.1)),
        (recipe(schedule="cosine"), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
        (
            recipe(optimizer="adamw", lr=0.01, momentum=0.8, weight_decay=0.1),
            lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.8, 0.999), weight_decay=0.1),
        ),
    ],
    ids=["sgd", "label smoothing", "nesterov and decay", "no momentum", "cosine", "adamw"],
)
def test_the_engine_agrees_with_a_plain_torch_loop(options: Recipe, optimizer: Any) -> None:
    images, labels = toy_set(60)
    reference = network().train()
    plain = optimizer(reference.parameters())
    steps = options.epochs * 4
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(plain, steps) if options.schedule == "cosine" else None
    order = Streams("test", 0)("order")
    losses = []
    for _ in range(options.epochs):
        total = 0.0
        for rows in torch.randperm(60, generator=order).split(16):  # 16, 16, 16, 12
            loss = F.cross_entropy(reference(images[rows]), labels[rows], label_smoothing=options.label_smoothing)
            plain.zero_grad()
            loss.backward()
            plain.step()
            if schedule is not None:
                schedule.step()
            total += loss.item() * len(rows)
        losses.append(total / 60)

    net = network()
    history = run(net, options, count=60)

    torch.testing.assert_close(weights(net), weights(reference), rtol=1e-3, atol=1e-5)
    assert history.losses == pytest.approx(losses, rel=1e-4)


def test_a_one_cycle_schedule_is_two_straight_lines_without_a_step_at_zero() -> None:
    options = recipe(schedule="one-cycle", warmup=0.25, lr=1.0)
    assert learning_rates(options, 7) == pytest.approx([1 / 2, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert learning_rates(recipe(schedule="one-cycle", warmup=0.0, lr=1.0), 3) == pytest.approx([3 / 4, 2 / 4, 1 / 4])
    assert learning_rates(options, 1) == pytest.approx([2 / 3])


def test_a_cosine_schedule_falls_from_the_peak_towards_zero() -> None:
    assert learning_rates(recipe(schedule="cosine", lr=1.0), 4) == pytest.approx([1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2])
    assert learning_rates(recipe(lr=0.3), 2) == [0.3, 0.3]


def test_weight_decay_spares_biases_and_norms_where_the_recipe_says_so() -> None:
    def decays(**changes: Any) -> list[tuple[float, set[int]]]:
        groups = make_optimizer(network(), recipe(weight_decay=0.1, **changes)).param_groups
        return [(group["weight_decay"], {parameter.ndim for parameter in group["params"]}) for group in groups]

    assert decays() == [(0.1, {1, 2, 4})]
    assert decays(decay_norms=False) == [(0.1, {2, 4}), (0.0, {1})]


def test_biases_have_a_rate_of_their_own_and_decay_as_before() -> None:
    options = recipe(lr=0.1, weight_decay=0.01, bias_lr=64.0, schedule="constant", momentum=0.0, epochs=1, batch_size=64)
    net, images, labels = network(), *toy_set()
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    F.cross_entropy(net.train()(images), labels).backward()
    gradients = {name: parameter.grad for name, parameter in net.named_parameters()}

    net = network()
    run(net, options, loss=lambda net, images, labels, _rows: F.cross_entropy(net(images), labels))  # one step

    for name, parameter in net.named_parameters():
        rate = 6.4 if name.endswith("bias") else 0.1
        expected = before[name] - rate * gradients[name] - 0.1 * 0.01 * before[name]
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-4, atol=1e-6)


def test_a_recipe_with_lookahead_averages_weights_and_statistics_and_leaves_what_is_frozen() -> None:
    plain, averaged = network(), network()
    for net in (plain, averaged):
        net.backbone.conv.requires_grad_(False)
    conv = averaged.backbone.conv.weight.clone()
    run(plain)
    run(averaged, recipe(lookahead=True))
    assert torch.equal(averaged.backbone.conv.weight, conv)
    assert not torch.equal(averaged.head.weight, plain.head.weight)
    assert not torch.equal(averaged.backbone.norm.running_mean, plain.backbone.norm.running_mean)
    images, labels = toy_set()
    assert float((averaged(images).argmax(1) == labels).float().mean()) == 1.0


def test_frozen_parameters_stay_and_nothing_to_train_is_an_error() -> None:
    net = network()
    net.backbone.conv.requires_grad_(False)
    conv, head = net.backbone.conv.weight.clone(), net.head.weight.clone()
    run(net, recipe(weight_decay=0.1))
    assert torch.equal(net.backbone.conv.weight, conv)
    assert not torch.equal(net.head.weight, head)
    with pytest.raises(ContractError, match="nothing to train"):
        run(network().requires_grad_(False))


def test_every_image_is_visited_once_per_epoch_in_a_new_order() -> None:
    rows = [rows for _, _, rows in seen_batches(recipe(epochs=2), count=40)]
    assert [len(part) for part in rows] == [16, 16, 8] * 2
    first, second = torch.cat(rows[:3]), torch.cat(rows[3:])
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(40))
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [(6, 3, [3, 3]), (8, 3, [3, 3, 2]), (7, 3, [3, 4]), (4, 3, [4]), (2, 3, [2]), (1, 3, [1]), (3, 1, [1, 1, 1])],
)
def test_a_single_left_over_image_joins_the_batch_before(count: int, batch_size: int, sizes: list[int]) -> None:
    assert batch_sizes(count, batch_size) == sizes


def test_a_single_left_over_image_does_not_upset_batch_norm() -> None:
    net = network()
    net.backbone.head = nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))  # type: ignore[assignment]
    history = run(net, recipe(batch_size=16), count=33)
    assert history.images == 3 * 33


def test_without_augmentation_images_arrive_byte_for_byte() -> None:
    images, labels = toy_set()
    for batch, targets, rows in seen_batches(PLAIN):
        assert torch.equal(batch, images[rows])
        assert torch.equal(targets, labels[rows])


def test_a_data_set_that_forbids_mirroring_is_never_mirrored() -> None:
    images, _ = toy_set()
    assert all(torch.equal(batch, images[rows]) for batch, _, rows in seen_batches(recipe(flip=True), flip=False))
    assert all(torch.equal(batch, images[rows]) for batch, _, rows in seen_batches(recipe(flip=False), flip=True))


def test_half_of_the_images_are_mirrored_where_recipe_and_data_set_allow_it() -> None:
    images, _ = toy_set()
    mirrored = []
    for batch, _, rows in seen_batches(recipe(epochs=6, flip=True), flip=True):
        same, flipped = ((batch == x).flatten(1).all(1) for x in (images[rows], images[rows].flip(3)))
        assert bool((same | flipped).all())
        mirrored.append(flipped.double())
    share, visits = torch.cat(mirrored).mean().item(), 6 * 64
    assert share == pytest.approx(0.5, abs=4 * 0.5 / visits**0.5)


def test_on_batch_sees_the_rows_before_augmentation() -> None:
    images, labels = toy_set()
    calls = []

    def on_batch(batch: Tensor, targets: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        assert torch.equal(batch, images[rows])
        assert torch.equal(targets, labels[rows])
        calls.append(rows)
        return batch, targets

    run(network(), recipe(epochs=2, crop=2, flip=True), flip=True, on_batch=on_batch)
    assert torch.cat(calls[:4]).sort().values.tolist() == list(range(64))


def test_what_on_batch_returns_is_augmented_and_trained_on() -> None:
    def whiten(batch: Tensor, targets: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full_like(batch, 255), torch.full_like(targets, 3)

    seen = seen_batches(recipe(epochs=1, crop=2), on_batch=whiten)
    batch = torch.cat([images for images, _, _ in seen])
    assert all(bool((labels == 3).all()) for _, labels, _ in seen)
    assert set(batch.unique().tolist()) == {0, 255}  # cropped from zero-padded white images
    assert bool((batch[:, :, 2:6, 2:6] == 255).all())


def test_on_batch_that_changes_nothing_changes_nothing() -> None:
    """So poisoned and clean rows are augmented alike."""
    plain, hooked = network(), network()
    options = recipe(crop=2, flip=True)
    run(plain, options, flip=True)
    run(hooked, options, flip=True, on_batch=lambda images, labels, rows: (images, labels))
    assert torch.equal(weights(plain), weights(hooked))


def test_on_batch_may_use_the_network_in_eval_mode_and_leave_gradients() -> None:
    plain, hooked = network(), network()

    def peek(images: Tensor, labels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        hooked.eval()(images).sum().backward()
        return images, labels

    run(plain)
    run(hooked, on_batch=peek)
    assert torch.equal(weights(plain), weights(hooked))


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda images, labels: (images.float(), labels), "images as torch.uint8"),
        (lambda images, labels: (images[:1], labels), "images as torch.uint8"),
        (lambda images, labels: (images, labels.float()), "labels as torch.int64"),
    ],
)
def test_on_batch_must_return_a_batch_of_the_same_form(result: Any, message: str) -> None:
    with pytest.raises(ContractError, match=f"on_batch must return {message}"):
        run(network(), on_batch=lambda images, labels, rows: result(images, labels))


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


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(0, 3, 8, 8, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), "no image to train on"),
        (torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64), r"uint8 \[N, C, H, W\]; got torch.float32"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), r"int64 \[2\]; got torch.int64 \[3\]"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 4]), r"lie in \[0, 4\); got 0 to 4"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([-1, 0]), r"lie in \[0, 4\); got -1 to 0"),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused(images: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        train(network(), images, labels, PLAIN, streams=Streams(0), flip=False, device="cpu")


def test_progress_has_loss_speed_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "REPORT_SECONDS", 0.0)
    reports: list[TrainProgress] = []
    history = run(network(), recipe(epochs=2), report=reports.append)

    assert [report.epoch for report in reports] == [1, 1, 1, 1, 2, 2, 2, 2]
    assert {report.epochs for report in reports} == {2}
    assert (reports[3].loss, reports[7].loss) == pytest.approx(history.losses)
    assert all(report.images_per_second > 0 for report in reports)
    assert reports[-1].seconds_left == 0 < reports[0].seconds_left


def test_progress_is_rare_but_its_end_is_always_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "REPORT_SECONDS", 1e9)
    reports: list[TrainProgress] = []
    run(network(), report=reports.append)
    assert [report.epoch for report in reports] == [3]


def test_auto_precision_multiplies_in_bfloat16_where_the_device_does(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for capable, precision in ((True, "auto"), (True, "float32"), (False, "auto")):
        monkeypatch.setattr(training, "supports_bfloat16", lambda device, capable=capable: capable)
        net = network()
        dtypes: set[torch.dtype] = set()
        net.backbone.conv.register_forward_hook(lambda module, inputs, output, dtypes=dtypes: dtypes.add(output.dtype))
        history = run(net, recipe(precision=precision, epochs=1))
        seen.append((history.precision, dtypes))
        assert net.backbone.conv.weight.dtype == torch.float32
    assert seen == [("bfloat16", {torch.bfloat16}), ("float32", {torch.float32}), ("float32", {torch.float32})]


def test_devices_are_chosen_by_name_or_by_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device() == torch.device("cuda")


@pytest.mark.parametrize("name", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_a_user_error(name: str) -> None:
    with pytest.raises(UserError, match=f"device '{name}' cannot be used here"):
        choose_device(name)


def test_bfloat16_follows_the_processor_not_its_emulation(monkeypatch: pytest.MonkeyPatch) -> None:
    for instructions, tiles, expected in ((False, False, False), (True, False, True), (False, True, True)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda value=instructions: value)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda value=tiles: value)
        assert supports_bfloat16("cpu") is expected
    assert supports_bfloat16("meta") is False


def test_recipes_are_presets_with_changes() -> None:
    assert recipe_from("standard") == Recipe()
    assert recipe_from({"epochs": 3}) == Recipe(epochs=3)
    assert recipe_from({"preset": "fast", "epochs": 3}) == PRESETS["fast"].model_copy(update={"epochs": 3})
    with pytest.raises(UserError, match="unknown recipe 'fsat'; did you mean 'fast'"):
        recipe_from("fsat")
    with pytest.raises(UserError, match="unknown recipe 3"):
        recipe_from({"preset": 3})


def test_a_field_that_came_later_changes_no_recipe_that_leaves_it_alone() -> None:
    """Random streams are named after a recipe's fields, so that a new one would give other numbers under the same key."""
    first = "epochs batch_size optimizer lr momentum nesterov weight_decay decay_norms schedule warmup label_smoothing crop flip precision"
    assert list(PRESETS["standard"].model_dump()) == list(PRESETS["fast"].model_dump(mode="json")) == first.split()
    assert Recipe(bias_lr=64.0).model_dump() == {**Recipe().model_dump(), "bias_lr": 64.0}
    assert Recipe(lookahead=True).model_dump(exclude_defaults=True) == {"lookahead": True}
    assert recipe_from({"preset": "airbench", "lookahead": False}).bias_lr == 64.0


def test_the_standard_recipe_is_backdoorbenchs() -> None:
    standard = dataclasses.asdict(Settings())
    assert {name: getattr(PRESETS["standard"], name) for name in standard} == standard


@dataclasses.dataclass
class Settings:
    """Wu et al. 2022: the training settings of the published tables."""

    epochs: int = 100
    batch_size: int = 128
    optimizer: str = "sgd"
    lr: float = 0.01
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    label_smoothing: float = 0.0
    crop: int = 4
    flip: bool = True


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_sees_the_same_images_in_the_same_order_and_learns_the_same() -> None:
    images, labels = toy_set()
    seen: dict[str, list[Tensor]] = {"cpu": [], "cuda": []}
    for device, batches in seen.items():

        def loss(net: Network, batch: Tensor, targets: Tensor, rows: Tensor, batches: list[Tensor] = batches) -> Tensor:
            batches.append(batch.cpu())
            return F.cross_entropy(net(batch), targets)

        train(network(), images, labels, recipe(crop=2, flip=True), streams=Streams(0), flip=True, device=device, loss=loss)
    assert all(torch.equal(a, b) for a, b in zip(seen["cpu"], seen["cuda"], strict=True))
    net = network()
    history = train(net, images, labels, recipe(epochs=8, precision="auto"), streams=Streams(0), flip=False, device="cuda")
    assert history.losses[-1] < 0.1
    assert torch.equal(net(images.cuda()).argmax(1).cpu(), labels)
