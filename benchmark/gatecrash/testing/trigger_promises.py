"""What every trigger promises, whether an attack made it or a plugin of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gatecrash.contracts.backdoor import Backdoor
from gatecrash.contracts.trigger import Trigger
from gatecrash.testing.check import finishing, require
from gatecrash.testing.setting import stored

NEAR = 0.01
"""Share of pixels that a trigger may give one grey level off in another batch: float noise, rounded (as the evaluation allows)."""


def triggers_of(backdoors: Sequence[Backdoor]) -> list[tuple[str, Trigger]]:
    """Every trigger, after what a message calls it."""
    return [(f"the trigger of {backdoor.name!r}", backdoor.trigger) for backdoor in backdoors]


def require_per_image(who: str, trigger: Trigger, images: Tensor) -> None:
    """Raise CheckFailed unless the trigger changes images (uint8 [N, C, H, W]), each the same in any batch, and leaves its input alone."""
    given = images.clone()
    whole = stamped(who, trigger, given)
    require(
        given.equal(images),
        f"{who} to leave its input alone",
        "changed input images",
        "return a new tensor; do not use in-place operations on `images`",
    )
    require(
        bool((whole != images).flatten(1).any(1).any()),
        f"{who} to change images",
        f"{len(images)} test images as they were",
        "check the mask and the opacity; a trigger that shows nowhere cannot be scored",
    )
    order = torch.arange(len(images)).flip(0)
    singly = torch.cat([stamped(who, trigger, image.unsqueeze(0)) for image in images])
    for company, other in (
        ("one by one", singly),
        ("in reverse order", stamped(who, trigger, images[order])[order]),
        ("a second time", stamped(who, trigger, images)),
    ):
        apart = (whole.int() - other.int()).abs()
        require(
            int(apart.max()) <= 1 and float((apart > 0).float().mean()) <= NEAR,
            f"{who} to give each image the same in every batch",
            f"{int((apart > 1).flatten(1).any(1).sum())} of {len(images)} images different {company}",
            "let forward() use nothing but the image itself: no statistics over the batch, no random draws, no state",
        )


def require_storable(who: str, trigger: Trigger, images: Tensor) -> None:
    """Raise CheckFailed unless the trigger acts the same once it is rebuilt from its JSON and tensors."""
    again = stored(trigger, who)
    require(
        stamped(who, trigger, images).equal(stamped(who, again, images)),
        f"{who} to act the same after it was stored",
        "other images",
        "return every constructor argument from config(), and register every tensor that forward() uses as a buffer",
    )


def stamped(who: str, trigger: nn.Module, images: Tensor) -> Tensor:
    """The trigger's output, moved to the CPU; raises CheckFailed for what is no image of the same shape."""
    with finishing(who, "let forward() take any number of uint8 images"), torch.no_grad():
        made: object = trigger.cpu().eval()(images)
    got = f"{made.dtype} {list(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
    require(
        isinstance(made, Tensor) and made.dtype == torch.uint8 and made.shape == images.shape,
        f"{who} to give torch.uint8 {list(images.shape)}",
        got,
        "end with .round().clamp(0, 255).to(torch.uint8)",
    )
    assert isinstance(made, Tensor)
    return made
