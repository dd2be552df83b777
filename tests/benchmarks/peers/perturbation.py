"""The perturbation of the Clean-Label attack: ours, and ProjectedGradientDescentPyTorch of the Adversarial Robustness Toolbox."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gatecrash import Recipe
from gatecrash.testing import make_context
from gatecrash_plugins.attacks.clean_label import CleanLabel
from peers.setting import CPU, Setting, as_a_task
from peers.tools import ART
from peers.turns import Clock, Figures, Side

EPSILON, ITERATIONS = 16 / 255, 10
BATCH = 64
"""Theirs; ours is the harness's own choice for a CPU, which for images of 32 px is the same."""
EQUAL = (
    "the same network (lean, width 0.25) and 500 images of CIFAR-10, epsilon 16/255 in L-infinity, 10 steps of 1.6/255, one random start, "
    "true labels; one thread; judged as 8-bit images"
)


def sides(setting: Setting) -> list[Side]:
    return [Side("Gatecrash", partial(gatecrash, setting)), Side("ART, ProjectedGradientDescent", partial(art, setting), ART)]


def gatecrash(setting: Setting, clock: Clock) -> Figures:
    attack = CleanLabel(CleanLabel.Config(epsilon=EPSILON, iterations=ITERATIONS))
    context = make_context(attack, setting.train, setting.model, benign=setting.victim, recipe=Recipe(), flip=True, device=CPU)
    with as_a_task(), clock:
        moved = attack.perturb(setting.test.images, setting.test.labels, context)
    return judged(setting, moved)


def art(setting: Setting, clock: Clock) -> Figures:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        setting.victim, nn.CrossEntropyLoss(), setting.test.shape, setting.test.num_classes, clip_values=(0, 1), device_type="cpu"
    )
    attack = ProjectedGradientDescentPyTorch(
        classifier, eps=EPSILON, eps_step=EPSILON / ITERATIONS, max_iter=ITERATIONS, num_random_init=1, batch_size=BATCH, verbose=False
    )
    images, labels = (setting.test.images / 255).numpy(), setting.test.labels.numpy()
    with clock:
        moved = attack.generate(images, labels)
    return judged(setting, (255 * torch.from_numpy(moved)).round().to(torch.uint8))


def judged(setting: Setting, moved: Tensor) -> Figures:
    """As the victim sees the 8-bit images."""
    with torch.no_grad():
        logits = setting.victim(moved)
    labels = setting.test.labels
    return {
        "loss reached": float(F.cross_entropy(logits, labels)),
        "accuracy left %": 100 * float((logits.argmax(1) == labels).double().mean()),
        "largest change": float((moved.int() - setting.test.images.int()).abs().max()),
    }
