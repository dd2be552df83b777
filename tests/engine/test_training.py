"""The training engine: it learns, repeats itself, agrees with plain torch, and leaves global state alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gatecrash import ContractError, Network, Recipe
from gatecrash.contracts.patched import Patched
from gatecrash.contracts.randomness import Streams
from gatecrash.engine import training
from gatecrash.engine.training import Method, train
from support.small_training import network, recipe, run, toy_set, weights


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


@pytest.mark.parametrize("custom_loss", [False, True])
def test_a_patch_over_a_set_trains_like_the_changed_set(custom_loss: bool) -> None:
    images, labels = toy_set()
    rows, options = torch.tensor([63, 3, 20]), recipe(crop=2, flip=True)
    patched, copy = Patched.of(images, rows, 255 - images[rows]), images.clone()
    copy[rows] = 255 - images[rows]
    loss = (lambda net, x, y, _rows: F.cross_entropy(net(x), y)) if custom_loss else None  # whose success is tested on the images
    nets = [network(dropout=0.3) for _ in range(2)]
    for net, data in zip(nets, (patched, copy), strict=True):
        train(net, data, labels, options, streams=Streams(0), flip=True, device="cpu", method=Method(loss=loss))
    assert torch.equal(weights(nets[0]), weights(nets[1]))


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


def test_a_single_left_over_image_does_not_upset_batch_norm() -> None:
    net = network()
    net.backbone.head = nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))  # type: ignore[assignment]
    history = run(net, recipe(batch_size=16), count=33)
    assert history.images == 3 * 33


def test_auto_precision_multiplies_in_bfloat16_where_the_device_does(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for capable, precision in ((True, "auto"), (True, "float32"), (False, "auto")):
        monkeypatch.setattr(training, "auto_precision", lambda device, capable=capable: "bfloat16" if capable else "float32")
        net = network()
        dtypes: set[torch.dtype] = set()
        net.backbone.conv.register_forward_hook(lambda module, inputs, output, dtypes=dtypes: dtypes.add(output.dtype))
        history = run(net, recipe(precision=precision, epochs=1))
        seen.append((history.precision, dtypes))
        assert net.backbone.conv.weight.dtype == torch.float32
    assert seen == [("bfloat16", {torch.bfloat16}), ("float32", {torch.float32}), ("float32", {torch.float32})]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_sees_the_same_images_in_the_same_order_and_learns_the_same() -> None:
    images, labels = toy_set()
    seen: dict[str, list[Tensor]] = {"cpu": [], "cuda": []}
    for device, batches in seen.items():

        def loss(net: Network, batch: Tensor, targets: Tensor, rows: Tensor, batches: list[Tensor] = batches) -> Tensor:
            batches.append(batch.cpu())
            return F.cross_entropy(net(batch), targets)

        train(network(), images, labels, recipe(crop=2, flip=True), streams=Streams(0), flip=True, device=device, method=Method(loss=loss))
    assert all(torch.equal(a, b) for a, b in zip(seen["cpu"], seen["cuda"], strict=True))
    net = network()
    history = train(net, images, labels, recipe(epochs=8, precision="auto"), streams=Streams(0), flip=False, device="cuda")
    assert history.losses[-1] < 0.1
    assert torch.equal(net(images.cuda()).argmax(1).cpu(), labels)
