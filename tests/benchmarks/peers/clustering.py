"""Activation Clustering, from training images to suspects: ours, and ActivationDefence of the Adversarial Robustness Toolbox.

The decision is the toolbox's default, `smaller`: the smaller cluster of every class is poison, which is ours by relative size with a
threshold of one half. Of its other decisions (version 1.20.1), `relative-size` raises an error with current NumPy for a class without a
small cluster, `silhouette-scores` leaves the answer for the larger cluster of an accused class unset, and the exclusionary one trains a
model by settings of its own. Ours starts 2-means ten times and takes the best split; theirs starts once, scikit-learn's default.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from gatecrash import Network, Role
from gatecrash.testing import make_evidence
from gatecrash_plugins.defenses.activation_clustering import ActivationClustering
from peers.setting import CPU, Setting, as_a_task
from peers.tools import ART
from peers.turns import Clock, Figures, Side

EQUAL = (
    "the same victim (lean, width 0.25) and training rows (2,000 of CIFAR-10, 10% BadNets), 10 principal components, 2-means, the smaller "
    "cluster of each class is poison; activations are computed inside; one thread"
)


def sides(setting: Setting) -> list[Side]:
    return [Side("Gatecrash", partial(gatecrash, setting)), Side("ART, ActivationDefence", partial(art, setting), ART)]


def gatecrash(setting: Setting, clock: Clock) -> Figures:
    defense = ActivationClustering(ActivationClustering.Config(decision="relative-size", size=0.5, retrain=False))
    data = setting.poisoned.as_image_set(setting.train.classes)
    with as_a_task(), clock:
        evidence = make_evidence(defense, setting.victim, setting.train, training_data=data, model=setting.model, flip=True, device=CPU)
        found = defense.defend(evidence)
    assert found.suspects is not None
    return judged(setting, found.suspects)


def art(setting: Setting, clock: Clock) -> Figures:
    from art.defences.detector.poison import ActivationDefence
    from art.estimators.classification import PyTorchClassifier

    images = (setting.poisoned.images / 255).numpy()
    classifier = PyTorchClassifier(
        FeaturesLast(setting.victim).eval(), nn.CrossEntropyLoss(), setting.train.shape, setting.train.num_classes,
        clip_values=(0, 1), device_type="cpu",
    )  # fmt: skip
    with clock:
        defense = ActivationDefence(classifier, images, setting.poisoned.labels.numpy())
        _, clean = defense.detect_poison(nb_clusters=2, nb_dims=10, reduce="PCA", cluster_analysis="smaller")
    return judged(setting, torch.from_numpy(np.array(clean) == 0))


class FeaturesLast(nn.Module):
    """The toolbox clusters what the last of a model's children puts out: that is the body here, not the head."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.head = network.head
        self.body = Body(network)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(images))
        return logits


class Body(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.features(images)


def judged(setting: Setting, suspects: Tensor) -> Figures:
    poison = setting.poisoned.role == Role.POISON
    return {
        "suspects": float(suspects.sum()),
        "TPR %": 100 * float(suspects[poison].double().mean()),
        "FPR %": 100 * float(suspects[~poison].double().mean()),
    }
