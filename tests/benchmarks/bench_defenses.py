"""What each shipped defense costs on one victim, and how many images it passes through the network (run with `make bench`).

Images, not seconds, tell whether a defense does what its algorithm asks and no more. `needed` is that count, by the formula beside each
defense: from its options, from the sizes of the sets, and from what it reports to have done (rounds, accused classes, suspects). A ratio
above one is a pass that could have been saved.

The victim is CIFAR-10 (JPEG), cut down so that the whole takes minutes on one core: figures of cost, not of how well anything defends.
"""

from __future__ import annotations

import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from gatecrash import Backbone, Classifier, ImageSet, Model, Outcome, Recipe
from gatecrash.contracts.randomness import stream
from gatecrash.datasets.holdout import HoldoutConfig, cut
from gatecrash.engine.device import choose_device
from gatecrash.evaluation.exam import evaluate
from gatecrash.host.host import Host
from gatecrash.host.loading import load_plugins
from gatecrash.process.allocator import freed_memory_kept
from gatecrash.process.isolation import fresh_process_state
from gatecrash.process.measuring import Meter
from gatecrash.testing import make_context, make_evidence
from gatecrash_plugins.defenses._reverse_triggers import ReverseConfig
from gatecrash_plugins.defenses.activation_clustering import ActivationClustering
from gatecrash_plugins.defenses.activation_pruning import ActivationPruning
from gatecrash_plugins.defenses.anp import ANP
from gatecrash_plugins.defenses.fine_pruning import FinePruning
from gatecrash_plugins.defenses.neural_cleanse import NeuralCleanse, NeuralCleanseFilter

ARCHIVE = "shared/data/cifar10-jpeg.tar.xz"
"""Looked for in the checkout and beside it."""
PER_CLASS = {"train": 220, "test": 50}
"""Images that are unpacked. The usual hold-out takes 20 of each class, so that 2,000 are left to train on."""
RECIPE = Recipe(epochs=8, batch_size=64, lr=0.1, nesterov=True, schedule="one-cycle", crop=2)
WIDTH = 0.25
LEAST, MOST = 0.95, 1.5
"""Ratios outside of which a formula is wrong, or a whole pass too many is made (a random sample lies a little off what is expected)."""
DEVICE = choose_device()


@dataclass(frozen=True)
class Setting:
    """One victim and all that a defense may ask for."""

    host: Host
    victim: Classifier
    clean: ImageSet
    training: ImageSet
    model: Model

    def others(self, label: int) -> int:
        """Hold-out images of all classes but one."""
        return len(self.clean) - self.clean.class_counts()[label]


@dataclass
class Passed:
    """Images that went through a backbone, forward and (with a gradient from its logits) backward, whoever sent them."""

    forward: int = 0
    backward: int = 0


Formula = Callable[[Setting, Any, Outcome], int]
"""`(setting, the defense's options, its outcome)` -> images that have to go forward."""


@dataclass(frozen=True)
class Case:
    """A defense, the options that keep it short, and what it needs."""

    name: str
    needed: Formula
    options: Mapping[str, Any] = field(default_factory=dict)


def anp(setting: Setting, options: ANP.Config, found: Outcome) -> int:
    """Each iteration passes its batch once as it is, and once for each step of the perturbation and once under it; the images held back
    judge the network as it was and under each different set of neurons on the trajectory (sets grow: equal numbers are one set)."""
    held = sum(min(round(options.held_back * count), count - 1) for count in setting.clean.class_counts())
    batch = min(options.batch_size, len(setting.clean) - held)
    passes = (options.alpha > 0) + (options.alpha < 1) * (options.steps + 1)
    sets = {0} | {step.params["pruned"] for step in found.trajectory}
    return options.iterations * batch * passes + len(sets) * held


def pruning(setting: Setting, options: ActivationPruning.Config | FinePruning.Config, found: Outcome) -> int:
    """The hold-out once for the mean activations and once for the head's inputs, of which every point of the curve is a sum."""
    return 2 * len(setting.clean)


