"""Neural Cleanse: reverse the trigger of every class, accuse classes whose trigger is abnormally small, and remove the backdoor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor

from gatecrash import (
    Classifier,
    Defense,
    Evidence,
    Give,
    ImageSet,
    Need,
    Network,
    NotApplicable,
    Outcome,
    Recipe,
    Reference,
    Step,
    hookimpl,
)
from gatecrash_plugins.defenses._reverse_triggers import ReverseConfig, Reversed, attack_success, others, reverse_triggers

PAPER = Reference(
    "Wang et al., Neural Cleanse: Identifying and Mitigating Backdoor Attacks in Neural Networks",
    2019,
    "https://doi.org/10.1109/SP.2019.00031",
)
PRUNING_STEPS = 32
"""A trajectory has no more steps; wider layers lose several channels a step."""


class NeuralCleanse(Defense):
    """Detection (sections IV and V) and repair (sections VI-B and VI-C) of the paper.

    A backdoor is a shortcut: far fewer pixels need to change to reach its target than to reach any other class. Classes whose anomaly index
    is above 2 on the small side are accused. By construction that accuses about a third of benign ten-class models if mask norms are
    normal, and fewer if their distribution has a long tail to the right.

    What a search ends with depends on its start, so each class is searched `searches` times and its smallest working mask counts. That is
    ours, and so is when a search stops: after `stop_patience` rounds in which the best norm has not dropped 1% below its value at the last
    such drop (the authors compare with the round before), or after 100 rounds of 128 images. `preset: authors` has their rule and the
    constants of their published example.

    Repair by `unlearn` fine-tunes on the clean hold-out, where a fifth of the images carry a reversed trigger under their true label; by
    `prune` it switches off the head's input channels that reversed triggers excite most, until those triggers fail. The paper unlearns
    in one epoch over 10% of the training data; the hold-out here is smaller, so that the default is ten passes over it. If no class is
    accused, or with `none`, the classifier comes back as it was.

    The search needs a classifier that is differentiable by its input, `unlearn` one with parameters, and `prune` a network with points.
    """

    name = "neural-cleanse"
    summary = "reverses a trigger per class, accuses outliers, unlearns or prunes them"
    reference = PAPER
    version = 3
    needs = frozenset({Need.MODEL, Need.CLEAN_DATA})
    gives = frozenset({Give.CLASSIFIER, Give.VERDICT})

    class Config(ReverseConfig):
        """Search, accusation, repair."""

        repair: Literal["unlearn", "prune", "none"] = Field(
            "unlearn", description="how accused classes are repaired; none: the verdict alone"
        )
        trigger_share: float = Field(0.2, gt=0, lt=1, description="unlearn: share of the hold-out that carries a reversed trigger")
        epochs: int = Field(10, ge=1, le=10_000, description="unlearn: passes over the hold-out")
        unlearn_lr: float = Field(0.003, gt=0, le=10, description="unlearn: learning rate (SGD, momentum 0.9)")
        unlearn_batch_size: int = Field(32, ge=1, le=65_536, description="unlearn: images per step")
        max_success: float = Field(0.05, ge=0, lt=1, description="prune: success of the reversed triggers at which pruning stops")

    config: Config

    def defend(self, evidence: Evidence) -> Outcome:
        repair = self.config.repair
        _check_repair(repair, evidence)
        found = _search(evidence, self.config)
        repaired = evidence.classifier
        trajectory: Sequence[Step] = ()
        if found.accused and repair == "unlearn":
            repaired = self._unlearn(evidence, found)
        elif found.accused and repair == "prune":
            trajectory = prune(evidence.network, evidence, found, self.config.max_success)
        after = _successes(repaired, evidence, found)
        tables = _tables(evidence, found) | {
            "repair": [{"class": label, "success_before": found.success[label], "success_after": after[label]} for label in found.accused]
        }
        return Outcome(classifier=repaired, verdict=found.verdict(), trajectory=trajectory, figures=found.figures(), tables=tables)

    def _unlearn(self, evidence: Evidence, found: Reversed) -> Classifier:
        """Section VI-C: fine-tune on images that carry the trigger under their true labels."""
        config = self.config
        data = with_triggers(evidence.clean, found, config.trigger_share, evidence.stream("unlearn"))
        recipe = Recipe(
            epochs=config.epochs,
            batch_size=config.unlearn_batch_size,
            lr=config.unlearn_lr,
            schedule="constant",
            weight_decay=0,
            crop=0,  # a moved trigger would be another one
            flip=False,
            rotation=0,
        )
        # Training uses nothing of a network that other classifiers lack.
        return evidence.train(data, network=cast(Network, evidence.classifier), recipe=recipe)


class NeuralCleanseFilter(Defense):
    """Neural Cleanse's third answer (section VI-A): a filter before the unchanged network.

    The neurons that reversed triggers excite most are watched; an input that excites them more than nearly all clean images do is rejected.
    """

    name = "neural-cleanse-filter"
    summary = "Neural Cleanse's input filter: rejects inputs that excite the reversed trigger's neurons"
    reference = PAPER
    version = 3
    needs = frozenset({Need.MODEL, Need.CLEAN_DATA})
    gives = frozenset({Give.CLASSIFIER, Give.REJECT, Give.VERDICT})

    class Config(ReverseConfig):
        """Search, accusation, filter."""

        neurons: float = Field(0.01, gt=0, le=1, description="share of the penultimate neurons that is watched, at least one")
        false_positives: float = Field(0.05, ge=0, lt=1, description="share of the clean hold-out that may be rejected")

    config: Config

    def defend(self, evidence: Evidence) -> Outcome:
        network = evidence.network
        found = _search(evidence, self.config)
        classifier: Classifier = network
        if found.accused:
            classifier = make_filter(network, evidence, found, self.config.neurons, self.config.false_positives)
        return Outcome(classifier=classifier, verdict=found.verdict(), figures=found.figures(), tables=_tables(evidence, found))


class FilteredNetwork(Classifier):
    """A network that rejects inputs by their penultimate activations.

    The score of an input is the mean activation of the watched neurons, in standard deviations from the mean over clean images; of several
    watched sets the largest score counts. Above `threshold` the input is rejected (logits [N, K + 1], the last one largest).

    Buffers: `watched` float [T, F], rows summing to 1; `center` and `spread` float [T]; `threshold` float [].
    """

    watched: Tensor
    center: Tensor
    spread: Tensor
    threshold: Tensor

    MARGIN = 10.0
    """The reject logit lies this far above or below all others."""

    def __init__(self, network: Network, targets: int, features: int) -> None:
        super().__init__()
        self.network, self.num_classes = network, network.num_classes
        self.register_buffer("watched", torch.zeros(targets, features))
        self.register_buffer("center", torch.zeros(targets))
        self.register_buffer("spread", torch.ones(targets))
        self.register_buffer("threshold", torch.tensor(torch.inf))

    def config(self) -> dict[str, Any]:
        targets, features = self.watched.shape
        return {"network": self.network, "targets": targets, "features": features}

    def forward(self, images: Tensor) -> Tensor:
        features = self.network.features(images)
        logits: Tensor = self.network.head(features)
        rejected = self.score(features) > self.threshold
        reject = torch.where(rejected, logits.amax(1) + self.MARGIN, logits.amin(1) - self.MARGIN)
        return torch.cat([logits, reject[:, None]], 1)

    def score(self, features: Tensor) -> Tensor:
        """float [N, F] -> float [N]."""
        return ((features @ self.watched.T - self.center) / self.spread).amax(1)


def with_triggers(clean: ImageSet, found: Reversed, share: float, generator: torch.Generator) -> ImageSet:
    """`clean` with a reversed trigger on `share` of its images and all labels left true.

    Accused classes get equal parts, and a class's trigger goes only to images of other classes.
    """
    images = clean.images.clone()
    free = torch.randperm(len(clean), generator=generator).to(clean.device)
    each = max(1, round(share * len(clean) / len(found.accused)))
    for label in found.accused:
        rows = free[clean.labels[free] != label][:each]
        images[rows] = found.trigger(label).to(clean.device)(images[rows])
        free = free[~torch.isin(free, rows)]
    return ImageSet(images, clean.labels, clean.classes)


def prune(network: Network, evidence: Evidence, found: Reversed, max_success: float) -> list[Step]:
    """Section VI-B, in place: switch off channels of the last point, those first that a reversed trigger excites most above clean images.

    Stops when no accused class's trigger succeeds on more than `max_success` of the hold-out; where that is never reached, it keeps the
    mask of least success. At least one channel stays. Returns the steps tried.
    """
    name, point = list(network.points.items())[-1]
    channels = point.channels
    order = excitement(_channel_reader(network, name), evidence, found).amax(0).argsort(descending=True, stable=True)
    given = point.mask.clone()
    steps: list[Step] = []
    best, best_mask = float("inf"), given
    for step in range(1, PRUNING_STEPS + 1):
        count = -(-step * channels // PRUNING_STEPS)
        if count >= channels or (steps and steps[-1].params["pruned"] == count):
            continue
        mask = given.clone()
        mask[order[:count]] = 0
        point.set_mask(mask)
        success = max(_successes(network, evidence, found).values())
        steps.append(Step({"pruned": count, "reversed_success": success}, {f"backbone.{name}.mask": mask}))
        if success < best:
            best, best_mask = success, mask
        if success <= max_success:
            break
    point.set_mask(best_mask)
    return steps


def make_filter(network: Network, evidence: Evidence, found: Reversed, neurons: float, false_positives: float) -> FilteredNetwork:
    """Watch the `neurons` share of penultimate neurons that each reversed trigger excites most.

    The threshold is the least at which no more than `false_positives` of the hold-out are rejected. The paper sets one threshold per
    backdoor; scores are standardised here so that several backdoors together keep the rate.
    """
    rise = excitement(network.features, evidence, found)
    top = max(1, round(neurons * rise.shape[1]))
    guarded = FilteredNetwork(network, *rise.shape).to(evidence.device).eval()
    guarded.watched.scatter_(1, rise.topk(top, 1).indices, 1 / top)
    with torch.no_grad():
        clean = torch.cat([network.features(batch) for batch in evidence.batches(evidence.clean.images)])
        means = clean @ guarded.watched.T
        guarded.center.copy_(means.mean(0))
        guarded.spread.copy_(means.std(0).clamp_min(1e-6))
        scores = guarded.score(clean).sort().values
    guarded.threshold.copy_(scores[len(scores) - 1 - int(false_positives * len(scores))])
    return guarded


def excitement(read: Callable[[Tensor], Tensor], evidence: Evidence, found: Reversed) -> Tensor:
    """float [accused, F]: mean of `read` (uint8 [N, C, H, W] -> float [N, F]) with each reversed trigger, minus its mean without; over the
    hold-out's images of other classes."""
    rises = []
    with torch.no_grad():
        for label in found.accused:
            stamp = found.trigger(label).to(evidence.device)
            images = others(evidence.clean, label)
            sums = [(read(stamp(batch)) - read(batch)).double().sum(0) for batch in evidence.batches(images)]
            rises.append(torch.stack(sums).sum(0) / len(images))
    return torch.stack(rises).float()


