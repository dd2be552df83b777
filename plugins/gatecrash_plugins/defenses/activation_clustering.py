"""Activation Clustering: poison and clean rows of one label lie apart in the penultimate layer, although the network gives them one class.

Every class of the training set is split in two by its activations; the decision says which half, if any, is poison; the suspects are
removed and a model is trained from scratch on the rest. All indices are rows of the training set throughout: nothing
is shuffled and each class is clustered as a whole, so cluster ids never have to be matched.

Four decisions. The first three are the paper's (exclusionary reclassification, relative size comparison, silhouette score):

- `exclusionary`: one model is trained without the clusters in question, here the smaller one of every class, and says what they are;
- `relative-size` and `silhouette`: how the clusters of a class lie, without a model;
- `exclusionary-reclassification`: an extension that neither the paper nor IBM's Adversarial Robustness Toolbox has. A second model judges
  the larger clusters of the classes that the first one doubts, so that either half can be accused.

Which is the default, and why: `exclusionary`, the paper's. A threshold on relative size or on the silhouette is a statement about how the
benign classes of one data set cluster (digits have benign silhouettes of 0.2 to 0.3 where the paper's threshold is 0.10 to 0.15), while
a model that has not seen a cluster says what it is, with a threshold (1) that means the same on every data set. It costs one training run
besides the final one; the extension costs two where a class is doubted. No decision but the extension can be right where poison is the
majority of its class, and the extension can be wrong where `exclusionary` is right: its second model compares two confidences.

Which reduction is the default, and why: principal components as they are, the default of the common implementations. The paper's
independent components have equal variance by construction; with a hundred rows per class that lifts noise to the size of the backdoor,
which otherwise is the largest difference within its class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from gatecrash import Classifier, Defense, Evidence, Give, ImageSet, Need, Options, Outcome, Reference, hookimpl
from gatecrash_plugins.defenses._clusters import Halves, reduce, two_means


@dataclass(frozen=True)
class Finding:
    """What a decision says of one class: which half is poison, if any, and how much speaks for it, in [0, 1]."""

    accused: Literal["smaller", "larger"] | None
    evidence: float
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reclassified:
    """What a model says of a cluster that it was not trained on (exclusionary reclassification, Chen et al. 2018).

    `kept` (the paper's l) rows get their own label, `moved` (p) the other class that most rows go to; `foreign` in [0, 1] is the mean
    probability of the likeliest other class.
    """

    kept: int
    moved: int
    foreign: float

    def poisonous(self, threshold: float) -> bool:
        """l / p < threshold."""
        return self.kept < threshold * self.moved

    @property
    def evidence(self) -> float:
        return self.moved / max(1, self.kept + self.moved)

    def details(self, prefix: str) -> dict[str, Any]:
        """Columns of the table of classes."""
        return {f"{prefix}kept": self.kept, f"{prefix}moved": self.moved, f"{prefix}foreign": self.foreign}


class ActivationClustering(Defense):
    """Removes training rows whose penultimate activations split off from their class, and retrains without them."""

    name = "activation-clustering"
    summary = "2-means on each class's penultimate activations finds poisoned rows; retraining without them"
    reference = Reference(
        "Chen et al., Detecting Backdoor Attacks on Deep Neural Networks by Activation Clustering", 2018, "https://arxiv.org/abs/1811.03728"
    )
    needs = frozenset({Need.MODEL, Need.TRAINING_DATA, Need.FEATURES, Need.RETRAIN})
    gives = frozenset({Give.SUSPECTS, Give.CLASSIFIER})
    version = 3

    class Config(Options):
        """Defaults: the paper's thresholds; the size below which a cluster is small as in IBM's Adversarial Robustness Toolbox."""

        reduction: Literal["pca", "ica"] = Field(
            "pca", description="pca: components as large as they are in the activations; ica: components of equal variance (paper)"
        )
        dimensions: int = Field(10, ge=1, le=1000, description="components that each class's activations are reduced to")
        decision: Literal["exclusionary", "exclusionary-reclassification", "relative-size", "silhouette"] = Field(
            "exclusionary",
            description="how a cluster is found to be poison; exclusionary, relative-size and silhouette are the paper's, "
            "exclusionary-reclassification extends the first by a second model that may accuse the larger cluster",
        )
        ratio: float = Field(
            1.0, gt=0, le=1000, description="exclusionary (both): poison if (kept label) / (most frequent other) is below this"
        )
        size: float = Field(
            0.35,
            gt=0,
            le=0.5,
            description="a smaller cluster below this share of its class counts as small: alone poison by relative-size and silhouette, "
            "and never mistaken for the clean minority by exclusionary-reclassification",
        )
        silhouette: float = Field(0.15, ge=-1, le=1, description="silhouette: poison only if the class's two clusters score above this")
        retrain: bool = Field(True, description="train from scratch without the suspects; else the victim is returned as it is")

    config: Config

    def defend(self, evidence: Evidence) -> Outcome:
        data = evidence.training_data
        halves = self.split(evidence.features, data.labels, evidence)
        findings = {
            "exclusionary": self.by_exclusion,
            "exclusionary-reclassification": self.by_reclassification,
            "relative-size": self.by_relative_size,
            "silhouette": self.by_silhouette,
        }[self.config.decision](halves, evidence)
        suspects, suspicion = mark(halves, findings, len(data))
        classifier: Classifier = evidence.classifier
        if self.config.retrain and bool(suspects.any()):
            classifier = evidence.train(without(data, suspects))
        return Outcome(
            classifier=classifier, suspects=suspects, suspicion=suspicion, tables={"classes": table(halves, findings, evidence.classes)}
        )

    def split(self, features: Tensor, labels: Tensor, evidence: Evidence) -> list[Halves]:
        """Each class's rows in two clusters; classes that cannot be split (fewer than three rows, or all alike) are left out."""
        values, members = features.double().cpu().numpy(), labels.cpu()
        found = []
        for label in range(evidence.num_classes):
            rows = torch.nonzero(members == label).flatten()
            scores = reduce(values[rows.numpy()], self.config.dimensions, whiten=self.config.reduction == "ica")
            if scores is not None:
                found.append(two_means(label, rows, scores, evidence.stream.seed("k-means"), evidence.stream.seed("silhouette")))
        return found

    def by_relative_size(self, halves: Sequence[Halves], evidence: Evidence) -> list[Finding]:
        """The smaller cluster is poison if it holds less than `size` of its class (the paper's relative size comparison)."""
        return [Finding("smaller" if half.share < self.config.size else None, 1 - 2 * half.share) for half in halves]

    def by_silhouette(self, halves: Sequence[Halves], evidence: Evidence) -> list[Finding]:
        """The smaller cluster is poison if the two clusters describe the class well, and it is small as well."""
        return [
            Finding(
                "smaller" if half.silhouette > self.config.silhouette and half.share < self.config.size else None, max(0.0, half.silhouette)
            )
            for half in halves
        ]

    def by_exclusion(self, halves: Sequence[Halves], evidence: Evidence) -> list[Finding]:
        """A smaller cluster is poison if a model trained without the smaller clusters of all classes takes it for another: l / p < `ratio`.

        This is the paper's rule. It leaves open what is poison at l / p = `ratio`; here it is not.
        """
        if not halves:
            return []
        answers = reclassify(halves, [half.smaller for half in halves], evidence)
        return [
            Finding("smaller" if answer.poisonous(self.config.ratio) else None, answer.evidence, answer.details("")) for answer in answers
        ]

    def by_reclassification(self, halves: Sequence[Halves], evidence: Evidence) -> list[Finding]:
        """`by_exclusion` with a second look that may turn the accusation round: an extension of the paper.

        Where the first model does not recognise a cluster, either this is poison, or it is all that was clean in a class where poison is
        the majority (without it, all images of that label carry the trigger). So a second model is trained without the larger clusters of
        these classes. If it recognises them, the smaller ones are poison. If neither model recognises what it has not seen and neither
        cluster is small (below `size`), poison is what is taken for another class with more confidence: a poisoned image is an ordinary
        image of another class, while a class that was left out resembles none.
        """
        findings = self.by_exclusion(halves, evidence)
        doubtful = [index for index, finding in enumerate(findings) if finding.accused]
        if not doubtful:
            return findings
        chosen = [halves[index] for index in doubtful]
        for index, large in zip(doubtful, reclassify(chosen, [~half.smaller for half in chosen], evidence), strict=True):
            small = findings[index]
            details = {**small.details, **large.details("larger_")}
            stranger = large.foreign > small.details["foreign"] and halves[index].share >= self.config.size
            if large.poisonous(self.config.ratio) and stranger:
                findings[index] = Finding("larger", large.evidence, details)
            else:
                findings[index] = replace(small, details=details)
        return findings


def reclassify(halves: Sequence[Halves], clusters: Sequence[Tensor], evidence: Evidence) -> list[Reclassified]:
    """Train without the given cluster of each class and look at what the model says of each."""
    data = evidence.training_data
    excluded = [half.rows[cluster] for half, cluster in zip(halves, clusters, strict=True)]
    drop = torch.zeros(len(data), dtype=torch.bool)
    drop[torch.cat(excluded)] = True
    model = evidence.train(without(data, drop))
    found = []
    for half, rows in zip(halves, excluded, strict=True):
        with torch.inference_mode():
            images = data.images[rows.to(data.device)]
            logits = torch.cat([model(batch) for batch in evidence.batches(images)]).double()
        counts = torch.bincount(logits.argmax(1), minlength=evidence.num_classes)
        others = counts.index_fill(0, torch.tensor([half.label], device=counts.device), 0)
        probabilities = logits.softmax(1)
        probabilities[:, half.label] = 0
        found.append(Reclassified(int(counts[half.label]), int(others.max()), float(probabilities.amax(1).mean())))
    return found


def mark(halves: Sequence[Halves], findings: Sequence[Finding], rows: int) -> tuple[Tensor, Tensor]:
    """`suspects` bool [rows] and `suspicion` float64 [rows], in training order.

    Suspicion = [is a suspect] + (evidence against the class) * (position between the clusters, 0 to 1), so that suspects come before all
    others and both are ordered by how far they lie on the accused (otherwise the smaller) cluster's side. Rows of classes that could not
    be split have none.
    """
    suspects = torch.zeros(rows, dtype=torch.bool)
    suspicion = torch.zeros(rows, dtype=torch.float64)
    for half, finding in zip(halves, findings, strict=True):
        side = half.margin if finding.accused != "larger" else -half.margin
        if finding.accused is not None:
            suspects[half.rows] = half.smaller if finding.accused == "smaller" else ~half.smaller
        suspicion[half.rows] = suspects[half.rows].double() + finding.evidence * (1 + side) / 2
    return suspects, suspicion


def without(data: ImageSet, rows: Tensor) -> ImageSet:
    """`data` minus the rows of a boolean mask, order kept."""
    return data.subset(~rows.to(data.device))


def table(halves: Sequence[Halves], findings: Sequence[Finding], classes: Sequence[str]) -> list[dict[str, Any]]:
    """One record per class that could be split."""
    return [
        {
            "class": classes[half.label],
            "rows": len(half.rows),
            "smaller_share": half.share,
            "silhouette": half.silhouette,
            **finding.details,
            "accused": finding.accused or "",
        }
        for half, finding in zip(halves, findings, strict=True)
    ]


@hookimpl
def register_defenses(register: Callable[[type[Defense]], None]) -> None:
    register(ActivationClustering)