def fine_pruning(setting: Setting, options: FinePruning.Config, found: Outcome) -> int:
    """The pruning curve, on which accuracy before and after pruning are points already, and the epochs of fine-tuning."""
    return pruning(setting, options, found) + options.epochs * len(setting.clean)


def activation_clustering(setting: Setting, options: ActivationClustering.Config, found: Outcome) -> int:
    """All rows once for their activations. A model is trained without the smaller clusters, and by exclusionary-reclassification another
    without the larger ones of doubtful classes; each looks once at what it was trained without. One of them then goes on without suspects,
    if all these are among what it was trained without; a new model by the whole recipe otherwise."""
    assert found.suspects is not None
    rows, epochs = len(setting.training), RECIPE.epochs
    sizes = [(row["rows"], round(row["rows"] * row["smaller_share"]), "larger_kept" in row) for row in found.tables["classes"]]
    left_out = [sum(small for _, small, _ in sizes), sum(members - small for members, small, doubtful in sizes if doubtful)]
    judging: int = sum(epochs * (rows - count) + count for count in left_out if count)
    suspects = int(found.suspects.sum())
    accused = {row["accused"] for row in found.tables["classes"]} - {""}
    if options.finish is not None and len(accused) == 1 and options.decision.startswith("exclusionary"):
        epochs = max(1, round(options.finish * epochs))
    return rows + judging + (epochs * (rows - suspects) if suspects else 0)


def search(setting: Setting, options: ReverseConfig, found: Outcome) -> int:
    """Each round of each class passes its sample, of which images of the class itself take no part (so many of them as are to be expected:
    the sample is random); then each class's trigger, in 8 bits, is stamped on all images of other classes."""
    sample = min(options.samples, len(setting.clean)) / len(setting.clean)
    needed: float = sum((row["rounds"] * sample + 1) * setting.others(row["class"]) for row in found.tables["classes"])
    return round(needed)


def neural_cleanse(setting: Setting, options: NeuralCleanse.Config, found: Outcome) -> int:
    """The search, after which the accused classes' success before the repair is known; the epochs of unlearning, and success after it."""
    accused = accused_classes(found)
    repair = options.epochs * len(setting.clean) if accused else 0
    return search(setting, options, found) + repair + sum(map(setting.others, accused))


def neural_cleanse_filter(setting: Setting, options: NeuralCleanseFilter.Config, found: Outcome) -> int:
    """The search; then the hold-out's activations once as it is (for the threshold, and to compare with) and once under each accused
    class's trigger."""
    accused = accused_classes(found)
    watched = len(setting.clean) + sum(map(setting.others, accused)) if accused else 0
    return search(setting, options, found) + watched


def accused_classes(found: Outcome) -> tuple[int, ...]:
    assert found.verdict is not None
    return found.verdict.targets


# Some class has to be accused, or there is nothing to repair: in searches this short no index reaches 2.
SHORT_SEARCH = {"rounds": 12, "samples": 64, "success": 0.5, "anomaly": 0.1}
CASES = [
    Case("anp", anp, {"iterations": 30}),
    Case("fine-pruning", fine_pruning),
    Case("activation-pruning", pruning),
    Case("goodnet", pruning),
    Case("activation-clustering", activation_clustering),
    Case("neural-cleanse", neural_cleanse, SHORT_SEARCH),
    Case("neural-cleanse-filter", neural_cleanse_filter, SHORT_SEARCH),
]