def _channel_reader(network: Network, name: str) -> Callable[[Tensor], Tensor]:
    def read(images: Tensor) -> Tensor:
        return network.activations(images, [name])[name].flatten(2).mean(2)

    return read


def _check_repair(repair: str, evidence: Evidence) -> None:
    """Raises NotApplicable, before the long search, where the classifier could not be repaired that way."""
    classifier = evidence.classifier
    lacks = None
    if repair == "prune" and not isinstance(classifier, Network):
        lacks = "points at which it could be pruned"
    if repair == "unlearn" and not any(parameter.requires_grad for parameter in classifier.parameters()):
        lacks = "parameters that could unlearn"
    if lacks is not None:
        raise NotApplicable(f"the classifier, a {type(classifier).__name__}, has no {lacks}; use repair none for the verdict alone")


def _search(evidence: Evidence, config: ReverseConfig) -> Reversed:
    if evidence.num_classes < 3:
        raise NotApplicable("the anomaly index of one norm among two is always 0.67; Neural Cleanse needs at least three classes")
    frozen = evidence.classifier.duplicate().eval().requires_grad_(False)
    if isinstance(frozen, Network):
        frozen.to(memory_format=torch.channels_last)  # a third faster
    return reverse_triggers(frozen, evidence, config)


def _successes(classifier: Classifier, evidence: Evidence, found: Reversed) -> Mapping[int, float]:
    """Success of each accused class's reversed trigger on the hold-out."""
    return {label: attack_success(classifier, evidence, found.trigger(label), label) for label in found.accused}


def _tables(evidence: Evidence, found: Reversed) -> dict[str, list[dict[str, object]]]:
    return {"classes": found.table(evidence.classes)}


@hookimpl
def register_defenses(register: Callable[[type[Defense]], None]) -> None:
    register(NeuralCleanse)
    register(NeuralCleanseFilter)
