"""Training of the same PreActResNet-18 from the same weights on the same poisoned images: ours, the usual pipeline, BackdoorBench.

BackdoorBench computes with its own classes: the net, the poisoned data set, the transforms, the optimiser and `BackdoorModelTrainer`.
Its test after each epoch and its plots are left out; the epoch is called as `train_with_test_each_epoch_on_mix` calls it.
"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from gatecrash import Backdoor, ImageSet, Network, Recipe, Role
from gatecrash.contracts.randomness import Streams
from gatecrash.engine.device import supports_bfloat16
from gatecrash.engine.precision import Precision
from gatecrash.engine.training import Execution, train
from gatecrash.evaluation.exam import evaluate
from gatecrash_plugins.models.preact_resnet18 import PreActResNet18
from peers.setting import CPU, MEAN, STD, Setting, as_a_task, few
from peers.tools import BACKDOORBENCH
from peers.turns import Clock, Figures, Side
from peers.usual import PilImages, loader, one_epoch

RECIPE = Recipe(epochs=3, schedule="constant")
"""BackdoorBench's, which is the default recipe, but shorter and at a constant rate (its own schedule falls by epochs, ours by steps)."""
PER_CLASS = {"train": 64, "test": 20}
"""Batches of 128 divide the training set, because BackdoorBench drops an incomplete one."""
EQUAL = (
    "PreActResNet-18 from the same weights, 3 epochs of the same 640 images of CIFAR-10 (10% BadNets), crop 4 and flip, SGD in batches of "
    "128 at a rate of 0.01 with momentum 0.9 and decay 0.0005; one thread, no worker processes; judged by the same evaluation"
)


@dataclass(frozen=True)
class Task:
    """What all train on and are judged by. `poison` is bool [N], `truth` are the labels before poisoning."""

    data: ImageSet
    poison: Tensor
    truth: Tensor
    test: ImageSet
    backdoors: tuple[Backdoor, ...]

    def network(self) -> Network:
        torch.manual_seed(0)
        return Network(PreActResNet18().build(self.data.num_classes, self.data.shape), MEAN, STD)

    def judged(self, network: Network, loss: float) -> Figures:
        scores = evaluate(network, self.test, self.backdoors, device=CPU)
        return {"loss of the last epoch": loss, "ACC %": 100 * (scores.acc or 0.0), "ASR %": 100 * (scores.asr or 0.0)}


def sides(setting: Setting) -> list[Side]:
    work = task(setting)
    return [
        *ours(work),
        Side("PIL, torchvision transforms, DataLoader", partial(usual, work)),
        Side(BACKDOORBENCH.name, partial(backdoorbench, work), BACKDOORBENCH),
    ]


def task(setting: Setting) -> Task:
    rows = few(setting.train, PER_CLASS["train"])
    data = setting.poisoned.as_image_set(setting.train.classes).subset(rows)
    poison = setting.poisoned.role[rows] == Role.POISON
    test = setting.test.subset(few(setting.test, PER_CLASS["test"]))
    return Task(data, poison, setting.train.labels[rows], test, tuple(setting.poisoned.backdoors))


def ours(work: Task) -> list[Side]:
    """In float32, and in bfloat16 where the processor has it."""
    precisions: list[Precision] = ["float32", "bfloat16"] if supports_bfloat16(CPU) else ["float32"]
    return [Side(f"Gatecrash, {precision}", partial(gatecrash, work, precision)) for precision in precisions]


def gatecrash(work: Task, precision: Precision, clock: Clock) -> Figures:
    network = work.network()
    with as_a_task():
        with clock:
            history = train(
                network,
                work.data.images,
                work.data.labels,
                RECIPE,
                streams=Streams("peers"),
                flip=True,
                device=CPU,
                execution=Execution(precision=precision, fresh=True),
            )
        return work.judged(network, history.losses[-1])


def usual(work: Task, clock: Clock) -> Figures:
    network = work.network()
    net = network.backbone.train()
    optimizer = torch.optim.SGD(net.parameters(), RECIPE.lr, momentum=RECIPE.momentum, weight_decay=RECIPE.weight_decay)
    batches = loader(PilImages(work.data.images, work.data.labels, MEAN, STD), RECIPE.batch_size)
    with clock:
        losses = [one_epoch(net, optimizer, batches, CPU) for _ in range(RECIPE.epochs)]
    return work.judged(network.eval(), losses[-1])


def backdoorbench(work: Task, clock: Clock) -> Figures:
    from models.preact_resnet import PreActResNet18 as TheirNet
    from utils.aggregate_block.dataset_and_transform_generate import get_transform
    from utils.aggregate_block.train_settings_generate import argparser_criterion, argparser_opt_scheduler
    from utils.bd_dataset_v2 import dataset_wrapper_with_transform, prepro_cls_DatasetBD_v2
    from utils.trainer_cls import BackdoorModelTrainer

    network = work.network()
    net = TheirNet(work.data.num_classes)
    net.load_state_dict(renamed(without_masks(network.backbone.state_dict()), "head.", "linear."))
    check_same(network, net, work.test.images[:8])

    pictures = [Image.fromarray(image) for image in work.data.images.permute(0, 2, 3, 1).contiguous().numpy()]
    data = prepro_cls_DatasetBD_v2(list(zip(pictures, work.truth.tolist(), strict=True)))
    for row in torch.nonzero(work.poison).flatten().tolist():
        data.set_one_bd_sample(row, pictures[row], int(work.data.labels[row]), int(work.truth[row]))
    height, width = work.data.shape[1:]
    batches = DataLoader(
        dataset_wrapper_with_transform(data, get_transform("cifar10", height, width, train=True)),
        batch_size=RECIPE.batch_size,
        shuffle=True,
        drop_last=True,
    )
    options = Namespace(
        client_optimizer="sgd", lr=RECIPE.lr, sgd_momentum=RECIPE.momentum, wd=RECIPE.weight_decay, lr_scheduler=RECIPE.schedule
    )
    optimizer, scheduler = argparser_opt_scheduler(net, options)
    trainer = BackdoorModelTrainer(net)
    with tempfile.TemporaryDirectory() as folder:
        trainer.set_with_dataloader(
            batches, {}, argparser_criterion(options), optimizer, scheduler, CPU, amp=False, frequency_save=0, save_folder_path=folder,
            save_prefix="attack", non_blocking=True,
        )  # fmt: skip
        with clock:
            losses = [trainer.train_one_epoch_on_mix(verbose=1)[0] for _ in range(RECIPE.epochs)]
    network.backbone.load_state_dict(renamed(net.state_dict(), "linear.", "head."), strict=False)
    return work.judged(network.eval(), losses[-1])


def without_masks(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Only our net has places where channels can be masked; untouched, they change nothing."""
    return {name: value for name, value in state.items() if not name.endswith(".mask")}


def renamed(state: Mapping[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {name.replace(old, new) if name.startswith(old) else name: value for name, value in state.items()}


def check_same(network: Network, net: nn.Module, images: Tensor) -> None:
    """Raise unless both nets give the same logits, so that equal work is compared."""
    with torch.no_grad():
        torch.testing.assert_close(net.eval()(network.eval().normalise(images)), network(images), rtol=1e-4, atol=1e-4)