@contextmanager
def counted() -> Iterator[Passed]:
    """Counts at the one door that all of them use: the call of a backbone, in whatever copy of the network."""
    passed = Passed()

    def call(backbone: Backbone, images: Tensor) -> Tensor:
        logits: Tensor = nn.Module.__call__(backbone, images)
        passed.forward += len(images)
        if logits.requires_grad:
            logits.register_hook(note)  # type: ignore[no-untyped-call]
        return logits

    def note(gradient: Tensor) -> None:
        passed.backward += len(gradient)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Backbone, "__call__", call)
        yield passed


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """A BadNets victim on real images; the first line says what it is, and that its backdoor is there."""
    import sklearn.cluster  # noqa: F401 - a second that the first defense to use it would pay

    host = load_plugins(installed=False)
    folder = unpacked(archive(), tmp_path_factory.mktemp("cifar10"))
    splits = host.get("dataset", "imagefolder").configure({"root": folder}).load(lambda _done, _total: None)
    train, clean = cut(splits, HoldoutConfig(), stream("hold-out", 0))
    attack = host.get("attack", "badnets").configure({"poison_rate": 0.1})
    model = host.get("model", "lean").configure({"width": WIDTH})
    with as_a_task():
        implant = attack.implant(train, make_context(attack, train, model, recipe=RECIPE, flip=True, device=DEVICE))
        scores = evaluate(implant.classifier, splits.test, implant.poisoned.backdoors, device=DEVICE)
    print(
        f"\nlean of width {WIDTH}, {DEVICE}, one thread; CIFAR-10 (JPEG), {len(train):,} training images, {RECIPE.epochs} epochs, "
        f"hold-out of {len(clean):,}; badnets, 10% poison: ACC {scores.acc or 0:.0%}, ASR {scores.asr or 0:.0%}"
        f"\n{'defense':<22} {'seconds':>8} {'CPU s':>7} {'forward':>9} {'needed':>9} {'ratio':>6} {'backward':>9}  options",
        end="",
        flush=True,
    )
    return Setting(host, implant.classifier, clean, implant.poisoned.as_image_set(train.classes), model)


def archive() -> Path:
    checkout = Path(__file__).resolve().parents[2]
    found = [path for path in (checkout / ARCHIVE, checkout.parent / ARCHIVE) if path.is_file()]
    if not found:
        reason = f"needs CIFAR-10 as JPEG files: {ARCHIVE}, in the checkout or beside it"
        print(f"\nskipped: {reason}", end="", flush=True)  # pytest -q would not say why
        pytest.skip(reason)
    return found[0]


def unpacked(source: Path, folder: Path) -> Path:
    """The first images of each class, from an archive of `train/<class>/*.jpg` and `test/<class>/*.jpg`."""
    taken: Counter[str] = Counter()
    with tarfile.open(source) as tar:
        for member in tar:
            label = str(Path(member.name).parent)
            if member.isfile() and taken[label] < PER_CLASS[Path(member.name).parts[0]]:
                tar.extract(member, folder, filter="data")
                taken[label] += 1
    return folder


@contextmanager
def as_a_task() -> Iterator[None]:
    """The settings of the process that a task of a grid has."""
    with freed_memory_kept(), fresh_process_state(1):
        yield


def test_every_shipped_defense_is_here() -> None:
    shipped = {plugin.name for plugin in load_plugins(installed=False).all("defense")}
    assert {case.name for case in CASES} == shipped - {"none"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cost_of_a_defense(case: Case, setting: Setting) -> None:
    defense = setting.host.get("defense", case.name).configure(dict(case.options))
    with as_a_task(), counted() as passed, Meter(DEVICE) as meter:
        start = time.process_time()
        # Inside, because the harness makes the activations that a defense asks for: they are part of what it costs.
        evidence = make_evidence(
            defense,
            setting.victim,
            setting.clean,
            training_data=setting.training,
            model=setting.model,
            recipe=RECIPE,
            flip=True,
            device=DEVICE,
        )
        found = defense.defend(evidence)
        processor = time.process_time() - start
    needed = case.needed(setting, defense.config, found)
    ratio = passed.forward / needed
    print(
        f"\n{case.name:<22} {meter.seconds:>8.2f} {processor:>7.2f} {passed.forward:>9,} {needed:>9,} {ratio:>6.2f} {passed.backward:>9,}"
        f"  {shortened(case.options)}{did(found)}",
        end="",
        flush=True,
    )
    assert LEAST < ratio < MOST
    assert passed.backward <= passed.forward


def shortened(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items()) or "default"


def did(found: Outcome) -> str:
    """What the counts depend on and options do not tell."""
    facts = []
    if found.verdict is not None:
        facts.append(f"{len(found.verdict.targets)} accused")
    if found.suspects is not None:
        facts.append(f"{int(found.suspects.sum())} suspects")
    return "".join(f"; {fact}" for fact in facts)
