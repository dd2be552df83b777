"""The checks of what an attack leaves behind: its triggers and its victim."""

from __future__ import annotations

import torch

from gatecrash.contracts.attack import Attack
from gatecrash.contracts.classifier import Classifier
from gatecrash.testing.attack_trial import trial
from gatecrash.testing.check import CheckFailed, finishing, require
from gatecrash.testing.devices import DEVICES, on_a_simulated_gpu, require_movable, require_no_waits
from gatecrash.testing.setting import stored
from gatecrash.testing.trial import Case
from gatecrash.testing.trigger_promises import require_per_image, require_storable, triggers_of


def triggers_act_per_image(attack: Attack) -> None:
    """A triggered image is the same in any batch, in any order and every time; the trigger changes images, and not its input."""
    for who, trigger in triggers_of(trial(attack).poisoned.backdoors):
        require_per_image(who, trigger, trial(attack).images)


def triggers_survive_storage(attack: Attack) -> None:
    """A trigger rebuilt from its JSON and tensors, as from the store, gives the same images."""
    for who, trigger in triggers_of(trial(attack).poisoned.backdoors):
        require_storable(who, trigger, trial(attack).images)


def implants_a_classifier(attack: Attack) -> str:
    """implant() ends with a trained classifier that can be stored; a note says how well it does on clean test images."""
    work = trial(attack).work
    if work.classifier is None:
        work = trial(attack).run(Case(train_victim=True))
    classifier = work.classifier
    if not isinstance(classifier, Classifier):
        raise CheckFailed("implant() to return a gatecrash.Classifier", type(classifier).__name__, "return Implant(poisoned, network)")
    test = trial(attack).setting.test
    again = stored(classifier, "the victim")
    with torch.no_grad():
        logits = classifier.eval().cpu()(test.images)
        require(
            logits.shape == (len(test), test.num_classes) and bool(torch.isfinite(logits).all()),
            f"finite logits [{len(test)}, {test.num_classes}] from the victim",
            str(list(logits.shape)),
            "return what ctx.train returns, or a network of the same form",
        )
        require(
            again(test.images).equal(logits),
            "the victim to answer the same after it was stored",
            "other logits",
            "register every tensor that forward() uses as a parameter or buffer",
        )
    return f"ACC {float((logits.argmax(1) == test.labels).float().mean()):.3f}"


def hands_out_a_training_set(attack: Attack) -> str:
    """Implant.sample, where there is one, is a training set with true roles: what a defender of the data would hold."""
    sample = trial(attack).work.sample
    if sample is None:
        return "no sample: defenses of training data do not apply"
    with finishing("Implant.sample to be a training set", "make it as poison() makes one: row i is row i of train, with its role"):
        sample.check(trial(attack).train)
    return f"{sample.poison_share:.1%} poisoned"


def honours_the_device(attack: Attack) -> str:
    """Works on the device it is given, with the same rows on each; triggers move with `.to(device)`."""
    work = trial(attack).work
    for who, trigger in triggers_of(work.poisoned.backdoors):
        require_movable(trigger, trial(attack).images, who)
    for device in DEVICES:
        again = work if device == "cpu" else trial(attack).run(Case(device=device))
        require(
            again.poisoned.role.cpu().equal(work.poisoned.role.cpu()),
            f"the same rows on {device} as on the CPU",
            "others",
            "draw on the CPU from ctx.stream(name) and move what was drawn",
        )
        where = again.poisoned.images.device.type
        require(where == device, f"poisoned images on the device of the training set, {device}", where, "end with .to(train.device)")
    where = on_a_simulated_gpu(trial(attack))[0].poisoned.images.device.type
    require(where == "cpu", "poisoned images on the CPU, where the training set was", where, "end with .to(train.device)")
    return f"tried on {', '.join(DEVICES)} and a simulated GPU"


def trains_without_waiting(attack: Attack) -> str:
    """On a GPU no step of a training waits for the device: nothing in it reads a value, selects by a mask or moves data."""
    return require_no_waits(trial(attack))
