"""The checks of what an attack leaves behind: its triggers and its victim."""

from __future__ import annotations

import torch
from torch import Tensor

from gatecrash.contracts.attack import Attack
from gatecrash.contracts.backdoor import Backdoor
from gatecrash.contracts.classifier import Classifier
from gatecrash.testing.attack_trial import trial
from gatecrash.testing.check import CheckFailed, finishing, require
from gatecrash.testing.devices import DEVICES, require_movable
from gatecrash.testing.setting import stored
from gatecrash.testing.trial import Case

NEAR = 0.01
"""Share of pixels that a trigger may give one grey level off in another batch: float noise, rounded (as the evaluation allows)."""


def triggers_act_per_image(attack: Attack) -> None:
    """A triggered image is the same in any batch, in any order and every time; the trigger changes images, and not its input."""
    images = trial(attack).images
    for backdoor in trial(attack).poisoned.backdoors:
        given = images.clone()
        whole = stamped(backdoor, given)
        require(
            given.equal(images),
            f"the trigger of {backdoor.name!r} to leave its input alone",
            "changed input images",
            "return a new tensor; do not use in-place operations on `images`",
        )
        require(
            bool((whole != images).flatten(1).any(1).any()),
            f"the trigger of {backdoor.name!r} to change images",
            f"{len(images)} test images as they were",
            "check the mask and the opacity; a trigger that shows nowhere cannot be scored",
        )
        order = torch.arange(len(images)).flip(0)
        singly = torch.cat([stamped(backdoor, image.unsqueeze(0)) for image in images])
        for company, other in (
            ("one by one", singly),
            ("in reverse order", stamped(backdoor, images[order])[order]),
            ("a second time", stamped(backdoor, images)),
        ):
            apart = (whole.int() - other.int()).abs()
            require(
                int(apart.max()) <= 1 and float((apart > 0).float().mean()) <= NEAR,
                f"the trigger of {backdoor.name!r} to give each image the same in every batch",
                f"{int((apart > 1).flatten(1).any(1).sum())} of {len(images)} images different {company}",
                "let forward() use nothing but the image itself: no statistics over the batch, no random draws, no state",
            )


def triggers_survive_storage(attack: Attack) -> None:
    """A trigger rebuilt from its JSON and tensors, as from the store, gives the same images."""
    images = trial(attack).images
    for backdoor in trial(attack).poisoned.backdoors:
        again = stored(backdoor.trigger, f"the trigger of {backdoor.name!r}")
        require(
            stamped(backdoor, images).equal(stamped(Backdoor(backdoor.name, backdoor.goal, again), images)),  # type: ignore[arg-type]
            f"the trigger of {backdoor.name!r} to act the same after it was stored",
            "other images",
            "return every constructor argument from config(), and register every tensor that forward() uses as a buffer",
        )


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


def honours_the_device(attack: Attack) -> str:
    """Works on the device it is given, with the same rows on each; triggers move with `.to(device)`."""
    work = trial(attack).work
    for backdoor in work.poisoned.backdoors:
        require_movable(backdoor.trigger, trial(attack).images, f"the trigger of {backdoor.name!r}")
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
    return f"tried on {', '.join(DEVICES)}"


def stamped(backdoor: Backdoor, images: Tensor) -> Tensor:
    """The trigger's output, moved to the CPU; raises CheckFailed for what is no image of the same shape."""
    with finishing(f"the trigger of {backdoor.name!r}", "let forward() take any number of uint8 images"), torch.no_grad():
        made: object = backdoor.trigger.cpu().eval()(images)
    got = f"{made.dtype} {list(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
    require(
        isinstance(made, Tensor) and made.dtype == torch.uint8 and made.shape == images.shape,
        f"the trigger of {backdoor.name!r} to give torch.uint8 {list(images.shape)}",
        got,
        "end with .round().clamp(0, 255).to(torch.uint8)",
    )
    assert isinstance(made, Tensor)
    return made
